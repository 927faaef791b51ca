# `cmake --install`: the binary, its shell completions, the public headers, and the library as kedge::kedge.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# The folders' static libraries, together, without the command line.
get_property(kedge_libraries GLOBAL PROPERTY KEDGE_LIBRARIES)
list(REMOVE_ITEM kedge_libraries kedge_cli)
add_library(kedge_library INTERFACE)
add_library(kedge::kedge ALIAS kedge_library)
set_target_properties(kedge_library PROPERTIES EXPORT_NAME kedge)
target_link_libraries(kedge_library INTERFACE ${kedge_libraries})
target_include_directories(kedge_library INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

set(kedge_package ${CMAKE_INSTALL_LIBDIR}/cmake/kedge)
install(TARGETS kedge_library kedge_flags ${kedge_libraries} EXPORT kedgeTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/kedge)
install(EXPORT kedgeTargets NAMESPACE kedge:: DESTINATION ${kedge_package})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/kedge DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/kedgeConfig.cmake.in ${CMAKE_BINARY_DIR}/kedgeConfig.cmake
  INSTALL_DESTINATION ${kedge_package})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/kedgeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/kedgeConfig.cmake ${CMAKE_BINARY_DIR}/kedgeConfigVersion.cmake
  DESTINATION ${kedge_package})

if(TARGET kedge-torch)
  # libtorch stays where it is.
  set_target_properties(kedge-torch PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS kedge-torch RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
if(TARGET kedge)
  install(TARGETS kedge RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  # The binary prints its own completions, so that they cannot differ from its flags.
  foreach(row bash:bash-completion/completions/kedge zsh:zsh/site-functions/_kedge fish:fish/vendor_completions.d/kedge.fish)
    string(REPLACE ":" ";" row ${row})
    list(GET row 0 shell)
    list(GET row 1 file)
    install(CODE "
      set(file \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/${file}\")
      get_filename_component(folder \"\${file}\" DIRECTORY)
      file(MAKE_DIRECTORY \"\${folder}\")
      execute_process(COMMAND $<TARGET_FILE:kedge> completion ${shell} OUTPUT_FILE \"\${file}\" COMMAND_ERROR_IS_FATAL ANY)
      message(STATUS \"Installing: \${file}\")")
  endforeach()
endif()
