# samba::cuda: operations on CUDA devices, for sources that nvcc compiles (#include <samba/cuda.cuh>). Without the
# CUDA toolkit there is no such target.
find_package(CUDAToolkit 12.4 QUIET)
if(CUDAToolkit_FOUND)
  add_library(samba_cuda INTERFACE)
  add_library(samba::cuda ALIAS samba_cuda)
  target_include_directories(samba_cuda INTERFACE ${PROJECT_SOURCE_DIR}/cuda)
  target_link_libraries(samba_cuda INTERFACE samba CUDA::cudart CUDA::cublasLt)
endif()
