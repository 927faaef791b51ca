# One static library per folder of src/, tests and benches beside the code.
#
# kedge_folder(<name> [TORCH] LINKS <below>...) makes kedge_<name> from src/<name>/**.cc; *_test.cc become <name>_test,
# *_bench.cc become <name>_bench; a kernel's ISA is the end of its file's name. A TORCH folder exists with KEDGE_TORCH
# only, goes into kedge-torch and never into kedge or the installed library; it may lie within another folder
# (ptq/methods_twin becomes kedge_ptq_methods_twin).

add_library(kedge_flags INTERFACE)
target_compile_features(kedge_flags INTERFACE cxx_std_20)
target_include_directories(kedge_flags INTERFACE
  $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include> $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src>
  $<INSTALL_INTERFACE:include>)
# GCC 12 warns of overlapping copies inside std::string that do not exist (GCC bug 105651): -Wno-restrict.
# Contraction would let the compiler fuse what the numerics contract keeps apart.
target_compile_options(kedge_flags INTERFACE
  "$<BUILD_INTERFACE:-ffp-contract=off;-fno-math-errno;-Wall;-Wextra;-Wpedantic;-Wno-unused-parameter>"
  $<BUILD_INTERFACE:$<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>>)

# -fexpensive-optimizations: at -O1 GCC leaves out vzeroupper without it, and scalar code behind a kernel crawls.
set(KEDGE_AVX2_FLAGS -mavx2 -mfma -mf16c -fexpensive-optimizations)
if(KEDGE_FUZZ)
  # Fuzzing is for parsers; instrumenting the unrolled kernels costs clang minutes per file.
  list(APPEND KEDGE_AVX2_FLAGS -fno-sanitize=all)
endif()
if(CMAKE_CXX_FLAGS_DEV MATCHES "undefined")
  # The same for GCC and UBSan; AddressSanitizer stays on, and the scalar rows keep both.
  list(APPEND KEDGE_AVX2_FLAGS -fno-sanitize=undefined)
endif()
if(CMAKE_CXX_FLAGS_DEV MATCHES "thread")
  # Most of the tests' time, and what threads share is decided above: all ISAs are given the same parts. The scalar
  # rows keep it.
  list(APPEND KEDGE_AVX2_FLAGS -fno-sanitize=thread)
endif()
set(KEDGE_AVX512_FLAGS ${KEDGE_AVX2_FLAGS} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
set(KEDGE_AVX512VNNI_FLAGS ${KEDGE_AVX512_FLAGS} -mavx512vnni)

function(kedge_isa_flags)
  foreach(source ${ARGN})
    if(source MATCHES "_avx512vnni\\.cc$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${KEDGE_AVX512VNNI_FLAGS}")
    elseif(source MATCHES "_avx512\\.cc$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${KEDGE_AVX512_FLAGS}")
    elseif(source MATCHES "_avx2\\.cc$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${KEDGE_AVX2_FLAGS}")
    endif()
  endforeach()
endfunction()

# twin/tensor.h is nine tenths of what a unit of a TORCH folder reads: made by the first target, used by the others.
function(kedge_torch_precompiled_header target)
  get_property(owner GLOBAL PROPERTY KEDGE_TORCH_PCH_OWNER)
  if(owner)
    target_precompile_headers(${target} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src/twin/tensor.h)
    set_property(GLOBAL PROPERTY KEDGE_TORCH_PCH_OWNER ${target})
  endif()
endfunction()

function(kedge_folder folder)
  cmake_parse_arguments(ARG "TORCH" "" "LINKS" ${ARGN})
  if(ARG_TORCH AND NOT KEDGE_WITH_TORCH)
    return()
  endif()
  string(REPLACE "/" "_" name ${folder})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${folder}/*.cc)
  if(NOT ARG_TORCH)
    list(FILTER sources EXCLUDE REGEX "/methods_twin/")
  endif()
  set(tests ${sources})
  set(benches ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_test|_bench|_plugin|/main|/main_torch)\\.cc$")
  if(name STREQUAL "base")
    list(APPEND sources ${CMAKE_BINARY_DIR}/generated/version.cc)
  endif()
  set(links)
  foreach(link ${ARG_LINKS})
    if(TARGET kedge_${link})
      list(APPEND links kedge_${link})
    else()
      list(APPEND links ${link})
    endif()
  endforeach()

  if(sources)
    add_library(kedge_${name} STATIC ${sources})
    target_link_libraries(kedge_${name} PUBLIC kedge_flags ${links})
    kedge_isa_flags(${sources})
    if(ARG_TORCH)
      # No position independent code: a precompiled header serves libraries and tests only where their flags are equal.
      target_link_libraries(kedge_${name} PUBLIC kedge_libtorch)
      kedge_torch_precompiled_header(kedge_${name})
    else()
      set_target_properties(kedge_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    endif()
  else()
    add_library(kedge_${name} INTERFACE)
    target_link_libraries(kedge_${name} INTERFACE kedge_flags ${links})
  endif()
  if(ARG_TORCH)
    set_property(GLOBAL APPEND PROPERTY KEDGE_TORCH_LIBRARIES kedge_${name})
  else()
    set_property(GLOBAL APPEND PROPERTY KEDGE_LIBRARIES kedge_${name})
  endif()

  if(KEDGE_TESTS AND tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE kedge_${name} GTest::gtest_main GTest::gtest)
    target_compile_definitions(${name}_test PRIVATE KEDGE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    if(ARG_TORCH)
      kedge_torch_precompiled_header(${name}_test)
    endif()
    gtest_discover_tests(${name}_test DISCOVERY_MODE PRE_TEST TEST_PREFIX ${name}. PROPERTIES TIMEOUT 300)
  endif()
  if(KEDGE_BENCH AND benches)
    find_package(benchmark REQUIRED)
    add_executable(${name}_bench ${benches})
    target_link_libraries(${name}_bench PRIVATE kedge_${name} benchmark::benchmark_main)
  endif()
endfunction()

# kedge_main(<name> <source> [<library>...]): a program of kedge_cli and these libraries.
function(kedge_main name source)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE kedge_cli ${ARGN})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
endfunction()

# tests/trips/*_test.cc: end to end, against the built binary and the libraries.
function(kedge_trip_tests)
  file(GLOB trips CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/trips/*_test.cc)
  if(KEDGE_TESTS AND trips)
    add_executable(trips_test ${trips})
    target_link_libraries(trips_test PRIVATE kedge_cli GTest::gtest_main GTest::gtest)
    target_compile_definitions(trips_test PRIVATE KEDGE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" KEDGE_BINARY="$<TARGET_FILE:kedge>")
    add_dependencies(trips_test kedge)
    if(TARGET kedge-mpi)
      target_compile_definitions(trips_test PRIVATE KEDGE_MPIRUN="${MPIEXEC_EXECUTABLE}")
      add_dependencies(trips_test kedge-mpi)
    endif()
    if(TARGET kedge-torch)
      target_compile_definitions(trips_test PRIVATE KEDGE_TORCH_BINARY="$<TARGET_FILE:kedge-torch>")
      add_dependencies(trips_test kedge-torch)
    endif()
    gtest_discover_tests(trips_test DISCOVERY_MODE PRE_TEST TEST_PREFIX trips. PROPERTIES TIMEOUT 600)
  endif()
endfunction()
