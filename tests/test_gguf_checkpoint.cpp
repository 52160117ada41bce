// Weights from GGUF files: the golden case llama3-tiny as gguf's own writer has it, and files that do not
// fit the type.
#include <samba/io/gguf_checkpoint.hpp>

#include <tuple>

#include "tests/catch.hpp"
#include "tests/gguf_bytes.hpp"
#include "tests/models.hpp"

using namespace samba_test;
using namespace samba_test::gguf_bytes;

namespace {

const std::string& model_path() {
  static const std::string path = data_path("gguf/llama3-tiny.gguf");
  return path;
}

/// The file with one part of its bytes replaced by as many others.
std::string replaced(std::string_view what, std::string_view by) {
  std::string bytes = read_file(model_path());
  const std::size_t at = bytes.find(what);
  REQUIRE((what.size() == by.size() && at != bytes.npos && bytes.find(what, at + 1) == bytes.npos));
  return bytes.replace(at, what.size(), by);
}

/// The bytes of a file with more metadata, entries, and the tensor rope_freqs.weight with these numbers
/// (none: without it).
std::string extended(const std::string& path, std::initializer_list<std::string> entries,
                     const std::vector<float>& factors = {}) {
  const std::string bytes = read_file(path);
  const GgufContent content =
      parse_gguf(std::as_bytes(std::span(bytes.data(), bytes.size())), path);
  // The data move by a multiple of the alignment; what precedes them is put together anew.
  std::size_t end = 0, data = bytes.size();  // of the descriptions of tensors
  for (const GgufTensor& t : content.tensors) {
    const std::string name = text(std::string(t.name));
    end = (std::max)(end, bytes.find(name) + name.size() + 4 + 8 * t.shape.size() + 4 + 8);
    const auto* const begin = reinterpret_cast<const char*>(t.data.data());
    data = (std::min)(data, static_cast<std::size_t>(begin - bytes.data()));
  }
  const std::size_t tensors = content.tensors.size() + (factors.empty() ? 0 : 1);
  std::string all = header(tensors, content.metadata.size() + entries.size());
  for (const std::string& entry : entries) all += entry;
  all += bytes.substr(24, end - 24);
  const std::string stored = padded(bytes.substr(data));
  if (!factors.empty()) all += tensor("rope_freqs.weight", {factors.size()}, 0, stored.size());
  all = padded(all) + stored;
  for (const float x : factors) all += raw(x);
  return padded(all);
}

/// The numbers that converters write for Llama 3.1's scaling, in float as they compute them.
std::vector<float> llama31_factors(float theta, int rotary, float original, float factor,
                                   float low = 1, float high = 4) {
  std::vector<float> factors;
  for (int i = 0; i < rotary / 2; ++i) {
    const float frequency =
        1 / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(rotary));
    const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
    const float smooth = (original / wavelength - low) / (high - low);
    factors.push_back(wavelength < original / high  ? 1
                      : wavelength > original / low ? factor
                                                    : 1 / ((1 - smooth) / factor + smooth));
  }
  return factors;
}

template <class Model, class T = float>
std::string message_of_loading(const std::string& bytes) {
  const TempDir dir;
  write_file(dir.file("model.gguf"), bytes);
  const std::string message = message_of([&] { load_gguf<Model, T>(dir.file("model.gguf")); });
  CHECK(message.starts_with(dir.file("model.gguf: ")));
  return message;
}

/// A matrix of T, packed, as load_gguf sees it.
template <class T>
TensorRef<float> packed_rows(T* data, std::int64_t rows, std::int64_t row_size) {
  TensorRef<float> tensor;
  static_cast<RowAccess<float>&>(tensor) = RowAccess<float>::of<Matrix<T, 1, 1>>();
  tensor.rows = rows;
  tensor.row_size = row_size;
  tensor.data = data;
  return tensor;
}

/// Copies every block of a tensor, as a row of its own, to a matrix of T. It must be copied if its first
/// half fits, and its numbers then stay what they are. Returns how many were copied.
template <class T, class Fits>
int copied_blocks(GgufTensor stored, Fits fits) {
  constexpr int size = 32;
  const auto blocks = static_cast<int>(stored.rows() * stored.columns() / size);
  stored.shape = Shape{blocks, size};
  std::vector<std::byte> memory(static_cast<std::size_t>(Packing<T>::bytes(blocks, size)));
  const auto to = packed_rows(reinterpret_cast<T*>(memory.data()), blocks, size);
  std::vector<float> expected(size), found(size);
  int copied = 0;
  for (int r = 0; r < blocks; ++r) {
    CAPTURE(stored.name, r);
    read_rows(stored, r, 1, expected);
    const std::byte* const block =
        stored.data.data() + static_cast<std::size_t>(r) * stored.row_bytes();
    const bool expect = fits(detail::half_at(reinterpret_cast<const std::uint8_t*>(block)));
    CHECK(copy_row(stored, r, to, r) == expect);
    if (!expect) continue;
    to.get_row(r, found.data());
    CHECK(found == expected);
    ++copied;
  }
  return copied;
}

/// As Llama3, with another kind of attention.
template <auto Options>
struct LlamaOf : LanguageModel<Repeat<2, HybridStack<Attention<Options>, SwiGLU<64, 112>>>,
                               golden::untied(128)> {};

}  // namespace

TEST_CASE("load_gguf gives the weights of the safetensors checkpoint") {
  const auto expected = load<golden::Llama3>(golden::path<golden::Llama3>("model.safetensors"));
  const auto found = load_gguf<golden::Llama3>(model_path());
  CHECK(same_bits(expected.memory(), found.memory()));
  const auto exact =
      load<golden::Llama3, double>(golden::path<golden::Llama3>("model.safetensors"));
  CHECK(same_bits(exact.memory(), load_gguf<golden::Llama3, double>(model_path()).memory()));
}

TEST_CASE("load_gguf: blocks of Q4_0 and Q4_1 are q4's own, whatever their numbers") {
  const GgufFile file(data_path("gguf/types.gguf"));
  // The minimum is the scale of Q4_0 times -8, which must fit in a half.
  CHECK(copied_blocks<q4>(file.tensor("q4_0"), [](float d) { return std::abs(d) < 8190; }) > 40);
  CHECK(copied_blocks<q4>(file.tensor("q4_1"), [](float) { return true; }) == 48);
  for (const char* name : {"q4_0", "q8_0", "q5_1", "f32"}) {
    CAPTURE(name);
    std::byte unused[1];
    const GgufTensor& stored = file.tensor(name);
    if (stored.type != GgmlType::q4_0)
      CHECK_FALSE(copy_row(stored, 0, packed_rows(reinterpret_cast<q4*>(unused), 3, 512), 0));
    if (stored.type != GgmlType::q8_0)
      CHECK_FALSE(copy_row(stored, 0, packed_rows(reinterpret_cast<int8*>(unused), 3, 512), 0));
    CHECK_FALSE(copy_row(stored, 0, packed_rows(reinterpret_cast<bf16*>(unused), 3, 512), 0));
  }
}

TEST_CASE("load_gguf: blocks of Q8_0 are int8's own, whatever their numbers") {
  const GgufFile file(data_path("gguf/types.gguf"));
  std::vector<std::byte> memory(static_cast<std::size_t>(Packing<int8>::bytes(3, 512)));
  auto square_blocks = packed_rows(reinterpret_cast<int8*>(memory.data()), 3, 512);
  square_blocks.layout = Layout::blocks;  // whose rows stand otherwise
  CHECK_FALSE(copy_row(file.tensor("q8_0"), 0, square_blocks, 0));
  const auto finite = [](float d) { return is_finite(d); };
  CHECK(copied_blocks<int8>(file.tensor("q8_0"), finite) == 48);
  // Scales: zeros, the smallest and the largest halves, and those that are not finite. Every code.
  const std::uint16_t scales[] = {0,      0x8000, 0x0001, 0x8001, 0x7bff,
                                  0xfbff, 0x3c00, 0x7c00, 0xfc00, 0x7e00};
  std::vector<std::uint8_t> bytes;
  for (const std::uint16_t scale : scales)
    for (int code = -128; code < 128; ++code) {
      if (code % 32 == 0)
        bytes.insert(bytes.end(), {static_cast<std::uint8_t>(scale & 255),
                                   static_cast<std::uint8_t>(scale >> 8)});
      bytes.push_back(static_cast<std::uint8_t>(code));
    }
  GgufTensor stored{"q", GgmlType::q8_0, Shape{80, 32}, std::as_bytes(std::span(bytes))};
  CHECK(copied_blocks<int8>(stored, finite) == 7 * 8);
}

TEST_CASE("load_gguf: matrices of int8 are the numbers of a file in Q8_0") {
  using Model = golden::Llama3;
  const std::string path = data_path("gguf/llama3-q8_0.gguf");
  const auto expected = load_gguf<Model>(path);
  const auto a = expected.tensors();
  const auto check_weights = [&](const auto& weights, std::size_t matrices) {
    const auto b = weights.tensors();
    REQUIRE(a.size() == b.size());
    std::size_t compared = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      CAPTURE(a[i].branch, a[i].name);
      // Rows of 112 have no whole blocks and are in float32 in the file.
      if (!b[i].template elements<int8>() || b[i].row_size != 64) continue;
      CHECK(same_bits(values_of(a[i]), values_of(b[i])));
      ++compared;
    }
    CHECK(compared == matrices);
  };
  check_weights(load_gguf<Model, int8>(path), 9);
  check_weights(load_gguf<Model, q4>(path), 1);  // the head

  // A scale of the key that is not finite.
  std::string bytes = read_file(path);
  const GgufFile file(path);
  const GgufTensor& key = file.tensor("blk.1.attn_k.weight");
  const std::string_view blocks(reinterpret_cast<const char*>(key.data.data()), key.data.size());
  const std::size_t at = bytes.find(blocks);
  constexpr std::uint16_t infinite = 0x7c00, negative_infinite = 0xfc00, nan = 0x7e00;
  for (const std::uint16_t bad : {infinite, negative_infinite, nan}) {
    std::memcpy(bytes.data() + at + 34 * (3 * 2 + 1), &bad, 2);  // the second block of row 3
    CHECK(message_of_loading<Model, int8>(bytes).ends_with(
        "tensor blk.1.attn_k.weight: element 224 is not finite"));
  }
}

TEST_CASE("load_gguf: Gemma 3, whose norms are stored as scales") {
  using Model = golden::Gemma3;
  const std::string path = data_path("gguf/gemma3-tiny.gguf");
  const GgufFile file(path);
  CHECK(architecture_of(file).structure() == structure<Model>());
  CHECK(architecture_of(file).parameters() == Model::parameters);
  const auto expected = load<Model>(golden::path<Model>("model.safetensors"));
  const auto found = load_gguf<Model>(path);
  const auto a = expected.tensors(), b = found.tensors();
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(a[i].branch, a[i].name);
    if (a[i].name.find("norm") == std::string::npos)
      CHECK(same_bits(values_of(a[i]), values_of(b[i])));
    else  // 1 + weight was rounded
      CHECK(relative_error(values_of(b[i]), values_of(a[i])) < 4e-7);
  }
  using Short = LanguageModel<Repeat<6, golden::SandwichBlock<SWA<16, golden::gemma3_heads>>>,
                              golden::gemma_options()>;
  CHECK_MESSAGE_OF(load_gguf<Short>(path), "branches: expected 12 by the model, found 16");
  using NoPattern = LanguageModel<Repeat<8, golden::SandwichBlock<SWA<16, golden::gemma3_heads>>>,
                                  golden::gemma_options()>;
  CHECK_MESSAGE_OF(load_gguf<NoPattern>(path), "branch 10: expected", "swa by the model, found",
                   ":attention");
}

TEST_CASE("load_gguf: linear scaling of positions") {
  const auto type = [](const std::string& architecture, const char* name) {
    return entry(architecture + ".rope.scaling.type", t_string, text(name));
  };
  const auto factor = [](const std::string& architecture, float x) {
    return entry(architecture + ".rope.scaling.factor", t_f32, raw(x));
  };
  using Scaled = LlamaOf<AttentionOptions{
      .n_heads = 4, .n_kv_heads = 2, .rope_theta = 500000, .rope_linear_factor = 2.5f}>;
  const TempDir dir;
  const std::string path = dir.file("model.gguf");
  const auto line_of = [&](const std::string& from, std::initializer_list<std::string> entries) {
    write_file(path, extended(from, entries));
    return architecture_of(GgufFile(path)).structure();
  };
  const std::string llama = model_path();
  CHECK(line_of(llama, {}) == structure<golden::Llama3>());
  CHECK(line_of(llama, {type("llama", "none"), factor("llama", 2.5f)}) ==
        structure<golden::Llama3>());
  CHECK(line_of(llama, {factor("llama", 2.5f)}) == structure<Scaled>());  // as llama.cpp reads it
  CHECK(line_of(llama, {type("llama", "linear"), factor("llama", 2.5f)}) == structure<Scaled>());
  CHECK(same_bits(load_gguf<Scaled>(path).memory(), load_gguf<golden::Llama3>(llama).memory()));
  CHECK_MESSAGE_OF(
      load_gguf<golden::Llama3>(path), path,
      "branch 0, attention: rope_linear_factor: expected none by the model, found 2.5");
  CHECK(message_of_loading<Scaled>(extended(llama, {type("llama", "yarn"), factor("llama", 2)}))
            .ends_with("llama.rope.scaling.type: expected none or linear, found \"yarn\""));
  CHECK(message_of_loading<Scaled>(extended(llama, {factor("llama", 0)}))
            .ends_with("llama.rope.scaling.factor: expected a positive number, found 0"));

  const std::string gemma3 = data_path("gguf/gemma3-tiny.gguf");
  using Gemma3 =
      LanguageModel<HybridStack<Repeat<5, golden::SandwichBlock<SWA<16, golden::gemma3_heads>>>,
                                golden::SandwichBlock<Attention<golden::gemma3_linear>>,
                                Repeat<2, golden::SandwichBlock<SWA<16, golden::gemma3_heads>>>>,
                    golden::gemma_options()>;
  CHECK(line_of(gemma3, {type("gemma3", "linear"), factor("gemma3", 8)}) == structure<Gemma3>());
}

TEST_CASE("load_gguf: the factors of rotary frequencies are those of the type") {
  using Scaled = LlamaOf<AttentionOptions{
      .n_heads = 4, .n_kv_heads = 2, .rope_theta = 500000, .rope_original_positions = 64}>;
  using Other = LlamaOf<AttentionOptions{.n_heads = 4,
                                         .n_kv_heads = 2,
                                         .rope_theta = 500000,
                                         .rope_original_positions = 100,
                                         .rope_factor = 3,
                                         .rope_low_freq_factor = 0.5f,
                                         .rope_high_freq_factor = 8}>;
  using Unscaled = golden::Llama3;
  const std::vector<float> factors = llama31_factors(500000, 16, 64, 8);
  REQUIRE((factors[0] == 1 && factors[1] > 1 && factors[1] < 8 && factors[2] == 8));
  const TempDir dir;
  const std::string path = dir.file("model.gguf"), tensor = path + ": tensor rope_freqs.weight: ";
  const auto write = [&](const std::vector<float>& numbers) {
    write_file(path, extended(model_path(), {}, numbers));
  };
  const auto weights = load_gguf<Unscaled>(model_path());

  write(factors);
  CHECK(same_bits(load_gguf<Scaled>(path).memory(), weights.memory()));
  CHECK(architecture_of(GgufFile(path)).structure() == structure<Scaled>());
  CHECK(message_of([&] {
          load_gguf<Unscaled>(path);
        }).starts_with(tensor + "element 1: expected 1 by branch 0 of the model, found "));
  CHECK(
      message_of([&] { load_gguf<Other>(path); }).starts_with(tensor + "element 1: expected 1.7"));
  CHECK(message_of([&] {
          load_gguf<Scaled>(model_path());
        }).starts_with(model_path() + ": tensor rope_freqs.weight: element 1: expected "));
  CHECK(message_of([&] {
          load_gguf<Scaled>(model_path());
        }).ends_with(" by branch 0 of the model, found none"));

  // The turns of the type, which architecture_of() cannot know.
  write(llama31_factors(500000, 16, 100, 3, 0.5f, 8));
  CHECK(same_bits(load_gguf<Other>(path).memory(), weights.memory()));
  CHECK_MESSAGE_OF(architecture_of(GgufFile(path)), tensor,
                   "by the scaling of Llama 3.1 with rope_factor 3 and");

  // Ones are no scaling.
  write(std::vector<float>(8, 1));
  CHECK(same_bits(load_gguf<Unscaled>(path).memory(), weights.memory()));
  CHECK(architecture_of(GgufFile(path)).structure() == structure<Unscaled>());
  CHECK(
      message_of([&] { load_gguf<Scaled>(path); }).ends_with(" by branch 0 of the model, found 1"));

  for (const float bad : {7.99f, 0.f, -8.f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    CAPTURE(bad);
    std::vector<float> numbers = factors;
    numbers[5] = bad;
    write(numbers);
    CHECK(message_of([&] {
            load_gguf<Scaled>(path);
          }).starts_with(tensor + "element 5: expected 8 by branch 0 of the model, found "));
    CHECK_MESSAGE_OF(architecture_of(GgufFile(path)), tensor + "element ", ": expected ",
                     ", found ");
  }
  write(std::vector<float>(7, 1));
  CHECK(message_of([&] { load_gguf<Unscaled>(path); }) ==
        tensor + "expected 8 elements by branch 0 of the model, found 7");
  write(std::vector<float>(7, 8));
  CHECK_MESSAGE_OF(architecture_of(GgufFile(path)), tensor + "expected 8 elements by ", "found 7");
  std::string halves = extended(model_path(), {}, std::vector<float>(8, 1));
  const std::string name = text("rope_freqs.weight");
  halves[halves.find(name) + name.size() + 4 + 8] = 26;  // I32, of the same size
  CHECK(message_of_loading<Unscaled>(halves).ends_with(
      "tensor rope_freqs.weight: expected one extent and type F32, found [8] and I32"));
}

TEST_CASE("architecture_of: the scalings of Llama 3.1 and 3.2 follow from their factors") {
  for (const auto& [rotary, factor, original] : {std::tuple{128, 8.f, 8192},
                                                 {128, 32.f, 8192},
                                                 {64, 32.f, 8192},
                                                 {128, 8.f, 131072},
                                                 {64, 16.f, 10000}}) {
    CAPTURE(rotary, factor, original);
    detail::BranchRope rope{0, rotary, 500000, {}};
    const auto factors = llama31_factors(500000, rotary, static_cast<float>(original), factor);
    rope.scaling = detail::rope_scaling_of(factors, rope);
    CHECK((rope.scaling.original == original && rope.scaling.factor == factor));
    CHECK_NOTHROW(detail::check_rope_factors("file", factors, rope, "it"));
  }
}

TEST_CASE("load_gguf: Gemma 3 27B, by its 62 blocks, scales scores by d_model / n_heads") {
  const auto blocks = [](std::uint32_t n) { return entry("gemma3.block_count", t_u32, u32(n)); };
  std::string bytes = read_file(data_path("gguf/gemma3-tiny.gguf"));
  const std::size_t at = bytes.find(blocks(8));
  REQUIRE(at != bytes.npos);
  const TempDir dir;
  write_file(dir.file("model.gguf"), bytes.replace(at, blocks(8).size(), blocks(62)));
  const Architecture a = architecture_of(GgufFile(dir.file("model.gguf")));
  CHECK(a.branches.size() == 124);
  for (std::size_t i = 0; i < a.branches.size(); i += 2) CHECK(a.branches[i].heads.scale_dim == 12);
}

TEST_CASE("load_gguf: what has been read of a file does not stay in memory") {
  using Model = golden::Gemma3;
  const GgufFile file(data_path("gguf/gemma3-tiny.gguf"));
  Weights<Model> weights;
  detail::load_tensors(file, *detail::gguf_family(file).format, structure<Model>(),
                       branches<Model>(), Model::tie_embeddings, weights.tensors());
  CHECK(part_in_memory(file) < 0.2);  // pages around those that were read
}

TEST_CASE("load_gguf: metadata that does not fit the type are named") {
  using Model = golden::Llama3;
  const auto base = [](float x) { return entry("llama.rope.freq_base", t_f32, raw(x)); };
  using OtherBase = LlamaOf<AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>;
  CHECK_MESSAGE_OF(load_gguf<OtherBase>(model_path()),
                   "branch 0, attention: rope_theta: expected 10000 by the model, found 5e+05");
  using EightHeads =
      LlamaOf<AttentionOptions{.n_heads = 8, .n_kv_heads = 4, .head_dim = 8, .rope_theta = 500000}>;
  CHECK_MESSAGE_OF(load_gguf<EightHeads>(model_path()),
                   "branch 0, attention: n_heads: expected 8 by the model, found 4");
  using Half = LlamaOf<AttentionOptions{
      .n_heads = 4, .n_kv_heads = 2, .rope_theta = 500000, .rotary_fraction = 0.5f}>;
  CHECK_MESSAGE_OF(load_gguf<Half>(model_path()),
                   "branch 0, attention: rotary: expected 8 by the model, found 16");
  CHECK(message_of_loading<Model>(replaced(base(500000), base(500001)))
            .ends_with("rope_theta: expected 5e+05 by the model, found 500001"));
  CHECK(message_of_loading<Model>(replaced("llama.context_length", "llama.logit_scaling_"))
            .ends_with("llama.logit_scaling_: this field is not supported"));
  CHECK(message_of_loading<Model>(replaced("llama.vocab_size", "llama.rope.scale"))
            .ends_with("llama.rope.scale: this field is not supported"));
  const std::string architecture = std::string("\5\0\0\0\0\0\0\0", 8);
  CHECK(message_of_loading<Model>(replaced(architecture + "llama", architecture + "gemma"))
            .ends_with("general.architecture: expected one of llama, gemma3, found \"gemma\""));
}

TEST_CASE("load_gguf: tensors that do not fit the type are named") {
  using Model = golden::Llama3;
  const std::string message =
      message_of_loading<Model>(replaced("blk.1.ffn_up.weight", "blk.1.ffn_ap.weight"));
  CHECK(message.find("missing (1):\n    blk.1.ffn_up.weight [112, 64] of mlp(") != message.npos);
  CHECK(message.find("unexpected (1):\n    blk.1.ffn_ap.weight [112, 64]") != message.npos);
  // A number of a key that is not finite; all keys are stored in pairs.
  std::string bytes = read_file(model_path());
  const GgufFile file(model_path());
  const GgufTensor& key = file.tensor("blk.0.attn_k.weight");
  const GgufTensor& first = file.tensor("blk.0.attn_norm.weight");
  const std::string_view norm(reinterpret_cast<const char*>(first.data.data()), first.data.size());
  const std::size_t at =
      bytes.find(norm) + static_cast<std::size_t>(key.data.data() - first.data.data());
  const float bad = std::numeric_limits<float>::infinity();
  std::memcpy(bytes.data() + at + 4 * (3 * 64 + 5), &bad, 4);
  CHECK(message_of_loading<Model>(bytes).ends_with(
      "tensor blk.0.attn_k.weight: element 197 is not finite"));
}
