#pragma once
/// \file
/// The launchers of operations on CUDA devices, for sources compiled by nvcc. Using an operation
/// without a launcher here stops the compilation with a message.
#include <samba/cuda/causal_conv1d.cuh>
#include <samba/cuda/elementwise.cuh>
#include <samba/cuda/matmul.cuh>
#include <samba/cuda/rmsnorm.cuh>
#include <samba/cuda/selective_scan.cuh>
