#pragma once
/// \file
/// Sessions and the launchers of operations on CUDA devices, for sources compiled by nvcc. Using an operation
/// without a launcher here stops the compilation with a message.
#include <samba/cuda/attention.cuh>
#include <samba/cuda/causal_conv1d.cuh>
#include <samba/cuda/elementwise.cuh>
#include <samba/cuda/embedding.cuh>
#include <samba/cuda/layernorm.cuh>
#include <samba/cuda/matmul.cuh>
#include <samba/cuda/rg_lru.cuh>
#include <samba/cuda/rmsnorm.cuh>
#include <samba/cuda/rope.cuh>
#include <samba/cuda/selective_scan.cuh>
#include <samba/cuda/session.cuh>
