# kedge_embed(<folder library> <name> FILES <file>...): files that are part of the program, so that an installed binary
# needs no folder for them.
#
# Makes <name>.cc in the build folder with `std::span<const EmbeddedFile> <name>()` (base/embedded_file.h). A literal of
# their size costs the compiler seconds and meets its limits; the assembler copies the bytes (.incbin).
function(kedge_embed folder name)
  cmake_parse_arguments(ARG "" "" "FILES" ${ARGN})
  set(assembler "")
  set(declarations "")
  set(rows "")
  set(number 0)
  foreach(file ${ARG_FILES})
    cmake_path(GET file FILENAME base)
    set(symbol "kedge_${name}_${number}")
    string(APPEND assembler "    \".hidden ${symbol}_begin\\n.global ${symbol}_begin\\n${symbol}_begin:\\n.incbin \\\"${file}\\\"\\n\"\n"
      "    \".hidden ${symbol}_end\\n.global ${symbol}_end\\n${symbol}_end:\\n\"\n")
    string(APPEND declarations "[[gnu::visibility(\"hidden\")]] extern const char ${symbol}_begin[], ${symbol}_end[];\n")
    string(APPEND rows "    {\"${base}\", {${symbol}_begin, ${symbol}_end}},\n")
    math(EXPR number "${number} + 1")
  endforeach()
  set(source ${CMAKE_BINARY_DIR}/generated/${name}.cc)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
#include "base/embedded_file.h"

asm(".pushsection .rodata.kedge_@name@, \"a\", @progbits\n"
@assembler@    ".popsection\n");

extern "C" {
@declarations@}

namespace kedge {

std::span<const EmbeddedFile> @name@() {
  static const EmbeddedFile files[] = {
@rows@  };
  return files;
}

}  // namespace kedge
]])
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS "${ARG_FILES}")
  target_sources(kedge_${folder} PRIVATE ${source})
endfunction()
