#pragma once
/// \file
/// Published sizes of the family (arXiv 2406.07522; its public code for the 421M, 1.3B, 438M
/// and 1.3B models, the paper's tables for the others). In a namespace of their own,
/// samba::presets, so that a program can give its models these names. See docs/presets.md.
#include <samba/layers/attention.hpp>
#include <samba/layers/mamba.hpp>
#include <samba/layers/swiglu.hpp>
#include <samba/model/language_model.hpp>

namespace samba::inline SAMBA_TARGET::presets {

namespace detail {
inline constexpr ModelOptions tied_32000{.vocab_size = 32000, .tie_embeddings = true};
inline constexpr ModelOptions tied_50304{.vocab_size = 50304, .tie_embeddings = true};

/// Mamba, MLP, attention, MLP, as in Samba, of width D, MLP width F and window 2048.
template <int D, int F, AttentionOptions A = AttentionOptions{}>
using SambaBlock = HybridStack<Mamba<D>, SwiGLU<D, F>, SWA<2048, A>, SwiGLU<D, F>>;
template <int D, int F, AttentionOptions A = AttentionOptions{}>
using MambaSwaMlpBlock = HybridStack<Mamba<D>, SWA<2048, A>, SwiGLU<D, F>>;
template <class Mixer, int D, int F>
using MixerMlpBlock = HybridStack<DModel<D>, Mixer, SwiGLU<D, F>>;

/// Attention of the paper's 1.7B models: 32 query heads of 64 and 4 key/value heads.
inline constexpr AttentionOptions heads_32_4{.n_heads = 32, .n_kv_heads = 4};

/// A LanguageModel, made only where it is used: a base that depends on nothing would be made for all.
template <int, class Stack, ModelOptions O>
struct Preset : LanguageModel<Stack, O> {};
}  // namespace detail

/// Samba-421M of the public code.
template <int k>
struct Samba421M_
    : detail::Preset<k, Repeat<6, detail::SambaBlock<1536, 4096>>, detail::tied_32000> {};
/// Samba-1.3B of the public code.
template <int k>
struct Samba1_3B_
    : detail::Preset<k, Repeat<9, detail::SambaBlock<2304, 6144>>, detail::tied_32000> {};
/// Samba 1.7B of the paper; its table prints an MLP width of 8196, which 8192 is taken to mean.
template <int k>
struct Samba1_7B_
    : detail::Preset<k, Repeat<12, detail::SambaBlock<2048, 8192, detail::heads_32_4>>,
                     detail::tied_50304> {};
/// Samba 3.8B of the paper: 11 query heads of 256 on one key/value head.
template <int k>
struct Samba3_8B_
    : detail::Preset<k,
                     Repeat<16, detail::SambaBlock<
                                    2816, 9984, AttentionOptions{.n_heads = 11, .n_kv_heads = 1}>>,
                     ModelOptions{.vocab_size = 32064, .tie_embeddings = true}> {};

/// Mamba-SWA-MLP of the public code.
template <int k>
struct MambaSwaMlp400M_
    : detail::Preset<k, Repeat<8, detail::MambaSwaMlpBlock<1536, 4096>>, detail::tied_32000> {};
template <int k>
struct MambaSwaMlp1_3B_
    : detail::Preset<k, Repeat<12, detail::MambaSwaMlpBlock<2304, 6144>>, detail::tied_32000> {};

/// Samba-421M without rotary embedding.
template <int k>
struct Samba421M_NoPE_
    : detail::Preset<k, Repeat<6, detail::SambaBlock<1536, 4096, AttentionOptions{.rope = false}>>,
                     detail::tied_32000> {};
/// Samba-421M with a SwiGLU of width 2 d_model in Mamba's place.
template <int k>
struct Mlp2SwaMlp417M_
    : detail::Preset<k,
                     Repeat<6, HybridStack<SwiGLU<1536, 3072>, SwiGLU<1536, 4096>, SWA<2048>,
                                           SwiGLU<1536, 4096>>>,
                     detail::tied_32000> {};

/// Llama-438M of the public code, with full attention and with the window; head not tied.
template <int k>
struct Llama438M_ : detail::Preset<k, Repeat<12, detail::MixerMlpBlock<Attention<>, 1536, 4096>>,
                                   ModelOptions{.vocab_size = 32000}> {};
template <int k>
struct Llama438M_SWA_ : detail::Preset<k, Repeat<12, detail::MixerMlpBlock<SWA<2048>, 1536, 4096>>,
                                       ModelOptions{.vocab_size = 32000}> {};

/// Mamba of the public code.
template <int k>
struct Mamba370M_ : detail::Preset<k, Repeat<48, Mamba<1024>>, detail::tied_32000> {};
template <int k>
struct Mamba1_3B_ : detail::Preset<k, Repeat<48, Mamba<2048>>, detail::tied_32000> {};

/// The paper's comparison at the 1.7B scale: width 2048, 32/4 heads, MLP width 8192, vocabulary
/// 50304.
template <int k>
struct MambaSwaMlp1_7B_
    : detail::Preset<k, Repeat<18, detail::MambaSwaMlpBlock<2048, 8192, detail::heads_32_4>>,
                     detail::tied_50304> {};
template <int k>
struct MambaMlp1_7B_ : detail::Preset<k, Repeat<24, detail::MixerMlpBlock<Mamba<2048>, 2048, 8192>>,
                                      detail::tied_50304> {};
template <int k>
struct Llama3_1_7B_
    : detail::Preset<k,
                     Repeat<24, detail::MixerMlpBlock<Attention<detail::heads_32_4>, 2048, 8192>>,
                     detail::tied_50304> {};
template <int k>
struct Mistral1_7B_
    : detail::Preset<k,
                     Repeat<24, detail::MixerMlpBlock<SWA<2048, detail::heads_32_4>, 2048, 8192>>,
                     detail::tied_50304> {};
template <int k>
struct Mamba1_7B_ : detail::Preset<k, Repeat<64, Mamba<2048>>, detail::tied_50304> {};

// The names. (Templates only so that programs need not compile the presets that they do not use.)
using Samba421M = Samba421M_<0>;
using Samba1_3B = Samba1_3B_<0>;
using Samba1_7B = Samba1_7B_<0>;
using Samba3_8B = Samba3_8B_<0>;
using MambaSwaMlp400M = MambaSwaMlp400M_<0>;
using MambaSwaMlp1_3B = MambaSwaMlp1_3B_<0>;
using Samba421M_NoPE = Samba421M_NoPE_<0>;
using Mlp2SwaMlp417M = Mlp2SwaMlp417M_<0>;
using Llama438M = Llama438M_<0>;
using Llama438M_SWA = Llama438M_SWA_<0>;
using Mamba370M = Mamba370M_<0>;
using Mamba1_3B = Mamba1_3B_<0>;
using MambaSwaMlp1_7B = MambaSwaMlp1_7B_<0>;
using MambaMlp1_7B = MambaMlp1_7B_<0>;
using Llama3_1_7B = Llama3_1_7B_<0>;
using Mistral1_7B = Mistral1_7B_<0>;
using Mamba1_7B = Mamba1_7B_<0>;

}  // namespace samba::inline SAMBA_TARGET::presets
