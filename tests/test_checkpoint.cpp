// Weights from and to files: names, layouts, and what is said of a file that does not fit.
#include <samba/io/format/gguf.hpp>

#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

using Model = tiny::Samba;
using Tensors = std::vector<TensorView>;
using Names = std::set<std::string>;

template <class Model, class T>
std::vector<T> values(const TensorRef<T>& tensor) {
  std::vector<Real<T>> all(static_cast<std::size_t>(tensor.rows * tensor.row_size));
  for (std::int64_t r = 0; r < tensor.rows; ++r)
    tensor.get_row(r, all.data() + r * tensor.row_size);
  return all;
}

/// True if two weights hold the same bits, derived tensors included (seen through the logits).
template <class Model, class T>
bool same_weights(const Weights<Model, T>& a, const Weights<Model, T>& b) {
  const auto x = a.tensors(), y = b.tensors();
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!same_bits(values<Model, T>(x[i]), values<Model, T>(y[i]))) return false;
  Session one(a), other(b);
  one.step(1);
  other.step(1);
  return same_bits(one.step(2), other.step(2));
}

Names names_in(const std::string& path) {
  Names names;
  for (const auto& name : names_of(Checkpoint::open(path))) names.insert(name);
  return names;
}

/// Tensors of a file that a test changes; they own their bytes and names.
struct Contents {
  std::map<std::string, std::vector<std::byte>, std::less<>> bytes;
  Tensors tensors;

  explicit Contents(const std::string& path) {
    const auto file = SafetensorsFile::open(path);
    for (const TensorView& t : file.tensors()) add(std::string(t.name), t.dtype, t.shape, t.data);
  }
  void add(const std::string& name, Dtype dtype, const Shape& shape,
           std::span<const std::byte> data) {
    const auto at = bytes.insert_or_assign(name, std::vector(data.begin(), data.end())).first;
    tensors.push_back({at->first, dtype, shape, at->second});
  }
  TensorView& operator[](const std::string& name) {
    for (TensorView& t : tensors)
      if (t.name == name) return t;
    throw Error("no tensor " + name);
  }
  void erase(const std::string& name) {
    std::erase_if(tensors, [&](const TensorView& t) { return t.name == name; });
  }
  template <class R>
  void set(const std::string& name, Dtype dtype, const Shape& shape, const std::vector<R>& data) {
    erase(name);
    add(name, dtype, shape, std::as_bytes(std::span(data)));
  }
  void write(const std::string& path) const { write_safetensors(path, tensors); }
};

template <class M>
void check_public_names() {
  const TempDir folder;
  const std::string golden_file = golden::path<M>("model.safetensors");
  Names expected = names_in(golden_file);
  if (M::tie_embeddings) expected.erase("lm_head.weight");
  const auto weights = load<M>(golden_file);
  save(weights, folder.file("saved.safetensors"));
  CHECK(names_in(folder.file("saved.safetensors")) == expected);
  CHECK(same_weights(load<M>(folder.file("saved.safetensors")), weights));
}

/// Saves a golden case in its file's format: the same tensors with the same bytes, in F32.
template <class M>
void check_same_file() {
  CAPTURE(M::folder);
  const TempDir folder;
  const std::string golden_file = golden::path<M>("model.safetensors"),
                    path = folder.file("saved.safetensors");
  const auto weights = load<M>(golden_file);
  save(weights, path, SaveOptions{.names = checkpoint_format(golden_file)});
  const auto expected = SafetensorsFile::open(golden_file), found = SafetensorsFile::open(path);
  std::size_t compared = 0;
  for (const TensorView& tensor : expected.tensors()) {
    CAPTURE(tensor.name);
    if (M::tie_embeddings && tensor.name == "lm_head.weight") continue;
    const TensorView* const same = found.find(tensor.name);
    REQUIRE(same != nullptr);
    CHECK(tensor.dtype == Dtype::f32);
    CHECK(detail::same_numbers(*same, tensor));
    ++compared;
  }
  CHECK(found.tensors().size() == compared);
  CHECK(same_bits(load<M>(path).memory(), weights.memory()));
}

/// What is said of a model that a format does not fit, after its structure.
template <class M>
std::string misfit(const CheckpointFormat& format) {
  const TempDir folder;
  const std::string path = folder.file("model.safetensors");
  const Weights<M> weights;
  const SaveOptions options{.names = format};
  const std::string message = message_of([&] { save(weights, path, options); });
  CHECK(message == message_of([&] { check_save(weights, path, options); }));
  CHECK_FALSE(path_exists(path));
  const std::string begin = path + ": save: the format " + std::string(format.name) +
                            " does not fit the model " + structure<M>() + ": ";
  CHECK(message.starts_with(begin));
  return message.substr((std::min)(begin.size(), message.size()));
}

}  // namespace

TEMPLATE_TEST_CASE("save: a file in its own format", "", golden::SambaTiny, golden::MambaTiny,
                   golden::Llama2, golden::Llama3, golden::Llama31, golden::Mistral, golden::Phi3,
                   golden::Gemma, golden::Gemma2, golden::Gemma3, golden::Gemma3Linear,
                   golden::Qwen3, golden::RecurrentGemma) {
  check_same_file<TestType>();
}

TEST_CASE("save: formats are found by file and by name") {
  const auto format_of = [](const std::string& path) { return checkpoint_format(path).name; };
  CHECK(format_of(golden::path<golden::SambaTiny>("model.safetensors")) == "samba");
  CHECK(format_of(golden::path<golden::MambaTiny>("")) == "mamba");
  CHECK(format_of(golden::path<golden::Qwen3>("")) == "llama");
  CHECK(format_of(golden::path<golden::Gemma3>("")) == "gemma2");
  CHECK(format_of(golden::path<golden::Phi3>("")) == "phi3");
  CHECK(format_of(golden::path<golden::RecurrentGemma>("")) == "recurrent_gemma");
  CHECK(&format_by_name("--names", "phi3") == &formats::phi3);
  CHECK(
      message_of([] { format_by_name("--names", "gpt2"); }) ==
      "--names: expected one of original_mamba, mamba, fla, phi3, recurrent_gemma, gemma2, llama, "
      "samba, found \"gpt2\"");
}

TEMPLATE_TEST_CASE("save: every option of layers in other formats, and in bf16", "", float,
                   double) {
  using Heads = Attention<AttentionOptions{.n_heads = 6, .n_kv_heads = 2, .bias = true}>;
  using Mlp = SwiGLU<36, 50, MlpOptions{.bias = true}>;
  struct Biased : LanguageModel<Repeat<2, HybridStack<Heads, Mlp>>, golden::untied(31)> {};
  const TempDir folder;
  const std::string path = folder.file("model.safetensors");
  const auto weights = random_weights<Biased, TestType>(11);
  for (const CheckpointFormat& format : {formats::llama, formats::phi3, formats::fla}) {
    CAPTURE(format.name);
    save(weights, path, SaveOptions{.dtype = dtype_of<TestType>, .names = format});
    CHECK(checkpoint_format(path).name == format.name);
    CHECK(same_bits(load<Biased, TestType>(path).memory(), weights.memory()));
    save(weights, path, SaveOptions{.dtype = Dtype::bf16, .names = format});
    const auto file = SafetensorsFile::open(path);
    for (const TensorView& t : file.tensors())
      CHECK(t.dtype == (t.shape.size() == 2 ? Dtype::bf16 : Dtype::f32));
    const auto rounded = load<Biased, TestType>(path);
    save(weights, path, Dtype::bf16);
    CHECK(same_bits(load<Biased, TestType>(path).memory(), rounded.memory()));
  }
  // Recurrences and Mamba keep their own tensors' names.
  const auto samba = random_weights<tiny::Samba, TestType>(12);
  save(samba, path, SaveOptions{.dtype = dtype_of<TestType>, .names = formats::fla});
  CHECK(names_in(path).contains("backbone.layers.2.mixer.dt_proj.bias"));
  CHECK(same_bits(load<tiny::Samba, TestType>(path).memory(), samba.memory()));
}

TEST_CASE("save: a format that does not fit the model") {
  CHECK(misfit<tiny::Samba>(formats::llama)
            .starts_with(
                "branch 0: expected swa or attention with a norm before it and weights of its "
                "own, found mamba(d_state=16"));
  CHECK(misfit<tiny::Llama>(formats::mamba).starts_with("branch 0: expected mamba with a norm"));
  CHECK(misfit<tiny::Llama>(formats::gemma2)
            .starts_with("branch 0: expected swa or attention with norms before and after it and"));
  CHECK(misfit<golden::Gemma2>(formats::llama).find("found sandwich(plus_one=true, ") !=
        std::string::npos);
  CHECK(misfit<tiny::MambaSwaMlp>(formats::fla)
            .starts_with(
                "branch 1: expected mlp with a norm before it and weights of its own, found swa("));
  struct Half
      : LanguageModel<HybridStack<SWA<8, golden::heads_4_2>, SwiGLU<16>, SWA<8, golden::heads_4_2>>,
                      golden::tied(20)> {};
  CHECK(misfit<Half>(formats::llama) == "expected a multiple of 2 branches, found 3");
  struct Sharing
      : LanguageModel<Repeat<2, HybridStack<SWA<8, golden::heads_4_2>, Shared<SwiGLU<16>>>>,
                      golden::tied(20)> {};
  CHECK(misfit<Sharing>(formats::llama)
            .starts_with(
                "branch 1: expected mlp with a norm before it and weights of its own, found mlp("));
  CHECK(misfit<Sharing>(formats::llama).ends_with(" with shared weights"));
  struct Bare : LanguageModel<HybridStack<NoNorm<SWA<8, golden::heads_4_2>>, SwiGLU<16>>,
                              golden::tied(20)> {};
  CHECK(misfit<Bare>(formats::llama).find("found no_norm:swa(") != std::string::npos);
  struct Sinks : LanguageModel<
                     HybridStack<SWA<8, AttentionOptions{.n_heads = 2, .sinks = true}>, SwiGLU<16>>,
                     golden::tied(20)> {};
  CHECK(misfit<Sinks>(formats::llama).starts_with("branch 0, swa("));
  CHECK(misfit<Sinks>(formats::llama).ends_with("): there is no name for its tensor sinks"));
  CHECK(misfit<golden::Qwen3>(formats::phi3)
            .ends_with("): there is no name for its tensor q_norm.weight"));
  using Layered = Norm<NormOptions{.kind = NormKind::layer, .bias = true}>;
  struct Biased
      : LanguageModel<
            HybridStack<DModel<16>, Norms<Layered>, SWA<8, golden::heads_4_2>, SwiGLU<16>>,
            golden::tied(20)> {};
  CHECK(misfit<Biased>(formats::llama).ends_with("): there is no name for its tensor norm.bias"));
  struct Last : LanguageModel<HybridStack<SWA<8, golden::heads_4_2>, SwiGLU<16>>,
                              ModelOptions{.vocab_size = 20,
                                           .final_norm = NormOptions{.kind = NormKind::layer,
                                                                     .bias = true}}> {};
  CHECK(misfit<Last>(formats::llama) == "the model: there is no name for its tensor norm_bias");

  const TempDir folder;
  const std::string path = folder.file("model.safetensors");
  CHECK(message_of([&] {
          save(Weights<golden::Llama3>(), path, SaveOptions{.names = formats::gguf_llama});
        }) == path + ": save: the format gguf_llama is of GGUF files, which are not written");
  CHECK_FALSE(path_exists(path));
}

TEMPLATE_TEST_CASE("names of the public code, and a round trip", "", golden::SambaTiny,
                   golden::SambaOdd, golden::SambaBias, golden::MambaSwaMlp, golden::MambaMlp,
                   golden::SwaMlp, golden::MambaOnly) {
  check_public_names<TestType>();
}

TEST_CASE("names of any other schedule") {
  const TempDir folder;
  const auto names_of = [&](auto tag) {
    save(Weights<typename decltype(tag)::type>(), folder.file("names"));
    return names_in(folder.file("names"));
  };
  const std::string h = "transformer.h.";
  Names mixed{"transformer.wte.weight", "transformer.ln_f.weight"};
  for (const std::string block : {"0", "2"}) {
    mixed.insert({h + block + ".norm.weight", h + block + ".parallel.1.swa.attn.weight",
                  h + block + ".parallel.1.swa.proj.weight"});
    for (const char* name : {"in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight",
                             "dt_proj.weight", "dt_proj.bias", "A_log", "D", "out_proj.weight"})
      mixed.insert(h + block + ".parallel.0.mamba." + name);
  }
  for (const std::string block : {"1", "3"}) {
    mixed.insert(h + block + ".norm.weight");
    for (const char* name : {"w1", "w2", "w3"})
      mixed.insert(h + block + ".mlp.swiglu." + name + ".weight");
  }
  CHECK(names_of(std::type_identity<tiny::Mixed>{}) == mixed);

  // Attention alone; shared blocks under their first use; a branch without norm. Each breaks a
  // public schedule.
  CHECK(names_of(std::type_identity<tiny::AttentionOnly>{}) ==
        Names{"transformer.wte.weight", "transformer.ln_f.weight", "lm_head.weight",
              h + "0.norm.weight", h + "0.attention.attn.weight", h + "0.attention.proj.weight",
              h + "1.norm.weight", h + "1.attention.attn.weight", h + "1.attention.proj.weight"});
  using A = SWA<8, AttentionOptions{.n_heads = 2}>;
  using S = SwiGLU<16>;
  struct Sharing : LanguageModel<Repeat<2, HybridStack<Shared<A>, S>>, golden::tied(20)> {};
  struct Bare : LanguageModel<HybridStack<A, NoNorm<S>>, golden::tied(20)> {};
  const auto mlp = [&](const std::string& block) {
    return Names{h + block + ".mlp.swiglu.w1.weight", h + block + ".mlp.swiglu.w2.weight",
                 h + block + ".mlp.swiglu.w3.weight"};
  };
  Names sharing{"transformer.wte.weight", "transformer.ln_f.weight", h + "0.norm.weight",
                h + "0.swa.attn.weight",  h + "0.swa.proj.weight",   h + "1.norm.weight",
                h + "3.norm.weight"};
  sharing.merge(mlp("1"));
  sharing.merge(mlp("3"));
  CHECK(names_of(std::type_identity<Sharing>{}) == sharing);
  Names bare{"transformer.wte.weight", "transformer.ln_f.weight", h + "0.norm.weight",
             h + "0.swa.attn.weight", h + "0.swa.proj.weight"};
  bare.merge(mlp("1"));
  CHECK(names_of(std::type_identity<Bare>{}) == bare);
}

TEMPLATE_TEST_CASE("save and load keep every bit", "", tiny::Samba, tiny::MambaOnly,
                   tiny::AttentionOnly, tiny::Mixed, tiny::Odd, tiny::Optioned) {
  const TempDir folder;
  const auto weights = random_weights<TestType>(1);
  save(weights, folder.file("model.safetensors"));
  CHECK(same_weights(load<TestType>(folder.file("model.safetensors")), weights));
  CHECK(same_weights(load<TestType>(folder.path()), weights));  // the folder
  // In double the numbers are those of the file.
  const auto exact = load<TestType, double>(folder.path());
  const auto a = weights.tensors();
  const auto b = exact.tensors();
  for (std::size_t i = 0; i < a.size(); ++i)
    CHECK(values<TestType, double>(b[i]) == convert<double>(values<TestType, float>(a[i])));
  save(exact, folder.file("from_double"));
  CHECK(same_weights(load<TestType>(folder.file("from_double")), weights));
  const auto wide = random_weights<TestType, double>(2);
  save(wide, folder.file("wide"), Dtype::f64);
  const auto again = load<TestType, double>(folder.file("wide"));
  CHECK(same_bits(wide.memory(), again.memory()));
  CHECK_MESSAGE_OF(save(weights, folder.file("wide"), Dtype::f64), "F32 or BF16, found F64");
}

TEST_CASE("bf16: matrices are rounded, the rest is kept") {
  const TempDir folder;
  const std::string path = folder.file("half.safetensors");
  const auto weights = random_weights<tiny::Odd>(2);
  save(weights, path, Dtype::bf16);
  const auto file = SafetensorsFile::open(path);
  const Names kept{"norm", "conv1d", "A_log", ".D", "bias", "ln_f"};
  for (const TensorView& t : file.tensors()) {
    bool exact = false;
    for (const std::string& part : kept) exact = exact || t.name.find(part) != t.name.npos;
    CAPTURE(t.name);
    CHECK(t.dtype == (exact ? Dtype::f32 : Dtype::bf16));
  }
  const auto loaded = load<tiny::Odd>(path);
  const auto a = weights.tensors(), b = loaded.tensors();
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(a[i].name, a[i].branch);
    auto expected = values<tiny::Odd, float>(a[i]);
    const bool matrix = a[i].shape.size() == 2 && a[i].name != "A_log";
    if (matrix)
      for (float& x : expected) x = bf16(x);
    CHECK(same_bits(values<tiny::Odd, float>(b[i]), expected));
  }
  save(loaded, folder.file("again"), Dtype::bf16);
  CHECK(read_file(folder.file("again")) == read_file(path));
  CHECK_MESSAGE_OF(save(weights, path, Dtype::f16), "half.safetensors", "F32 or BF16", "F16");
  CHECK(same_weights(load<tiny::Odd>(path), loaded));  // what was there is still there
}

TEST_CASE("other dtypes of storage") {
  const TempDir folder;
  const std::string path = folder.file("model.safetensors"),
                    other = folder.file("other.safetensors");
  const auto weights = random_weights<Model>(3);
  save(weights, path);
  Contents contents(path);
  const std::string norm = "transformer.ln_f.weight",
                    matrix = "transformer.h.0.mlp.swiglu.w1.weight";
  contents.set(norm, Dtype::f16, {32}, std::vector<std::uint16_t>(32, 0x3900));  // 0.625
  contents.set(matrix, Dtype::f64, {48, 32},
               convert<double>(read_tensor<float>(SafetensorsFile::open(path), matrix)));
  contents.write(other);
  const auto loaded = load<Model>(other);
  for (const auto& tensor : loaded.tensors()) {
    if (tensor.name == "norm")
      CHECK(values<Model, float>(tensor) == std::vector<float>(32, 0.625f));
    if (tensor.name == "swiglu.w1.weight" && tensor.branch == 1)
      CHECK(same_bits(values<Model, float>(tensor),
                      read_tensor<float>(SafetensorsFile::open(path), matrix)));
  }
  contents.set(norm, Dtype::i32, {32}, std::vector<std::int32_t>(32, 1));
  contents.write(other);
  CHECK_MESSAGE_OF(load<Model>(other), other, norm, "expected dtype F64, F32, F16 or BF16", "I32");
}

TEST_CASE("a tied head is stored once, twice, or only as head") {
  const TempDir folder;
  const std::string path = folder.file("model.safetensors"),
                    other = folder.file("other.safetensors");
  const auto weights = random_weights<Model>(4);
  save(weights, path);
  CHECK_FALSE(names_in(path).contains("lm_head.weight"));
  const auto embedding = read_tensor<float>(SafetensorsFile::open(path), "transformer.wte.weight");

  Contents contents(path);
  contents.set("lm_head.weight", Dtype::f32, {61, 32}, embedding);
  contents.write(other);
  CHECK(same_weights(load<Model>(other), weights));
  contents.erase("transformer.wte.weight");
  contents.write(other);
  CHECK(same_weights(load<Model>(other), weights));
  contents.erase("lm_head.weight");
  contents.write(other);
  CHECK_MESSAGE_OF(load<Model>(other), other, "missing (1)",
                   "transformer.wte.weight [61, 32] of the model");

  Contents different(path);
  auto head = embedding;
  head.back() += 1;
  different.set("lm_head.weight", Dtype::f32, {61, 32}, head);
  different.write(other);
  CHECK_MESSAGE_OF(load<Model>(other), other, "ties", "lm_head.weight", "transformer.wte.weight",
                   "differ");

  // A model with a head of its own needs both.
  const auto odd = random_weights<tiny::Odd>(4);
  save(odd, path);
  Contents untied(path);
  untied.erase("lm_head.weight");
  untied.write(other);
  CHECK_MESSAGE_OF(load<tiny::Odd>(other), other, "missing (1)", "lm_head.weight [33, 23]");
}

TEST_CASE("shards") {
  const TempDir folder;
  const auto weights = random_weights<Model>(5);
  const std::string whole = folder.file("whole");
  save(weights, whole);
  const Contents contents(whole);
  const auto half = static_cast<std::ptrdiff_t>(contents.tensors.size() / 2);
  const Tensors first(contents.tensors.begin(), contents.tensors.begin() + half),
      second(contents.tensors.begin() + half, contents.tensors.end());
  write_safetensors(folder.file("a.safetensors"), first);
  write_safetensors(folder.file("b.safetensors"), second);
  const std::string index = folder.file("model.safetensors.index.json");
  const auto write_index = [&](const Tensors& in_a, const Tensors& in_b) {
    std::string json = "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {";
    bool comma = false;
    for (const auto& [tensors, shard] : {std::pair{&in_a, "a"}, {&in_b, "b"}})
      for (const TensorView& t : *tensors)
        json += std::string(std::exchange(comma, true) ? ", " : "") + "\"" + std::string(t.name) +
                "\": \"" + shard + ".safetensors\"";
    write_file(index, json + "}}");
  };
  write_index(first, second);
  CHECK(same_weights(load<Model>(index), weights));
  CHECK(same_weights(load<Model>(folder.path()), weights));
  write_index(second, first);
  CHECK_MESSAGE_OF(load<Model>(index), "index.json", "is not in shard");
  write_index(first, {});
  CHECK_MESSAGE_OF(load<Model>(index), "missing");
}

TEST_CASE("load: what has been read of a file does not stay in memory") {
  // All that is read is dropped, a megabyte at a time and nothing that is being read.
  struct Recorder {
    mutable std::vector<std::span<const std::byte>> dropped;
    void drop(std::span<const std::byte> part) const { dropped.push_back(part); }
  } recorder;
  const std::vector<std::byte> memory(5 << 20);
  const std::span all(memory);
  constexpr std::size_t row = 300'000;
  {
    detail::DropBehind behind(recorder);
    for (std::size_t i = 0; i < 8; ++i) behind.add(all.subspan(i * row, row));
    behind.add(all.subspan(4'000'000, 100));  // another tensor; then rows before that
    behind.add(all.subspan(3'999'000, 100));
    behind.add(all.subspan(4'000'500, 100));
    CHECK(recorder.dropped.size() == 3);
  }
  const std::pair<std::size_t, std::size_t> expected[] = {
      {0, 3 * row}, {3 * row, 3 * row}, {6 * row, 2 * row}, {3'999'000, 1600}};
  REQUIRE(recorder.dropped.size() == std::size(expected));
  for (std::size_t i = 0; i < std::size(expected); ++i) {
    CHECK(recorder.dropped[i].data() == all.data() + expected[i].first);
    CHECK(recorder.dropped[i].size() == expected[i].second);
  }

  // In two shards, with the tied matrix twice.
  using Large = LanguageModel<HybridStack<SwiGLU<64, 512>>, golden::tied(4096)>;
  const TempDir folder;
  const auto weights = random_weights<Large>(6);
  save(weights, folder.file("whole"));
  Contents contents(folder.file("whole"));
  write_safetensors(folder.file("a.safetensors"), contents.tensors);
  TensorView head = contents["transformer.wte.weight"];
  head.name = "lm_head.weight";
  write_safetensors(folder.file("b.safetensors"), Tensors{head});
  std::string json = "{\"weight_map\": {\"lm_head.weight\": \"b.safetensors\"";
  for (const TensorView& tensor : contents.tensors)
    json += ", \"" + std::string(tensor.name) + "\": \"a.safetensors\"";
  write_file(folder.file("model.safetensors.index.json"), json + "}}");

  const Checkpoint file = Checkpoint::open(folder.path());
  Weights<Large> found;
  detail::load_tensors(file, detail::format_of(file), structure<Large>(), branches<Large>(), true,
                       found.tensors());
  CHECK(part_in_memory(file) < 0.2);  // pages around those that were read
  found.derive();
  CHECK(same_bits(found.memory(), weights.memory()));
}

TEST_CASE("fla's names: q, k and v apart, grouped here by key/value head") {
  // 4 query heads of 8 on 2 key/value heads, in pairs of mixer and MLP.
  const TempDir folder;
  const auto weights = random_weights<Model>(6);
  const std::string path = folder.file("model.safetensors"), fla = folder.file("fla.safetensors");
  save(weights, path);
  const auto file = SafetensorsFile::open(path);
  Contents contents(path);
  contents.tensors.clear();
  const auto put = [&](const std::string& from, const std::string& to) {
    contents.set(to, Dtype::f32, file.find(from)->shape, read_tensor<float>(file, from));
  };
  put("transformer.wte.weight", "backbone.embeddings.weight");
  put("transformer.ln_f.weight", "backbone.norm_f.weight");
  for (int i = 0; i < 4; ++i) {
    const std::string ours = "transformer.h." + std::to_string(i) + ".",
                      theirs = "backbone.layers." + std::to_string(i) + ".";
    put(ours + "norm_1.weight", theirs + "mixer_norm.weight");
    put(ours + "norm_2.weight", theirs + "mlp_norm.weight");
    put(ours + "mlp.swiglu.w1.weight", theirs + "mlp.gate_proj.weight");
    put(ours + "mlp.swiglu.w2.weight", theirs + "mlp.up_proj.weight");
    put(ours + "mlp.swiglu.w3.weight", theirs + "mlp.down_proj.weight");
    if (i % 2 == 0) {
      for (const char* name : {"in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight",
                               "dt_proj.weight", "dt_proj.bias", "A_log", "D", "out_proj.weight"})
        put(ours + "attn." + name, theirs + "mixer." + name);
      continue;
    }
    put(ours + "attn.proj.weight", theirs + "mixer.o_proj.weight");
    // Rows of 32 of the fused matrix, by heads of 8 rows: q0 q1 k0 v0 q2 q3 k1 v1.
    const auto fused = read_tensor<float>(file, ours + "attn.attn.weight");
    REQUIRE(fused.size() == 64 * 32);
    const auto heads = [&](std::initializer_list<int> from) {
      std::vector<float> rows;
      for (const int head : from)
        rows.insert(rows.end(), fused.begin() + head * 8 * 32, fused.begin() + (head + 1) * 8 * 32);
      return rows;
    };
    contents.set(theirs + "mixer.q_proj.weight", Dtype::f32, {32, 32}, heads({0, 1, 4, 5}));
    contents.set(theirs + "mixer.k_proj.weight", Dtype::f32, {16, 32}, heads({2, 6}));
    contents.set(theirs + "mixer.v_proj.weight", Dtype::f32, {16, 32}, heads({3, 7}));
  }
  contents.write(fla);
  CHECK(same_weights(load<Model>(fla), weights));
  contents.set("lm_head.weight", Dtype::f32, {61, 32},
               read_tensor<float>(file, "transformer.wte.weight"));
  contents.write(fla);
  CHECK(same_weights(load<Model>(fla), weights));

  contents["backbone.layers.1.mixer.k_proj.weight"].shape = {32, 16};
  contents.erase("backbone.layers.3.mixer.v_proj.weight");
  contents.write(fla);
  CHECK_MESSAGE_OF(load<Model>(fla), fla, "missing (1)",
                   "backbone.layers.3.mixer.v_proj.weight [16, 32] of swa(", "wrong shape (1)",
                   "backbone.layers.1.mixer.k_proj.weight: expected [16, 32] by swa(",
                   "found [32, 16]");
}

TEST_CASE("a file that does not fit: everything in one message") {
  const TempDir folder;
  const std::string path = folder.file("model.safetensors"),
                    other = folder.file("other.safetensors");
  save(random_weights<Model>(7), path);
  Contents contents(path);
  contents.erase("transformer.h.0.attn.A_log");
  contents.erase("transformer.h.3.norm_2.weight");
  contents["transformer.h.1.attn.attn.weight"].shape = {32, 64};
  contents["transformer.ln_f.weight"].shape = {32, 1};
  contents.set("transformer.h.4.norm_1.weight", Dtype::f32, {32}, std::vector<float>(32));
  contents.write(other);
  CHECK_MESSAGE_OF(load<Model>(other), other, "does not fit", structure<Model>(), "missing (2)",
                   "transformer.h.0.attn.A_log [64, 16] of mamba(d_state=16",
                   "transformer.h.3.norm_2.weight [32] of mlp(d_ff=48", "unexpected (1)",
                   "transformer.h.4.norm_1.weight [32]", "wrong shape (2)",
                   "transformer.h.1.attn.attn.weight: expected [64, 32] by swa(n_heads=4",
                   "found [32, 64]",
                   "transformer.ln_f.weight: expected [32] by the model, found [32, 1]");

  // Another model's file: a list that ends.
  const std::string message = message_of([&] { load<tiny::MambaOnly>(path); });
  CAPTURE(message);
  CHECK(first_missing(message, {"missing (", "and ", " more", "unexpected (", "and ", " more"}) ==
        "");
  CHECK(std::count(message.begin(), message.end(), '\n') < 50);
}

TEST_CASE("files that are no checkpoints") {
  const TempDir folder;
  const std::string path = folder.file("model.safetensors"),
                    other = folder.file("other.safetensors");
  save(random_weights<Model>(8), path);
  const std::string bytes = read_file(path);
  for (const std::size_t length :
       {bytes.size() - 1, bytes.size() / 2, std::size_t{1000}, std::size_t{8}, std::size_t{0}}) {
    CAPTURE(length);
    write_file(other, bytes.substr(0, length));
    CHECK_MESSAGE_OF(load<Model>(other), other);
  }
  write_file(other, bytes.substr(0, bytes.size() / 2));
  CHECK_MESSAGE_OF(load<Model>(other), "end beyond the file's");
  CHECK_MESSAGE_OF(load<Model>(folder.file("absent.safetensors")), "absent.safetensors");
  const TempDir empty;
  CHECK_MESSAGE_OF(load<Model>(empty.path()), empty.path(), "model.safetensors", "index.json");
}

TEST_CASE("numbers that are not finite") {
  const TempDir folder;
  const std::string path = folder.file("model.safetensors"),
                    other = folder.file("other.safetensors");
  save(random_weights<Model>(9), path);
  const auto check = [&](const std::string& name, std::size_t element, std::uint32_t bits) {
    Contents contents(path);
    auto& bytes = contents.bytes.at(name);
    std::memcpy(bytes.data() + element * 4, &bits, 4);
    contents.write(other);
    CHECK_MESSAGE_OF(load<Model>(other), other, name, "element " + std::to_string(element),
                     "not finite");
  };
  check("transformer.h.0.attn.in_proj.weight", 1234, 0x7fc00000u);  // NaN
  check("transformer.h.1.attn.attn.weight", 0, 0x7f800000u);        // infinity
  check("transformer.h.2.attn.conv1d.weight", 64 * 4 - 1, 0xff800000u);
  check("transformer.h.3.norm_1.weight", 31, 0xffffffffu);
  check("transformer.wte.weight", 61 * 32 - 1, 0x7f800001u);

  // A half too, and a double too large for a float.
  Contents contents(path);
  std::vector<std::uint16_t> half(32, 0x3c00);
  half[5] = 0x7c00;
  contents.set("transformer.ln_f.weight", Dtype::f16, {32}, half);
  contents.write(other);
  CHECK_MESSAGE_OF(load<Model>(other), "transformer.ln_f.weight", "element 5", "not finite");
  std::vector<double> wide(32, 1);
  wide[31] = 1e300;
  contents.set("transformer.ln_f.weight", Dtype::f64, {32}, wide);
  contents.write(other);
  CHECK_MESSAGE_OF(load<Model>(other), "transformer.ln_f.weight", "element 31", "not finite");
}

TEST_CASE("load: the original Mamba's names") {
  using Original = golden::MambaTiny;
  const std::string path = golden::path<Original>("model.safetensors");
  std::string bytes = read_file(path);
  const std::string of_transformers = "\"backbone.embeddings.weight\":",
                    original = "\"backbone.embedding.weight\" :";
  const std::size_t at = bytes.find(of_transformers);
  REQUIRE(at != bytes.npos);
  bytes.replace(at, of_transformers.size(), original);
  const TempDir dir;
  write_file(dir.file("model.safetensors"), bytes);
  const auto weights = load<Original>(path);
  CHECK(same_bits(load<Original>(dir.file("model.safetensors")).memory(), weights.memory()));
  save(weights, dir.file("saved"), SaveOptions{.names = formats::original_mamba});
  CHECK(names_in(dir.file("saved")) == names_in(dir.file("model.safetensors")));
  CHECK(same_bits(load<Original>(dir.file("saved")).memory(), weights.memory()));
}
