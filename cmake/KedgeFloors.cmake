# One static library per folder of src/, tests and benches beside the code.
#
# kedge_folder(<name> LINKS <below>...) makes kedge_<name> from src/<name>/**.cc; *_test.cc become <name>_test,
# *_bench.cc become <name>_bench; a kernel's ISA is the end of its file's name.

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

function(kedge_folder name)
  cmake_parse_arguments(ARG "" "" "LINKS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  set(tests ${sources})
  set(benches ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_test|_bench|/main)\\.cc$")
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
    set_target_properties(kedge_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    kedge_isa_flags(${sources})
  else()
    add_library(kedge_${name} INTERFACE)
    target_link_libraries(kedge_${name} INTERFACE kedge_flags ${links})
  endif()
  set_property(GLOBAL APPEND PROPERTY KEDGE_LIBRARIES kedge_${name})

  if(KEDGE_TESTS AND tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE kedge_${name} GTest::gtest_main GTest::gtest)
    target_compile_definitions(${name}_test PRIVATE KEDGE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    gtest_discover_tests(${name}_test DISCOVERY_MODE PRE_TEST TEST_PREFIX ${name}. PROPERTIES TIMEOUT 300)
  endif()
  if(KEDGE_BENCH AND benches)
    find_package(benchmark REQUIRED)
    add_executable(${name}_bench ${benches})
    target_link_libraries(${name}_bench PRIVATE kedge_${name} benchmark::benchmark_main)
  endif()
endfunction()

function(kedge_main name source)
  if(EXISTS ${CMAKE_SOURCE_DIR}/${source})
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE kedge_cli)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  endif()
endfunction()

# tests/trips/*_test.cc: end to end, against the built binary and the libraries.
function(kedge_trip_tests)
  file(GLOB trips CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/trips/*_test.cc)
  if(KEDGE_TESTS AND trips)
    add_executable(trips_test ${trips})
    target_link_libraries(trips_test PRIVATE kedge_cli GTest::gtest_main GTest::gtest)
    target_compile_definitions(trips_test PRIVATE KEDGE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" KEDGE_BINARY="$<TARGET_FILE:kedge>")
    add_dependencies(trips_test kedge)
    gtest_discover_tests(trips_test DISCOVERY_MODE PRE_TEST TEST_PREFIX trips. PROPERTIES TIMEOUT 600)
  endif()
endfunction()
