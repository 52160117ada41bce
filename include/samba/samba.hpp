#pragma once
/// \file
/// All of samba: layers, composition, presets, checkpoints, sessions, sampling. Separate includes:
/// io/gguf_checkpoint.hpp, model/published.hpp, io/bpe.hpp, io/config.hpp, io/dispatch.hpp and
/// io/load_tokenizer.hpp (these three need nlohmann-json), io/sentencepiece.hpp (needs
/// libsentencepiece), interop/eigen.hpp (needs Eigen), train/.
#include <samba/core/build_info.hpp>
#include <samba/io/checkpoint.hpp>
#include <samba/io/packed.hpp>
#include <samba/io/tokenizer.hpp>
#include <samba/layers/cross_attention.hpp>
#include <samba/layers/rg_lru.hpp>
#include <samba/model/describe.hpp>
#include <samba/model/initialize.hpp>
#include <samba/model/presets.hpp>
#include <samba/runtime/sampler.hpp>
#include <samba/runtime/score.hpp>
#include <samba/runtime/session.hpp>
