#pragma once
/// \file
/// Reads weights from GGUF files.
#include <samba/io/architecture.hpp>
#include <samba/io/checkpoint.hpp>
#include <samba/io/format/gguf.hpp>
#include <samba/io/gguf.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace samba::inline SAMBA_TARGET {

/// True if two tensors in a file have the same type and bytes.
[[gnu::cold]] inline bool same_numbers(const GgufTensor& a, const GgufTensor& b) {
  return a.type == b.type && a.shape == b.shape &&
         std::memcmp(a.data.data(), b.data.data(), a.data.size()) == 0;
}

/// out[i] = element first + i, row major, of a tensor of a type that read_rows supports. Throws as
/// read_rows does.
template <class R>
void read_floats(const GgufTensor& tensor, std::int64_t first, std::span<R> out) {
  const std::int64_t columns = tensor.columns(), n = std::ssize(out);
  if constexpr (std::is_same_v<R, float>)
    if (first % columns == 0 && n % columns == 0)
      return read_rows(tensor, first / columns, n / columns, out);
  std::vector<float> row(static_cast<std::size_t>(columns));
  if (n == 0) read_rows(tensor, 0, 0, {});  // throws for unsupported types
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t at = (first + i) % columns, some = (std::min)(columns - at, n - i);
    read_rows(tensor, (first + i) / columns, 1, row);
    for (std::int64_t k = 0; k < some; ++k)
      out[static_cast<std::size_t>(i + k)] = static_cast<R>(row[static_cast<std::size_t>(at + k)]);
    i += some;
  }
}

namespace detail {

/// Sets n blocks of a row of int8 to those of Q8_0; false if a scale is not finite.
[[gnu::cold]] inline bool copy_q8_0(const std::uint8_t* block, std::int64_t n, int8* data,
                                    std::int64_t row) {
  constexpr std::int64_t size = Int8Block::size;
  for (std::int64_t i = 0; i < n; ++i, block += 2 + size) {
    const float d = half_at(block);
    if (!is_finite(d)) return false;
    int8 q[size];
    std::memcpy(q, block + 2, size);
    Packing<int8>::set_group(data, row, n * size, i, d, q, size);
  }
  return true;
}

/// Sets n blocks of a row of q4 to those of Q4_0 (symmetric) or Q4_1; false if a scale or a minimum
/// does not fit in a half.
[[gnu::cold]] inline bool copy_q4(const std::uint8_t* block, bool symmetric, std::int64_t n,
                                  q4* data, std::int64_t row) {
  constexpr int size = Q4Block::size;
  const std::size_t nibbles = symmetric ? 2 : 4, block_bytes = nibbles + size / 2;
  for (std::int64_t i = 0; i < n; ++i, block += block_bytes) {
    const float d = half_at(block), m = symmetric ? -8 * d : half_at(block + 2);
    const Q4Scale scale{f16_from_float(d), f16_from_float(m)};
    if (!scale.is_finite()) return false;
    std::uint8_t q[size];
    for (int k = 0; k < size / 2; ++k) {
      q[k] = block[nibbles + static_cast<std::size_t>(k)] & 15;
      q[size / 2 + k] = block[nibbles + static_cast<std::size_t>(k)] >> 4;
    }
    Packing<q4>::set_group(data, row, n * size, i, scale, q);
  }
  return true;
}

}  // namespace detail

/// If `to` consists of what a tensor in a file does, int8 of Q8_0 or q4 of Q4_0 or Q4_1, sets row
/// `to_row` of `to` to the blocks of row `row`, whose numbers stay what they are. Otherwise, and if a
/// scale is not finite or a minimum does not fit in a half, returns false.
[[gnu::cold]] inline bool copy_row(const GgufTensor& from, std::int64_t row,
                                   const TensorRef<float>& to, std::int64_t to_row) {
  if (to.layout != Layout::packed) return false;
  static_assert(Int8Block::size == Q4Block::size);
  const std::int64_t n = to.row_size / Int8Block::size;
  const auto* const blocks = reinterpret_cast<const std::uint8_t*>(from.data.data()) +
                             static_cast<std::size_t>(row) * from.row_bytes();
  if (int8* const data = to.elements<int8>())
    return from.type == GgmlType::q8_0 && detail::copy_q8_0(blocks, n, data, to_row);
  q4* const data = to.elements<q4>();
  const bool symmetric = from.type == GgmlType::q4_0;
  return data && (symmetric || from.type == GgmlType::q4_1) &&
         detail::copy_q4(blocks, symmetric, n, data, to_row);
}

namespace detail {

/// The fields of a GGUF file under the name of its architecture. Fields that nobody asked for are
/// errors, because they may change what the model computes.
class GgufFields {
 public:
  [[gnu::cold]] explicit GgufFields(const GgufFile& file)
      : file_(file), architecture_(file.metadata().get<std::string_view>("general.architecture")) {}

  std::string_view architecture() const { return architecture_; }
  const std::string& path() const { return file_.path(); }

  /// A whole number between 1 and 2^31 - 1; without a fallback it must be there.
  [[gnu::cold]] int size(const char* field, int fallback = 0) {
    const std::string key = note(field);
    const auto value = fallback > 0 ? file_.metadata().get<std::int64_t>(key, fallback)
                                    : file_.metadata().get<std::int64_t>(key);
    if (value < 1 || value > 0x7fffffff)
      fail({path(), ": ", key, ": expected a number from 1 to 2147483647, found ", value});
    return static_cast<int>(value);
  }
  [[gnu::cold]] float real(const char* field, float fallback) {
    return file_.metadata().get<float>(note(field), fallback);
  }
  [[gnu::cold]] std::string_view text(const char* field, std::string_view fallback) {
    return file_.metadata().get<std::string_view>(note(field), fallback);
  }
  /// Throws unless the field, if it is there, has this value.
  [[gnu::cold]] void expect(const char* field, int value) {
    if (const int found = size(field, value); found != value)
      fail({path(), ": ", key(field), ": expected ", value, ", found ", found});
  }
  /// A field that does not change the model.
  void ignore(const char* field) { note(field); }

  [[gnu::cold]] void check_all_known() const {
    const std::string prefix = key("");
    for (const GgufEntry& entry : file_.metadata()) {
      if (!entry.key.starts_with(prefix)) continue;
      bool known = false;
      for (const std::string& name : known_) known = known || entry.key == name;
      if (!known) fail({path(), ": ", entry.key, ": this field is not supported"});
    }
  }

 private:
  std::string key(std::string_view field) const { return join({architecture_, ".", field}); }
  std::string note(std::string_view field) { return known_.emplace_back(key(field)); }

  const GgufFile& file_;
  std::string_view architecture_;
  std::vector<std::string> known_;
};

/// The architectures that can be read: their format, and that of the same models in transformers.
struct GgufFamily {
  std::string_view name;
  const CheckpointFormat *format, *transformers;
};
inline constexpr GgufFamily gguf_families[] = {{"llama", &formats::gguf_llama, &formats::llama},
                                               {"gemma3", &formats::gguf_gemma3, &formats::gemma2}};

[[gnu::cold]] inline const GgufFamily& gguf_family(const GgufFile& file) {
  const auto name = file.metadata().get<std::string_view>("general.architecture");
  std::string all;
  for (const GgufFamily& family : gguf_families) {
    if (family.name == name) return family;
    append(all, {all.empty() ? "" : ", ", family.name});
  }
  fail({file.path(), ": general.architecture: expected one of ", all, ", found ", Quoted{name}});
}

/// The rotary embedding of a branch with attention.
struct BranchRope {
  std::size_t branch;
  int rotary;
  float theta;
  kernels::RopeScaling scaling;

  double frequency(std::size_t pair) const {
    return std::pow(static_cast<double>(theta), -2.0 * static_cast<double>(pair) / rotary);
  }
};

/// Lists those of a model.
struct RopeLister {
  std::vector<BranchRope>& all;
  std::size_t next = 0;

  void operator()(auto branch, Use) {
    using L = typename decltype(branch)::type::Layer;
    if constexpr (requires { L::rope_scaling; })
      all.push_back({next, L::rotary, L::rope_theta, L::rope_scaling});
    ++next;
  }
};

/// The numbers by which a file divides the frequencies of the pairs of a head; empty if it has none.
[[gnu::cold]] inline std::vector<float> rope_factors(const GgufFile& file) {
  const GgufTensor* const tensor = file.find(formats::gguf_llama.no_weights);
  if (!tensor) return {};
  if (tensor->shape.size() != 1 || tensor->type != GgmlType::f32)
    fail({file.path(), ": tensor ", tensor->name, ": expected one extent and type F32, found ",
          tensor->shape, " and ", tensor->type_text()});
  std::vector<float> factors(static_cast<std::size_t>(tensor->columns()));
  read_rows(*tensor, 0, 1, factors);
  return factors;
}

/// Throws Error if the numbers are not those of Llama 3.1's scaling of a branch; none are ones.
/// by: whose scaling it is.
[[gnu::cold]] inline void check_rope_factors(const std::string& path,
                                             const std::vector<float>& factors,
                                             const BranchRope& rope, const std::string& by) {
  const auto pairs = static_cast<std::size_t>(rope.rotary / 2);
  const std::string who = join({path, ": tensor ", formats::gguf_llama.no_weights, ": "});
  if (!factors.empty() && factors.size() != pairs)
    fail({who, "expected ", pairs, " elements by ", by, ", found ", factors.size()});
  kernels::RopeScaling scaling = rope.scaling;
  scaling.linear = 1;  // which the metadata say
  for (std::size_t i = 0; i < pairs; ++i) {
    const double frequency = rope.frequency(i), expected = frequency / scaling(frequency);
    const double found = factors.empty() ? 1 : static_cast<double>(factors[i]);
    // Writers compute in float: the interpolation multiplies their rounding by up to the factor.
    constexpr double tolerance = 1e-4;
    if (is_finite(static_cast<float>(found)) && std::abs(found - expected) <= tolerance * expected)
      continue;
    fail({who, "element ", i, ": expected ", static_cast<float>(expected), " by ", by, ", found ",
          factors.empty() ? Part("none") : Part(static_cast<float>(found))});
  }
}

/// The scaling of Llama 3.1 that has these numbers, with its usual 1 and 4 turns; check_rope_factors()
/// says whether it does.
[[gnu::cold]] inline kernels::RopeScaling rope_scaling_of(const std::vector<float>& factors,
                                                          const BranchRope& rope) {
  kernels::RopeScaling scaling;
  for (const float x : factors) scaling.factor = (std::max)(scaling.factor, x);
  const double slowest = static_cast<double>(scaling.factor);
  if (slowest == 1 || factors.size() != static_cast<std::size_t>(rope.rotary / 2)) return scaling;
  scaling.original = 8192;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const double x = static_cast<double>(factors[i]);
    if (x < 1 + 1e-3 || x > slowest * (1 - 1e-3)) continue;
    // A pair between the turns, whose number follows from its interpolation.
    const double part = (1 / x - 1 / slowest) / (1 - 1 / slowest);
    const double turns = scaling.low + part * (scaling.high - scaling.low);
    const double positions = 2 * std::numbers::pi * turns / rope.frequency(i);
    scaling.original = static_cast<int>((std::min)(std::round(positions), 2147483647.0));
    break;
  }
  return scaling;
}

/// Sets the scaling of Llama 3.1, which no field of a file says.
[[gnu::cold]] inline void set_scaling(AttentionOptions& heads,
                                      const kernels::RopeScaling& scaling) {
  heads.rope_original_positions = scaling.original;
  if (scaling.original == 0) return;
  heads.rope_factor = scaling.factor;
  heads.rope_low_freq_factor = scaling.low;
  heads.rope_high_freq_factor = scaling.high;
}

/// What the metadata of a file describe.
[[gnu::cold]] inline Architecture metadata_architecture(const GgufFile& file) {
  gguf_family(file);  // throws for other architectures
  GgufFields fields(file);
  const bool gemma = fields.architecture() == "gemma3";
  const GgufTensor& embedding = file.tensor("token_embd.weight");
  if (embedding.shape.size() != 2 || embedding.shape[0] > 0x7fffffff)
    fail(
        {file.path(), ": tensor token_embd.weight: expected two extents, found ", embedding.shape});

  Architecture a{.family = std::string(fields.architecture())};
  a.d_model = fields.size("embedding_length");
  a.options.vocab_size = static_cast<int>(embedding.shape[0]);
  fields.expect("vocab_size", a.options.vocab_size);
  a.options.tie_embeddings = file.find("output.weight") == nullptr;
  a.options.norm_eps = fields.real("attention.layer_norm_rms_epsilon", 1e-5f);
  fields.ignore("context_length");  // of the texts in training

  ArchitectureBranch attention{.layer = ArchitectureBranch::attention},
      mlp{.layer = ArchitectureBranch::mlp};
  AttentionOptions& heads = attention.heads;
  heads.n_heads = fields.size("attention.head_count");
  heads.n_kv_heads = fields.size("attention.head_count_kv", heads.n_heads);
  heads.head_dim = fields.size("attention.key_length", (std::max)(1, a.d_model / heads.n_heads));
  fields.expect("attention.value_length", heads.head_dim);
  heads.rope_theta = fields.real("rope.freq_base", 10000);
  const int rotary = fields.size("rope.dimension_count", heads.head_dim);
  heads.rotary_fraction = static_cast<float>(rotary) / static_cast<float>(heads.head_dim);
  const float scaling = fields.real("rope.scaling.factor", 1);
  if (const std::string_view type = fields.text("rope.scaling.type", "linear"); type == "linear")
    heads.rope_linear_factor = scaling;
  else if (type != "none")
    fail({file.path(), ": ", fields.architecture(),
          ".rope.scaling.type: expected none or linear, found ", Quoted{type}});
  if (!(scaling > 0))
    fail({file.path(), ": ", fields.architecture(),
          ".rope.scaling.factor: expected a positive number, found ", scaling});
  mlp.d_ff = fields.size("feed_forward_length");
  const int blocks = fields.size("block_count");

  if (!gemma) {
    const int all = 0x7fffffff, window = fields.size("attention.sliding_window", all);
    attention.window = window == all ? 0 : window;
    fields.check_all_known();
    for (int i = 0; i < blocks; ++i) a.branches.insert(a.branches.end(), {attention, mlp});
    return a;
  }
  constexpr int pattern = 6;
  a.options.embedding_scale = EmbeddingScale::sqrt_d_model;
  a.options.final_norm.plus_one = true;
  heads.qk_norm = QkNorm::head;
  heads.qk_norm_plus_one = true;
  mlp.gate = MlpGate::gelu_tanh;
  attention.norm.plus_one = mlp.norm.plus_one = true;
  attention.sandwich = mlp.sandwich = true;
  if (blocks == 62)  // Gemma 3 27B: scores are scaled by this, which no field says
    heads.scale_dim = static_cast<float>(a.d_model / heads.n_heads);
  ArchitectureBranch local = attention;
  local.window = fields.size("attention.sliding_window");
  local.heads.rope_linear_factor = 1;
  local.heads.rope_theta = fields.real("rope.freq_base_swa", 10000);
  fields.expect("attention.sliding_window_pattern", pattern);
  fields.check_all_known();
  for (int i = 0; i < blocks; ++i)
    a.branches.insert(a.branches.end(), {i % pattern == pattern - 1 ? attention : local, mlp});
  return a;
}

/// Throws Error if a file is not of a model's architecture; ropes: those of the model.
[[gnu::cold]] inline void check_gguf(const GgufFile& file, const std::string& model_line,
                                     const std::vector<BranchInfo>& branches,
                                     const std::vector<BranchRope>& ropes) {
  Architecture a = metadata_architecture(file);
  for (const BranchRope& rope : ropes)
    if (rope.branch < a.branches.size()) set_scaling(a.branches[rope.branch].heads, rope.scaling);
  check_architecture(file.path(), a, model_line, branches);
  const std::vector<float> factors = rope_factors(file);
  for (const BranchRope& rope : ropes)
    check_rope_factors(file.path(), factors, rope, join({"branch ", rope.branch, " of the model"}));
}

}  // namespace detail

/// The architecture that a GGUF file describes: `llama` (Llama, Mistral, SmolLM2) or `gemma3`, whose
/// file names neither the pattern of its windows (every sixth block sees all tokens) nor the rotary
/// base of the blocks with a window (10000). The tensor rope_freqs.weight of Llama 3.1 and 3.2 becomes
/// the options of its scaling. Throws Error, naming the field, for other architectures, for fields
/// that this library does not implement, and for those that are missing.
[[gnu::cold]] inline Architecture architecture_of(const GgufFile& file) {
  Architecture a = detail::metadata_architecture(file);
  const std::vector<float> factors = detail::rope_factors(file);
  if (factors.empty()) return a;
  const AttentionOptions& heads = a.branches.front().heads;
  detail::BranchRope rope{
      0,
      detail::rotary_channels(heads.rope, heads.rotary_fraction, heads.head_dim),
      heads.rope_theta,
      {}};
  rope.scaling = detail::rope_scaling_of(factors, rope);
  detail::check_rope_factors(
      file.path(), factors, rope,
      detail::join({"the scaling of Llama 3.1 with rope_factor ", rope.scaling.factor,
                    " and rope_original_positions ", rope.scaling.original}));
  for (ArchitectureBranch& branch : a.branches)
    if (branch.layer == ArchitectureBranch::attention)
      detail::set_scaling(branch.heads, rope.scaling);
  return a;
}

/// Reads the weights of a Model from a GGUF file: see architecture_of. Quantised tensors are converted
/// to float and then to T, but blocks of Q8_0 to int8 and of Q4_0 and Q4_1 to q4 directly, so that
/// weights are the numbers in the file.
///
/// Throws Error before reading any weight if the file does not fit the type: its metadata, with the
/// first option that differs; its rotary factors (rope_freqs.weight), with the first one; or its
/// tensors, as in load.
template <class Model, class T = float>
Weights<Model, T> load_gguf(const std::string& path) {
  const GgufFile file(path);
  std::vector<detail::BranchRope> ropes;
  for_each_branch<typename Model::Stack>(detail::RopeLister{ropes});
  detail::check_gguf(file, detail::model_line<Model>(), branches<Model>(), ropes);
  Weights<Model, T> weights;
  detail::load_tensors(file, *detail::gguf_family(file).format, structure<Model>(),
                       branches<Model>(), Model::tie_embeddings, weights.tensors());
  weights.derive();
  return weights;
}

}  // namespace samba::inline SAMBA_TARGET
