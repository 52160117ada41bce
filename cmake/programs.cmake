# What the project's own programs (tests, examples, benchmarks) are built with. They link `samba_program`.
option(SAMBA_NATIVE "Build the tests, examples and benchmarks for this machine's processor" OFF)
option(SAMBA_WERROR "Treat warnings in the tests, examples and benchmarks as errors" OFF)

include(CheckCXXSourceCompiles)
block()
  set(CMAKE_REQUIRED_FLAGS -std=c++20)
  set(CMAKE_REQUIRED_INCLUDES ${SAMBA_XSIMD_INCLUDE})
  set(CMAKE_REQUIRED_QUIET ON)
  check_cxx_source_compiles("
    #include <xsimd/xsimd.hpp>
    static_assert(XSIMD_VERSION_MAJOR * 100 + XSIMD_VERSION_MINOR >= 801);
    int main() {}" SAMBA_HAS_XSIMD)
endblock()
if(NOT SAMBA_HAS_XSIMD)
  message(FATAL_ERROR "samba needs the headers of xsimd, version 8.1 or newer, and the compiler does not find "
    "them. Debian 12, Ubuntu 24.04 and newer: apt-get install libxsimd-dev. Elsewhere: "
    "-Dxsimd_DIR=<folder of xsimdConfig.cmake>.")
endif()

add_library(samba_program INTERFACE)
target_link_libraries(samba_program INTERFACE samba::samba)
target_include_directories(samba_program SYSTEM INTERFACE ${SAMBA_XSIMD_INCLUDE})
if(SAMBA_NATIVE)
  target_link_libraries(samba_program INTERFACE samba::native)
endif()
# g++ 12 takes some joins of strings for overlapping copies (its bug 105651) and says so under -Wrestrict.
target_compile_options(samba_program INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  $<$<BOOL:${SAMBA_WERROR}>:-Werror>)

# Checks of the sources and of the benchmarks are scripts. Found here, it is known in every folder.
find_package(Python3 3.9 REQUIRED COMPONENTS Interpreter)

# Stops with the package's name when an optional build was asked for and its library is not there.
macro(samba_find_package name debian_package)
  find_package(${name} QUIET ${ARGN})
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "samba's tests, examples and benchmarks need ${name} (Debian and Ubuntu: apt-get "
      "install ${debian_package}; scripts/install_dependencies installs all). Without it: "
      "-DSAMBA_BUILD_TESTS=OFF -DSAMBA_BUILD_EXAMPLES=OFF -DSAMBA_BUILD_BENCHMARKS=OFF.")
  endif()
endmacro()
