# Settings for those who work on samba itself; a project that uses it never sees them.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()

find_program(SAMBA_CCACHE ccache)
mark_as_advanced(SAMBA_CCACHE)
if(SAMBA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SAMBA_CCACHE})
endif()
