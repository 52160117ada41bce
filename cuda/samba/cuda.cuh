#pragma once
/// \file
/// What runs operations on a CUDA device, for sources that nvcc compiles. Operations without a launcher
/// here stop the compilation with a message.
#include <samba/cuda/causal_conv1d.cuh>
#include <samba/cuda/elementwise.cuh>
#include <samba/cuda/matmul.cuh>
#include <samba/cuda/rmsnorm.cuh>
#include <samba/cuda/selective_scan.cuh>
