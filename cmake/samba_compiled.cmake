# samba::compiled: the kernels compiled once per instruction set, of which the library takes the best that the
# processor has, for programs that are not compiled for one processor. Built only where something links it.
# Needs xsimd here, but not in the programs.
find_package(xsimd QUIET)
set(SAMBA_XSIMD_INCLUDE "")
if(TARGET xsimd)  # for its headers only: as a library, some packages ask for more than they install
  get_target_property(SAMBA_XSIMD_INCLUDE xsimd INTERFACE_INCLUDE_DIRECTORIES)
endif()

set(samba_kernels ${PROJECT_SOURCE_DIR}/include/samba/kernels/compiled)
add_library(samba_compiled STATIC EXCLUDE_FROM_ALL ${samba_kernels}/choose.cpp)
add_library(samba::compiled ALIAS samba_compiled)
set_target_properties(samba_compiled PROPERTIES EXPORT_NAME compiled POSITION_INDEPENDENT_CODE ON)
target_compile_definitions(samba_compiled PUBLIC SAMBA_COMPILED)
target_link_libraries(samba_compiled PUBLIC samba)
# clang's -fsanitize=undefined takes calls of functions from another namespace for calls with wrong types: of that
# namespace are their arguments too, which are alike in all (entries.hpp).
target_compile_options(samba_compiled PRIVATE $<$<CXX_COMPILER_ID:Clang,AppleClang>:-fno-sanitize=function>)

# samba_kernels_for(set flags...): the kernels for an instruction set. Always optimised: an inline function of the
# standard library that is left as a function might be taken for the whole program.
function(samba_kernels_for set)
  add_library(samba_compiled_${set} OBJECT EXCLUDE_FROM_ALL ${samba_kernels}/kernels.cpp)
  set_target_properties(samba_compiled_${set} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(samba_compiled_${set} PRIVATE samba)
  target_include_directories(samba_compiled_${set} SYSTEM PRIVATE ${SAMBA_XSIMD_INCLUDE})
  target_compile_options(samba_compiled_${set} PRIVATE ${ARGN} -O3)
  target_sources(samba_compiled PRIVATE $<TARGET_OBJECTS:samba_compiled_${set}>)
endfunction()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx512 -march=x86-64 -mfma -mavx512f -mavx512cd -mavx512bw -mavx512dq -mavx512vl)
  samba_kernels_for(sse2 -march=x86-64)
  samba_kernels_for(avx2 -march=x86-64 -mavx2 -mfma)
  samba_kernels_for(avx512 ${avx512})
  samba_kernels_for(avx512_vnni ${avx512} -mavx512vnni)
  samba_kernels_for(avx512_bf16 ${avx512} -mavx512vnni -mavx512bf16)
else()
  samba_kernels_for(neon)
endif()
