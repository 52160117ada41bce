include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/samba)
install(DIRECTORY include/samba DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS samba samba_native EXPORT sambaTargets)
if(SAMBA_INSTALL_COMPILED)
  set_target_properties(samba_compiled PROPERTIES EXCLUDE_FROM_ALL OFF)
  install(TARGETS samba_compiled EXPORT sambaTargets)
endif()
install(EXPORT sambaTargets NAMESPACE samba:: DESTINATION ${package_folder})
configure_package_config_file(cmake/sambaConfig.cmake.in ${PROJECT_BINARY_DIR}/sambaConfig.cmake
  INSTALL_DESTINATION ${package_folder})
set(independent ARCH_INDEPENDENT)
if(SAMBA_INSTALL_COMPILED)
  set(independent "")
endif()
# Before 1.0 a minor version may change names.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/sambaConfigVersion.cmake
  COMPATIBILITY SameMinorVersion ${independent})
install(FILES
  ${PROJECT_BINARY_DIR}/sambaConfig.cmake
  ${PROJECT_BINARY_DIR}/sambaConfigVersion.cmake
  ${PROJECT_SOURCE_DIR}/cmake/samba_sentencepiece.cmake
  DESTINATION ${package_folder})
