// Weights as they stand in memory, in a file.
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

using Model = tiny::Samba;

template <class T>
void check_round_trip() {
  const TempDir folder;
  const std::string path = folder.file("packed.safetensors");
  const auto weights = random_weights<Model, T>(3);
  save_packed(weights, path);
  auto mapped = load_packed<Model, T>(path);
  CHECK(same_bits(mapped.memory(), weights.memory()));

  Random rng;
  const auto tokens = random_tokens<Model>(rng, 40);
  Session session(weights), again(mapped);
  CHECK(same_bits(session.prefill(tokens), again.prefill(tokens)));

  // What changes in mapped weights does not change the file.
  std::vector<float> zeros(Model::d_model);
  mapped.tensors()[0].set_row(1, zeros.data());
  CHECK_FALSE(same_bits(mapped.memory(), weights.memory()));
  CHECK(same_bits(load_packed<Model, T>(path).memory(), weights.memory()));
}

}  // namespace

TEST_CASE("packed weights: what is mapped is what was saved") {
  check_round_trip<float>();
  check_round_trip<bf16>();
  check_round_trip<int8>();
  check_round_trip<q4>();
}

TEST_CASE("packed weights: the same file from a checkpoint and from loaded weights") {
  const TempDir folder;
  save(random_weights<Model>(4), folder.file("model.safetensors"));
  const auto weights = load<Model, int8>(folder.file("model.safetensors"));
  save_packed(weights, folder.file("a"));
  save_packed(load<Model, int8>(folder.path()), folder.file("b"));
  CHECK(read_file(folder.file("a")) == read_file(folder.file("b")));
}

TEST_CASE("packed weights: what does not fit is named") {
  const TempDir folder;
  const std::string path = folder.file("packed.safetensors");
  save_packed(random_weights<Model, int8>(3), path);
  CHECK_MESSAGE_OF((load_packed<tiny::Odd, int8>(path)), path, "a different model",
                   "expected vocab_size=33", "found vocab_size=61");
  CHECK_MESSAGE_OF((load_packed<Model, bf16>(path)), path, "a different type", "expected bf16",
                   "found int8 in groups of 32");
  CHECK_MESSAGE_OF((load_packed<Model, q4>(path)), path, "a different type",
                   "expected q4 in groups of 32, head in int8 in groups of 32", "found int8");
  CHECK_MESSAGE_OF((load<Model>(path)), path, "packed weights", "load_packed");

  const std::string checkpoint = folder.file("model.safetensors");
  save(random_weights<Model>(3), checkpoint);
  CHECK_MESSAGE_OF((load_packed<Model>(checkpoint)), checkpoint, "not a file of packed weights");

  const auto rewrite = [&](const std::string& key, const std::string& value, Shape shape) {
    const auto file = SafetensorsFile::open(path);
    auto metadata = file.metadata();
    metadata["samba." + key] = value;
    auto tensor = file.tensors()[0];
    tensor.shape = shape;
    tensor.data = tensor.data.first(static_cast<std::size_t>(shape[0]));
    write_safetensors(folder.file("bad"), {&tensor, 1}, metadata);
    return folder.file("bad");
  };
  const auto bytes = SafetensorsFile::open(path).tensors()[0].size();
  CHECK_MESSAGE_OF((load_packed<Model, int8>(rewrite("type", "int8 in groups of 64", {bytes}))),
                   "expected int8 in groups of 32", "found int8 in groups of 64");
  CHECK_MESSAGE_OF((load_packed<Model, int8>(rewrite("panel_width", "16", {bytes}))),
                   "a different panel width", "expected 32", "found 16");
  CHECK_MESSAGE_OF((load_packed<Model, int8>(rewrite("packed", "2", {bytes}))), "layout version",
                   "expected 1", "found 2");
  CHECK_MESSAGE_OF((load_packed<Model, int8>(rewrite("packed", "1", {bytes - 64}))),
                   "expected one tensor samba.packed, U8", "found U8");
  std::string file = read_file(path);
  file.resize(file.size() / 2);
  write_file(folder.file("cut"), file);
  CHECK_MESSAGE_OF((load_packed<Model, int8>(folder.file("cut"))), "cut", "end beyond the file's");
}
