#pragma once
// The C++ types of the golden cases, a few tiny models for the laws of sessions, and what their
// tests share.
#include <samba/model/initialize.hpp>
#include <samba/samba.hpp>

#include "tests/support.hpp"

namespace samba_test {

using namespace samba;

// A machine of few processors is to test as many threads as any other.
[[maybe_unused]] inline const int threads_of_tests = most_threads() = 8;

namespace golden {

constexpr ModelOptions tied(int vocab_size) {
  return {.vocab_size = vocab_size, .tie_embeddings = true};
}
constexpr ModelOptions untied(int vocab_size) { return {.vocab_size = vocab_size}; }
/// (An alias that passes options on is more than nvcc 13.0 can compile.)
template <int D, class Mlp, class Attending>
using Block = HybridStack<Mamba<D>, Mlp, Attending, Mlp>;
inline constexpr AttentionOptions heads_4_2{.n_heads = 4, .n_kv_heads = 2};

struct SambaTiny
    : LanguageModel<Repeat<2, Block<64, SwiGLU<64, 160>, SWA<16, heads_4_2>>>, tied(256)> {
  static constexpr const char* folder = "samba-tiny";
};
struct SambaOdd
    : LanguageModel<Repeat<2, Block<40, SwiGLU<40, 100>, SWA<7, AttentionOptions{.n_heads = 5}>>>,
                    untied(97)> {
  static constexpr const char* folder = "samba-odd";
};
struct SambaBias
    : LanguageModel<
          Block<32, SwiGLU<32, 72, MlpOptions{.bias = true}>,
                SWA<9,
                    AttentionOptions{
                        .n_heads = 4, .n_kv_heads = 1, .rotary_fraction = 0.5f, .bias = true}>>,
          untied(96)> {
  static constexpr const char* folder = "samba-bias-partial-rope";
};
struct SambaNope
    : LanguageModel<Block<32, SwiGLU<32, 72>,
                          SWA<16, AttentionOptions{.n_heads = 4, .n_kv_heads = 2, .rope = false}>>,
                    tied(96)> {
  static constexpr const char* folder = "samba-nope";
};
struct SambaBf16Rope
    : LanguageModel<
          Block<32, SwiGLU<32, 72>,
                SWA<16, AttentionOptions{.n_heads = 2, .rope_table = RopeTable::bfloat16}>>,
          tied(96)> {
  static constexpr const char* folder = "samba-bf16-rope";
};
struct MambaSwaMlp
    : LanguageModel<Repeat<2, HybridStack<Mamba<48>, SWA<16, heads_4_2>, SwiGLU<48, 112>>>,
                    tied(128)> {
  static constexpr const char* folder = "mamba-swa-mlp-tiny";
};
struct MambaMlp : LanguageModel<Repeat<2, HybridStack<Mamba<48>, SwiGLU<48, 112>>>, tied(128)> {
  static constexpr const char* folder = "mamba-mlp-tiny";
};
/// Every third block attends without the window.
struct SwaMlp
    : LanguageModel<HybridStack<Repeat<2, HybridStack<SWA<16, heads_4_2>, SwiGLU<48, 112>>>,
                                Attention<heads_4_2>, SwiGLU<48, 112>>,
                    tied(128)> {
  static constexpr const char* folder = "swa-mlp-tiny";
};
struct MambaOnly : LanguageModel<Repeat<3, Mamba<48>>, tied(128)> {
  static constexpr const char* folder = "mamba-only-tiny";
};

// Models that other code publishes, under the names of their transformers checkpoints.
struct MambaTiny : LanguageModel<Repeat<3, Mamba<48>>, tied(128)> {
  static constexpr const char* folder = "mamba-tiny";
};
struct Llama2
    : LanguageModel<
          Repeat<2, HybridStack<Attention<AttentionOptions{.n_heads = 4}>, SwiGLU<48, 112>>>,
          untied(128)> {
  static constexpr const char* folder = "llama2-tiny";
};
struct Llama3
    : LanguageModel<Repeat<2, HybridStack<Attention<AttentionOptions{
                                              .n_heads = 4, .n_kv_heads = 2, .rope_theta = 500000}>,
                                          SwiGLU<64, 112>>>,
                    untied(128)> {
  static constexpr const char* folder = "llama3-tiny";
};
struct Llama31
    : LanguageModel<
          Repeat<2, HybridStack<Attention<AttentionOptions{.n_heads = 4,
                                                           .n_kv_heads = 2,
                                                           .rope_theta = 500000,
                                                           .rope_original_positions = 64}>,
                                SwiGLU<64, 112>>>,
          tied(128)> {
  static constexpr const char* folder = "llama31-tiny";
};
struct Mistral
    : LanguageModel<Repeat<2, HybridStack<SWA<16, heads_4_2>, SwiGLU<64, 112>>>, untied(128)> {
  static constexpr const char* folder = "mistral-tiny";
};
/// As Mistral, with fused projections in its files.
struct Phi3
    : LanguageModel<Repeat<2, HybridStack<SWA<16, heads_4_2>, SwiGLU<64, 112>>>, untied(128)> {
  static constexpr const char* folder = "phi3-tiny";
};

/// Scaled embeddings, norms that multiply by 1 + weight, heads not of d_model / n_heads, GeGLU.
struct Gemma
    : LanguageModel<Repeat<2, HybridStack<DModel<48>, Norms<Norm<NormOptions{.plus_one = true}>>,
                                          Attention<AttentionOptions{
                                              .n_heads = 4, .n_kv_heads = 1, .head_dim = 20}>,
                                          GeGLU<48, 112>>>,
                    ModelOptions{.vocab_size = 128,
                                 .tie_embeddings = true,
                                 .norm_eps = 1e-6f,
                                 .embedding_scale = EmbeddingScale::sqrt_d_model,
                                 .final_norm = NormOptions{.plus_one = true}}> {
  static constexpr const char* folder = "gemma-tiny";
};

using PlusOne = Norm<NormOptions{.plus_one = true}>;
constexpr ModelOptions gemma_options(float logit_cap = 0) {
  return {.vocab_size = 128,
          .tie_embeddings = true,
          .norm_eps = 1e-6f,
          .embedding_scale = EmbeddingScale::sqrt_d_model,
          .final_norm = {.plus_one = true},
          .logit_cap = logit_cap};
}
template <class A>
using SandwichBlock = HybridStack<DModel<48>, Norms<PlusOne, PlusOne>, A, GeGLU<48, 112>>;

inline constexpr AttentionOptions gemma2_heads{
    .n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .scale_dim = 24, .score_cap = 1.5f};
/// Scores and logits capped, scores scaled, norms after layers too.
struct Gemma2 : LanguageModel<Repeat<2, HybridStack<SandwichBlock<SWA<16, gemma2_heads>>,
                                                    SandwichBlock<Attention<gemma2_heads>>>>,
                              gemma_options(3)> {
  static constexpr const char* folder = "gemma2-tiny";
};
inline constexpr AttentionOptions gemma3_heads{.n_heads = 4,
                                               .n_kv_heads = 2,
                                               .head_dim = 16,
                                               .qk_norm = QkNorm::head,
                                               .qk_norm_plus_one = true};
inline constexpr AttentionOptions gemma3_global{.n_heads = 4,
                                                .n_kv_heads = 2,
                                                .head_dim = 16,
                                                .rope_theta = 1000000,
                                                .qk_norm = QkNorm::head,
                                                .qk_norm_plus_one = true};
/// Norms of queries and keys, two rotary bases, every sixth block without a window.
struct Gemma3 : LanguageModel<HybridStack<Repeat<5, SandwichBlock<SWA<16, gemma3_heads>>>,
                                          SandwichBlock<Attention<gemma3_global>>,
                                          Repeat<2, SandwichBlock<SWA<16, gemma3_heads>>>>,
                              gemma_options()> {
  static constexpr const char* folder = "gemma3-tiny";
};
inline constexpr AttentionOptions gemma3_linear{.n_heads = 4,
                                                .n_kv_heads = 2,
                                                .head_dim = 16,
                                                .rope_theta = 1000000,
                                                .rope_linear_factor = 8,
                                                .qk_norm = QkNorm::head,
                                                .qk_norm_plus_one = true};
/// Positions divided by 8 where all tokens are seen.
struct Gemma3Linear : LanguageModel<HybridStack<SandwichBlock<SWA<16, gemma3_heads>>,
                                                SandwichBlock<Attention<gemma3_linear>>>,
                                    gemma_options()> {
  static constexpr const char* folder = "gemma3-linear-tiny";
};
struct Qwen3
    : LanguageModel<
          Repeat<2,
                 HybridStack<
                     DModel<48>,
                     Attention<AttentionOptions{
                         .n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .qk_norm = QkNorm::head}>,
                     SwiGLU<48, 112>>>,
          ModelOptions{.vocab_size = 128, .tie_embeddings = true, .norm_eps = 1e-6f}> {
  static constexpr const char* folder = "qwen3-tiny";
};

inline constexpr MlpOptions with_bias{.bias = true};
template <class Mixer>
using RecurrentBlock =
    HybridStack<DModel<48>, Norms<PlusOne>, Mixer, GeGLU<48, 48, MlpGate::gelu_tanh, with_bias>>;
using TinyLru = RgLru<48, RgLruOptions{.width = 64, .n_heads = 4}>;
using TinyWindow = SWA<
    16,
    AttentionOptions{
        .n_heads = 4, .n_kv_heads = 1, .head_dim = 12, .rotary_fraction = 0.5f, .proj_bias = true}>;
struct RecurrentGemma
    : LanguageModel<HybridStack<Repeat<2, RecurrentBlock<TinyLru>>, RecurrentBlock<TinyWindow>,
                                RecurrentBlock<TinyLru>>,
                    ModelOptions{.vocab_size = 128,
                                 .tie_embeddings = true,
                                 .norm_eps = 1e-6f,
                                 .embedding_scale = EmbeddingScale::sqrt_d_model_bf16,
                                 .final_norm = NormOptions{.plus_one = true},
                                 .logit_cap = 5}> {
  static constexpr const char* folder = "recurrentgemma-tiny";
};

template <class Model>
std::string path(const std::string& file) {
  return data_path("golden/" + std::string(Model::folder) + "/" + file);
}

/// What a case stores: token ids (rows, seq_len) and logits (rows, seq_len, vocab_size).
template <class Model>
struct Expected {
  std::vector<std::int32_t> ids;
  std::vector<double> logits;
  std::size_t rows, seq_len;

  Expected() {
    const auto file = SafetensorsFile::open(path<Model>("expected.safetensors"));
    for (const auto id : read_tensor<std::int64_t>(file, "input_ids"))
      ids.push_back(static_cast<std::int32_t>(id));
    logits = read_tensor<double>(file, "logits");
    rows = static_cast<std::size_t>(file.find("input_ids")->shape[0]);
    seq_len = static_cast<std::size_t>(file.find("input_ids")->shape[1]);
  }
  std::span<const std::int32_t> ids_of(std::size_t row) const {
    return std::span(ids).subspan(row * seq_len, seq_len);
  }
  std::span<const double> logits_of(std::size_t row) const {
    return std::span(logits).subspan(row * seq_len * Model::vocab_size,
                                     seq_len * Model::vocab_size);
  }
};

}  // namespace golden

/// The demo model: examples/demo_model.
struct DemoModel
    : LanguageModel<Repeat<4, HybridStack<Mamba<256>, SwiGLU<256, 768>, SWA<512, golden::heads_4_2>,
                                          SwiGLU<256, 768>>>,
                    golden::tied(256)> {};

/// Models of few numbers for the laws that hold of every model.
namespace tiny {

using golden::heads_4_2;
using golden::tied;
using golden::untied;

struct Samba
    : LanguageModel<
          Repeat<2, HybridStack<Mamba<32>, SwiGLU<32, 48>, SWA<24, heads_4_2>, SwiGLU<32, 48>>>,
          tied(61)> {};
// The kinds of the other presets, of the same layers.
struct MambaSwaMlp
    : LanguageModel<HybridStack<Mamba<32>, SWA<24, heads_4_2>, SwiGLU<32, 48>>, tied(61)> {};
struct MlpSwaMlp
    : LanguageModel<HybridStack<SwiGLU<32, 48>, SwiGLU<32, 48>, SWA<24, heads_4_2>, SwiGLU<32, 48>>,
                    tied(61)> {};
struct MambaMlp : LanguageModel<Repeat<2, HybridStack<Mamba<32>, SwiGLU<32, 48>>>, tied(61)> {};
struct Llama
    : LanguageModel<Repeat<2, HybridStack<Attention<heads_4_2>, SwiGLU<32, 48>>>, untied(61)> {};
/// More channels than a block of the scan's gradients has.
struct MambaOnly
    : LanguageModel<Repeat<3, Mamba<24, 8, MambaOptions{.d_conv = 3, .expand = 6, .dt_rank = 5}>>,
                    tied(50)> {};
/// Full attention alone, one key/value head for three query heads.
struct AttentionOnly
    : LanguageModel<
          HybridStack<DModel<36>, Attention<AttentionOptions{.n_heads = 3, .n_kv_heads = 1}>,
                      Attention<AttentionOptions{.n_heads = 6}>>,
          untied(40)> {};
/// The recurrence of Griffin, of a width of its own and of d_model, beside local attention.
struct Recurrent
    : LanguageModel<
          Repeat<2, HybridStack<RgLru<24, RgLruOptions{.width = 42, .n_heads = 3}>, GeGLU<24>,
                                RgLru<24, RgLruOptions{.d_conv = 3}>, GeGLU<24>,
                                SWA<10, AttentionOptions{.n_heads = 2, .n_kv_heads = 1}>>>,
          tied(47)> {};
/// Mamba beside attention in one branch.
struct Mixed
    : LanguageModel<
          Repeat<2, HybridStack<Parallel<Mamba<32>, SWA<10, AttentionOptions{.n_heads = 2}>>,
                                SwiGLU<32>>>,
          tied(47)> {};
/// No size a multiple of a vector; biases, a part of each head turned, head_dim not d_model /
/// n_heads.
struct Odd : LanguageModel<HybridStack<Mamba<23, 5>, SwiGLU<23, 37, MlpOptions{.bias = true}>,
                                       SWA<13, AttentionOptions{.n_heads = 3,
                                                                .head_dim = 10,
                                                                .rotary_fraction = 0.6f,
                                                                .bias = true}>>,
                           untied(33)> {};
/// A window above the tile of the attention kernel.
struct LongWindow
    : LanguageModel<
          HybridStack<SWA<100, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>, SwiGLU<32, 40>>,
          tied(40)> {};
/// The options of attention, norms and models that the others leave off.
struct Optioned
    : LanguageModel<
          HybridStack<
              DModel<32>,
              Norms<Norm<NormOptions{.plus_one = true}>, Norm<NormOptions{.plus_one = true}>>,
              SWA<20, AttentionOptions{.n_heads = 4,
                                       .n_kv_heads = 2,
                                       .proj_bias = true,
                                       .qk_norm = QkNorm::head,
                                       .qk_norm_plus_one = true,
                                       .scale_dim = 3,
                                       .score_cap = 2,
                                       .sinks = true}>,
              GeGLU<32, 40>,
              Attention<AttentionOptions{.n_heads = 3,
                                         .head_dim = 10,
                                         .qkv_bias = true,
                                         .qk_norm = QkNorm::token,
                                         .gate = true}>>,
          ModelOptions{
              .vocab_size = 41,
              .embedding_scale = EmbeddingScale::sqrt_d_model_bf16,
              .final_norm = NormOptions{.kind = NormKind::layer, .plus_one = true, .bias = true},
              .logit_cap = 3}> {};
/// Nothing in it depends on the position but through the window.
struct NoPosition
    : LanguageModel<HybridStack<Mamba<32>, SWA<24, AttentionOptions{.n_heads = 2, .rope = false}>,
                                SwiGLU<32>>,
                    tied(47)> {};

}  // namespace tiny

/// Weights with every bias and vector off its default, so that none can be left out unseen.
template <class Model, class T = float>
Weights<Model, T> random_weights(std::uint64_t seed) {
  Weights<Model, T> weights;
  initialize(weights, seed);
  Random rng{seed, seed};
  std::vector<Real<T>> row;
  for (const auto& tensor : weights.tensors()) {
    row.resize(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      tensor.get_row(r, row.data());
      // Embeddings of order one: logits that are far from equal.
      for (auto& x : row)
        x = !tensor.is_matrix            ? x + static_cast<Real<T>>(rng.uniform(-0.2, 0.2))
            : tensor.name == "embedding" ? 20 * x
                                         : x;
      tensor.set_row(r, row.data());
    }
  }
  weights.derive();
  return weights;
}

/// A copy of a tensor's elements, row by row as a file has them.
template <class R>
std::vector<R> values_of(const TensorRef<R>& tensor) {
  std::vector<R> values(static_cast<std::size_t>(tensor.rows * tensor.row_size));
  for (std::int64_t r = 0; r < tensor.rows; ++r)
    tensor.get_row(r, values.data() + r * tensor.row_size);
  return values;
}

/// All elements of a tensor that stands row by row, as those of master weights do.
template <class R>
std::span<R> elements(const TensorRef<R>& tensor) {
  return {static_cast<R*>(tensor.data), static_cast<std::size_t>(tensor.rows * tensor.row_size)};
}

template <class Model>
std::vector<std::int32_t> random_tokens(Random& rng, int n) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(n));
  for (auto& token : tokens) token = rng.below(Model::vocab_size);
  return tokens;
}

/// The logits of all tokens from a session, (tokens, vocab_size).
template <class Model, class T, class KV>
std::vector<Real<T>> all_logits(Session<Model, T, KV>& session,
                                std::span<const std::int32_t> tokens) {
  std::vector<Real<T>> logits(tokens.size() * Model::vocab_size);
  session.forward(tokens, logits);
  return logits;
}

template <class R>
std::vector<R> copy(std::span<const R> values) {
  return {values.begin(), values.end()};
}

/// Logits of the same tokens by two ways: the same bits, or what -ffast-math leaves of that.
/// (There, a key or value may round to another bf16.)
template <class KV, class A, class B>
bool same_logits(const A& a, const B& b) {
#ifdef __FAST_MATH__
  return relative_error(a, b) < (std::is_same_v<KV, bf16> ? 3e-2 : 1e-4);
#else
  return same_bits(a, b);
#endif
}

/// Row i of logits, (tokens, vocab_size).
template <class Model, class R>
std::span<const R> row_of(const std::vector<R>& logits, std::int64_t i) {
  return std::span(logits).subspan(static_cast<std::size_t>(i) * Model::vocab_size,
                                   Model::vocab_size);
}

/// True if two sessions, or sequences, are in the same state, to the bit.
inline bool same_state(const Snapshot& a, const Snapshot& b) {
  return a.position == b.position && a.block.bytes() == b.block.bytes() &&
         (a.block.bytes() == 0 || std::memcmp(a.block.data(), b.block.data(),
                                              static_cast<std::size_t>(a.block.bytes())) == 0);
}

}  // namespace samba_test
