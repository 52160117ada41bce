#pragma once
/// \file
/// Models of other families at their published sizes, whose checkpoints load() reads. In
/// samba::presets, like the sizes of the Samba family. See docs/presets.md.
#include <samba/layers/rg_lru.hpp>
#include <samba/model/presets.hpp>

namespace samba::inline SAMBA_TARGET::presets {

namespace detail {
template <int n, int D, int F, class A>
using Transformer = Repeat<n, HybridStack<DModel<D>, A, SwiGLU<D, F>>>;

inline constexpr ModelOptions tied_49152{.vocab_size = 49152, .tie_embeddings = true};
inline constexpr ModelOptions tied_50280{.vocab_size = 50280, .tie_embeddings = true};
inline constexpr ModelOptions untied_32064{.vocab_size = 32064};
inline constexpr ModelOptions untied_128256{.vocab_size = 128256};

inline constexpr AttentionOptions smollm2_135m{.n_heads = 9, .n_kv_heads = 3, .rope_theta = 100000};
inline constexpr AttentionOptions smollm2_360m{
    .n_heads = 15, .n_kv_heads = 5, .rope_theta = 100000};
inline constexpr AttentionOptions smollm2_1_7b{.n_heads = 32, .rope_theta = 130000};
inline constexpr AttentionOptions heads_32{.n_heads = 32};
inline constexpr AttentionOptions heads_40{.n_heads = 40};
inline constexpr AttentionOptions heads_32_8{.n_heads = 32, .n_kv_heads = 8};
inline constexpr AttentionOptions llama3{.n_heads = 32, .n_kv_heads = 8, .rope_theta = 500000};
inline constexpr AttentionOptions llama31{
    .n_heads = 32, .n_kv_heads = 8, .rope_theta = 500000, .rope_original_positions = 8192};
inline constexpr AttentionOptions llama32_1b{.n_heads = 32,
                                             .n_kv_heads = 8,
                                             .rope_theta = 500000,
                                             .rope_original_positions = 8192,
                                             .rope_factor = 32};
inline constexpr AttentionOptions llama32_3b{.n_heads = 24,
                                             .n_kv_heads = 8,
                                             .rope_theta = 500000,
                                             .rope_original_positions = 8192,
                                             .rope_factor = 32};
inline constexpr ModelOptions tied_128256{.vocab_size = 128256, .tie_embeddings = true};
using SmolLM2Attention135M = Attention<smollm2_135m>;
using SmolLM2Attention360M = Attention<smollm2_360m>;
using SmolLM2Attention1_7B = Attention<smollm2_1_7b>;
using Full32 = Attention<heads_32>;
using Full40 = Attention<heads_40>;
using Llama3Attention = Attention<llama3>;
using Llama31Attention = Attention<llama31>;
using Llama32Attention1B = Attention<llama32_1b>;
using Llama32Attention3B = Attention<llama32_3b>;
using Window4096 = SWA<4096, heads_32_8>;
using Window2047 = SWA<2047, heads_32>;

/// Norms that multiply by 1 + weight, scaled embeddings.
using PlusOne = Norm<NormOptions{.plus_one = true}>;
constexpr ModelOptions gemma_options(int vocab_size) {
  return {.vocab_size = vocab_size,
          .tie_embeddings = true,
          .norm_eps = 1e-6f,
          .embedding_scale = EmbeddingScale::sqrt_d_model,
          .final_norm = {.plus_one = true}};
}
inline constexpr ModelOptions gemma = gemma_options(256000), gemma3 = gemma_options(262144);
inline constexpr AttentionOptions heads_8_1_of_256{.n_heads = 8, .n_kv_heads = 1, .head_dim = 256};
inline constexpr AttentionOptions heads_16_of_256{.n_heads = 16, .head_dim = 256};
inline constexpr AttentionOptions gemma3_local{.n_heads = 4,
                                               .n_kv_heads = 1,
                                               .head_dim = 256,
                                               .qk_norm = QkNorm::head,
                                               .qk_norm_plus_one = true};
inline constexpr AttentionOptions gemma3_global{.n_heads = 4,
                                                .n_kv_heads = 1,
                                                .head_dim = 256,
                                                .rope_theta = 1000000,
                                                .qk_norm = QkNorm::head,
                                                .qk_norm_plus_one = true};
using Full8_1 = Attention<heads_8_1_of_256>;
using Full16 = Attention<heads_16_of_256>;
using Gemma3Local = SWA<512, gemma3_local>;
using Gemma3Global = Attention<gemma3_global>;
template <int n, int D, int F, class A>
using GemmaBlocks = Repeat<n, HybridStack<DModel<D>, Norms<PlusOne>, A, GeGLU<D, F>>>;
template <int n, int D, int F, class A>
using Gemma3Blocks = Repeat<n, HybridStack<DModel<D>, Norms<PlusOne, PlusOne>, A, GeGLU<D, F>>>;
/// Five blocks with a window, one without.
template <int n, int D, int F>
using Gemma3Periods =
    Repeat<n, HybridStack<Gemma3Blocks<5, D, F, Gemma3Local>, Gemma3Blocks<1, D, F, Gemma3Global>>>;

inline constexpr ModelOptions recurrent_gemma{.vocab_size = 256000,
                                              .tie_embeddings = true,
                                              .norm_eps = 1e-6f,
                                              .embedding_scale = EmbeddingScale::sqrt_d_model_bf16,
                                              .final_norm = {.plus_one = true},
                                              .logit_cap = 30};
inline constexpr AttentionOptions recurrent_gemma_heads{
    .n_heads = 10, .n_kv_heads = 1, .head_dim = 256, .rotary_fraction = 0.5f, .proj_bias = true};
inline constexpr RgLruOptions lru_10_heads{.n_heads = 10};
inline constexpr MlpOptions with_bias{.bias = true};
using RecurrentGemmaWindow = SWA<2048, recurrent_gemma_heads>;
using Lru2560 = RgLru<2560, lru_10_heads>;
template <class Mixer>
using RecurrentGemmaBlock = HybridStack<DModel<2560>, Norms<PlusOne>, Mixer,
                                        GeGLU<2560, 7680, MlpGate::gelu_tanh, with_bias>>;
}  // namespace detail

namespace sizes {

/// SmolLM2 (HuggingFaceTB).
struct SmolLM2_135M {
  using model = LanguageModel<detail::Transformer<30, 576, 1536, detail::SmolLM2Attention135M>,
                              detail::tied_49152>;
};
struct SmolLM2_360M {
  using model = LanguageModel<detail::Transformer<32, 960, 2560, detail::SmolLM2Attention360M>,
                              detail::tied_49152>;
};
struct SmolLM2_1_7B {
  using model = LanguageModel<detail::Transformer<24, 2048, 8192, detail::SmolLM2Attention1_7B>,
                              detail::tied_49152>;
};

/// Llama 2 (arXiv 2307.09288), Llama 3, and Llama 3.1 and 3.2 with scaled rotary frequencies (arXiv
/// 2407.21783).
struct Llama2_7B {
  using model =
      LanguageModel<detail::Transformer<32, 4096, 11008, detail::Full32>, detail::untied_32000>;
};
struct Llama2_13B {
  using model =
      LanguageModel<detail::Transformer<40, 5120, 13824, detail::Full40>, detail::untied_32000>;
};
struct Llama3_8B {
  using model = LanguageModel<detail::Transformer<32, 4096, 14336, detail::Llama3Attention>,
                              detail::untied_128256>;
};

struct Llama3_1_8B {
  using model = LanguageModel<detail::Transformer<32, 4096, 14336, detail::Llama31Attention>,
                              detail::untied_128256>;
};
struct Llama3_2_1B {
  using model = LanguageModel<detail::Transformer<16, 2048, 8192, detail::Llama32Attention1B>,
                              detail::tied_128256>;
};
struct Llama3_2_3B {
  using model = LanguageModel<detail::Transformer<28, 3072, 8192, detail::Llama32Attention3B>,
                              detail::tied_128256>;
};

/// Mistral 7B v0.1 (arXiv 2310.06825).
struct Mistral_7B {
  using model =
      LanguageModel<detail::Transformer<32, 4096, 14336, detail::Window4096>, detail::untied_32000>;
};

/// Phi-3-mini-4k (arXiv 2404.14219); also TFM++ in the Samba paper.
struct Phi3Mini_4K {
  using model =
      LanguageModel<detail::Transformer<32, 3072, 8192, detail::Window2047>, detail::untied_32064>;
};

/// Gemma (arXiv 2403.08295).
struct Gemma_2B {
  using model = LanguageModel<detail::GemmaBlocks<18, 2048, 16384, detail::Full8_1>, detail::gemma>;
};
struct Gemma_7B {
  using model = LanguageModel<detail::GemmaBlocks<28, 3072, 24576, detail::Full16>, detail::gemma>;
};

/// Gemma 3 (arXiv 2503.19786), the sizes without vision.
struct Gemma3_270M {
  using model = LanguageModel<detail::Gemma3Periods<3, 640, 2048>, detail::gemma3>;
};
struct Gemma3_1B {
  using model = LanguageModel<HybridStack<detail::Gemma3Periods<4, 1152, 6912>,
                                          detail::Gemma3Blocks<2, 1152, 6912, detail::Gemma3Local>>,
                              detail::gemma3>;
};

/// RecurrentGemma 2B (arXiv 2404.07839): two blocks with RG-LRU, one with a window.
struct RecurrentGemma_2B {
  using model = LanguageModel<
      HybridStack<Repeat<8, HybridStack<Repeat<2, detail::RecurrentGemmaBlock<detail::Lru2560>>,
                                        detail::RecurrentGemmaBlock<detail::RecurrentGemmaWindow>>>,
                  Repeat<2, detail::RecurrentGemmaBlock<detail::Lru2560>>>,
      detail::recurrent_gemma>;
};

/// Mamba as published by its authors, trained on the Pile (arXiv 2312.00752); the vocabulary is
/// padded.
struct PileMamba_130M {
  using model = LanguageModel<Repeat<24, Mamba<768>>, detail::tied_50280>;
};
struct PileMamba_370M {
  using model = LanguageModel<Repeat<48, Mamba<1024>>, detail::tied_50280>;
};
struct PileMamba_790M {
  using model = LanguageModel<Repeat<48, Mamba<1536>>, detail::tied_50280>;
};
struct PileMamba_1_4B {
  using model = LanguageModel<Repeat<48, Mamba<2048>>, detail::tied_50280>;
};
struct PileMamba_2_8B {
  using model = LanguageModel<Repeat<64, Mamba<2560>>, detail::tied_50280>;
};

}  // namespace sizes

using SmolLM2_135M = detail::Preset<sizes::SmolLM2_135M>;
using SmolLM2_360M = detail::Preset<sizes::SmolLM2_360M>;
using SmolLM2_1_7B = detail::Preset<sizes::SmolLM2_1_7B>;
using Llama2_7B = detail::Preset<sizes::Llama2_7B>;
using Llama2_13B = detail::Preset<sizes::Llama2_13B>;
using Llama3_8B = detail::Preset<sizes::Llama3_8B>;
using Llama3_1_8B = detail::Preset<sizes::Llama3_1_8B>;
using Llama3_2_1B = detail::Preset<sizes::Llama3_2_1B>;
using Llama3_2_3B = detail::Preset<sizes::Llama3_2_3B>;
using Mistral_7B = detail::Preset<sizes::Mistral_7B>;
using Phi3Mini_4K = detail::Preset<sizes::Phi3Mini_4K>;
using Gemma_2B = detail::Preset<sizes::Gemma_2B>;
using Gemma_7B = detail::Preset<sizes::Gemma_7B>;
using Gemma3_270M = detail::Preset<sizes::Gemma3_270M>;
using Gemma3_1B = detail::Preset<sizes::Gemma3_1B>;
using RecurrentGemma_2B = detail::Preset<sizes::RecurrentGemma_2B>;
using PileMamba_130M = detail::Preset<sizes::PileMamba_130M>;
using PileMamba_370M = detail::Preset<sizes::PileMamba_370M>;
using PileMamba_790M = detail::Preset<sizes::PileMamba_790M>;
using PileMamba_1_4B = detail::Preset<sizes::PileMamba_1_4B>;
using PileMamba_2_8B = detail::Preset<sizes::PileMamba_2_8B>;

}  // namespace samba::inline SAMBA_TARGET::presets
