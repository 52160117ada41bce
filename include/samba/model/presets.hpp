#pragma once
/// \file
/// Published sizes of the family (arXiv 2406.07522): the 421M, 1.3B and 438M models from its public
/// code, the others from the paper's tables. They have a namespace of their own, samba::presets, so
/// that a program can use these names for its own models. See docs/presets.md.
#include <samba/layers/attention.hpp>
#include <samba/layers/mamba.hpp>
#include <samba/layers/swiglu.hpp>
#include <samba/model/language_model.hpp>

namespace samba::inline SAMBA_TARGET::presets {

namespace detail {
inline constexpr ModelOptions tied_32000{.vocab_size = 32000, .tie_embeddings = true};
inline constexpr ModelOptions tied_50304{.vocab_size = 50304, .tie_embeddings = true};
inline constexpr ModelOptions tied_32064{.vocab_size = 32064, .tie_embeddings = true};
inline constexpr ModelOptions untied_32000{.vocab_size = 32000};

/// Attention of the paper's 1.7B models: 32 query heads of 64 and 4 key/value heads.
inline constexpr AttentionOptions heads_32_4{.n_heads = 32, .n_kv_heads = 4};
inline constexpr AttentionOptions heads_11_1{.n_heads = 11, .n_kv_heads = 1};
inline constexpr AttentionOptions without_rope{.rope = false};
using Window = SWA<2048>;
using Window32_4 = SWA<2048, heads_32_4>;
using Window11_1 = SWA<2048, heads_11_1>;
using WindowWithoutRope = SWA<2048, without_rope>;
using Full32_4 = Attention<heads_32_4>;

// Blocks of width D with MLPs of width F. (They take attention as a type: nvcc accepts no options
// as a template argument here.)
template <int D, int F, class A = Window>
using SambaBlock = HybridStack<Mamba<D>, SwiGLU<D, F>, A, SwiGLU<D, F>>;
template <int D, int F, class A = Window>
using MambaSwaMlpBlock = HybridStack<Mamba<D>, A, SwiGLU<D, F>>;
template <class Mixer, int D, int F>
using MixerMlpBlock = HybridStack<DModel<D>, Mixer, SwiGLU<D, F>>;

/// The model that a Size describes, instantiated only if used. (Its options are not in the base of
/// this template, because nvcc rejects that.)
template <class Size>
struct Preset : Size::model {};
}  // namespace detail

namespace sizes {

/// Samba-421M in the public code.
struct Samba421M {
  using model = LanguageModel<Repeat<6, detail::SambaBlock<1536, 4096>>, detail::tied_32000>;
};
/// Samba-1.3B in the public code.
struct Samba1_3B {
  using model = LanguageModel<Repeat<9, detail::SambaBlock<2304, 6144>>, detail::tied_32000>;
};
/// Samba 1.7B in the paper. Its table prints an MLP width of 8196, taken to be a misprint of 8192.
struct Samba1_7B {
  using model = LanguageModel<Repeat<12, detail::SambaBlock<2048, 8192, detail::Window32_4>>,
                              detail::tied_50304>;
};
/// Samba 3.8B in the paper: 11 query heads of width 256 and one key/value head.
struct Samba3_8B {
  using model = LanguageModel<Repeat<16, detail::SambaBlock<2816, 9984, detail::Window11_1>>,
                              detail::tied_32064>;
};

/// Mamba-SWA-MLP in the public code.
struct MambaSwaMlp400M {
  using model = LanguageModel<Repeat<8, detail::MambaSwaMlpBlock<1536, 4096>>, detail::tied_32000>;
};
struct MambaSwaMlp1_3B {
  using model = LanguageModel<Repeat<12, detail::MambaSwaMlpBlock<2304, 6144>>, detail::tied_32000>;
};

/// Samba-421M without rotary embedding.
struct Samba421M_NoPE {
  using model = LanguageModel<Repeat<6, detail::SambaBlock<1536, 4096, detail::WindowWithoutRope>>,
                              detail::tied_32000>;
};
/// Samba-421M with a SwiGLU of width 2 d_model in place of Mamba.
struct Mlp2SwaMlp417M {
  using model = LanguageModel<Repeat<6, HybridStack<SwiGLU<1536, 3072>, SwiGLU<1536, 4096>,
                                                    detail::Window, SwiGLU<1536, 4096>>>,
                              detail::tied_32000>;
};

/// Llama-438M in the public code, with full attention and with the window; the head is not tied.
struct Llama438M {
  using model = LanguageModel<Repeat<12, detail::MixerMlpBlock<Attention<>, 1536, 4096>>,
                              detail::untied_32000>;
};
struct Llama438M_SWA {
  using model = LanguageModel<Repeat<12, detail::MixerMlpBlock<detail::Window, 1536, 4096>>,
                              detail::untied_32000>;
};

/// Mamba in the public code.
struct Mamba370M {
  using model = LanguageModel<Repeat<48, Mamba<1024>>, detail::tied_32000>;
};
struct Mamba1_3B {
  using model = LanguageModel<Repeat<48, Mamba<2048>>, detail::tied_32000>;
};

/// The paper's comparison at the 1.7B scale: width 2048, 32/4 heads, MLP width 8192, vocabulary
/// 50304.
struct PaperMambaSwaMlp_1700M {
  using model = LanguageModel<Repeat<18, detail::MambaSwaMlpBlock<2048, 8192, detail::Window32_4>>,
                              detail::tied_50304>;
};
struct PaperMambaMlp_1700M {
  using model =
      LanguageModel<Repeat<24, detail::MixerMlpBlock<Mamba<2048>, 2048, 8192>>, detail::tied_50304>;
};
struct PaperLlama3_1700M {
  using model = LanguageModel<Repeat<24, detail::MixerMlpBlock<detail::Full32_4, 2048, 8192>>,
                              detail::tied_50304>;
};
struct PaperMistral_1700M {
  using model = LanguageModel<Repeat<24, detail::MixerMlpBlock<detail::Window32_4, 2048, 8192>>,
                              detail::tied_50304>;
};
struct PaperMamba_1700M {
  using model = LanguageModel<Repeat<64, Mamba<2048>>, detail::tied_50304>;
};

}  // namespace sizes

using Samba421M = detail::Preset<sizes::Samba421M>;
using Samba1_3B = detail::Preset<sizes::Samba1_3B>;
using Samba1_7B = detail::Preset<sizes::Samba1_7B>;
using Samba3_8B = detail::Preset<sizes::Samba3_8B>;
using MambaSwaMlp400M = detail::Preset<sizes::MambaSwaMlp400M>;
using MambaSwaMlp1_3B = detail::Preset<sizes::MambaSwaMlp1_3B>;
using Samba421M_NoPE = detail::Preset<sizes::Samba421M_NoPE>;
using Mlp2SwaMlp417M = detail::Preset<sizes::Mlp2SwaMlp417M>;
using Llama438M = detail::Preset<sizes::Llama438M>;
using Llama438M_SWA = detail::Preset<sizes::Llama438M_SWA>;
using Mamba370M = detail::Preset<sizes::Mamba370M>;
using Mamba1_3B = detail::Preset<sizes::Mamba1_3B>;
using PaperMambaSwaMlp_1700M = detail::Preset<sizes::PaperMambaSwaMlp_1700M>;
using PaperMambaMlp_1700M = detail::Preset<sizes::PaperMambaMlp_1700M>;
using PaperLlama3_1700M = detail::Preset<sizes::PaperLlama3_1700M>;
using PaperMistral_1700M = detail::Preset<sizes::PaperMistral_1700M>;
using PaperMamba_1700M = detail::Preset<sizes::PaperMamba_1700M>;

}  // namespace samba::inline SAMBA_TARGET::presets
