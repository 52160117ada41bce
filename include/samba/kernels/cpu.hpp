#pragma once
/// \file
/// The launchers of all operations on the CPU. Sessions and training include it.
#include <samba/kernels/cpu/attention.hpp>
#include <samba/kernels/cpu/causal_conv1d.hpp>
#include <samba/kernels/cpu/cross_entropy.hpp>
#include <samba/kernels/cpu/elementwise.hpp>
#include <samba/kernels/cpu/embedding.hpp>
#include <samba/kernels/cpu/layernorm.hpp>
#include <samba/kernels/cpu/matmul.hpp>
#include <samba/kernels/cpu/rg_lru.hpp>
#include <samba/kernels/cpu/rmsnorm.hpp>
#include <samba/kernels/cpu/rope.hpp>
#include <samba/kernels/cpu/selective_scan.hpp>
