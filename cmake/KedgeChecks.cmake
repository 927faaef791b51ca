# Tests of the tree itself: floors, goldens, objects, the installed package.
if(NOT KEDGE_TESTS)
  return()
endif()
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(tools ${CMAKE_SOURCE_DIR}/tools)
add_test(NAME tree.floors COMMAND ${Python3_EXECUTABLE} ${tools}/check_floors.py ${CMAKE_SOURCE_DIR})
add_test(NAME tree.goldens COMMAND ${Python3_EXECUTABLE} ${tools}/check_goldens.py ${CMAKE_SOURCE_DIR})
add_test(NAME tree.weak_symbols COMMAND ${tools}/check_weak_symbols.sh ${CMAKE_BINARY_DIR})
string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
add_test(NAME tree.install COMMAND ${tools}/check_install.sh ${CMAKE_BINARY_DIR} ${CMAKE_CXX_COMPILER}
  "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${type}}")
set_tests_properties(tree.floors tree.goldens tree.weak_symbols tree.install PROPERTIES TIMEOUT 300)
