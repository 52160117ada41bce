// A sequence's state as a file.
#include <fstream>
#include <iterator>
#include <map>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

using Model = tiny::Samba;
using Full = tiny::AttentionOnly;
using Metadata = std::map<std::string, std::string>;

/// Writes a changed copy of a safetensors file: change(metadata, tensors).
template <class F>
void rewrite(const std::string& from, const std::string& to, F change) {
  const auto file = SafetensorsFile::open(from);
  Metadata metadata = file.metadata();
  std::vector<TensorView> tensors = file.tensors();
  change(metadata, tensors);
  write_safetensors(to, tensors, metadata);
}

/// Loading the file fails with these parts in the message, and the session goes on as if nothing
/// had been.
template <class S>
void check_rejected(S& session, const std::string& path, std::initializer_list<std::string> parts) {
  S untouched = session;
  const std::string message = message_of([&] { session.load(path); });
  CAPTURE(message);
  CHECK_FALSE(message.empty());
  CHECK(message.starts_with(path));
  CHECK(first_missing(message, parts) == "");
  CHECK(same_state(session.snapshot(), untouched.snapshot()));
  S after = session;
  CHECK(same_bits(after.step(1), untouched.step(1)));
}

template <class Model, class T, class KV>
struct Case {};

template <class Model, class T, class KV>
void check_round_trip(Case<Model, T, KV>) {
  Random rng;
  CAPTURE(rng.seed);
  const TempDir folder;
  const std::string path = folder.file("state.safetensors");
  const auto weights = random_weights<Model, T>(1);
  Session<Model, T, KV> session(weights);
  session.prefill(random_tokens<Model>(rng, 61));
  session.save(path);
  const Snapshot snapshot = session.snapshot();
  const auto next = random_tokens<Model>(rng, 25);
  const auto expected = all_logits(session, next);

  Session<Model, T, KV> other(weights, {.threads = 2, .chunk = 3});
  other.prefill(next);
  other.load(path);
  CHECK(other.position() == 61);
  CHECK(same_state(other.snapshot(), snapshot));
  CHECK(same_logits<KV>(all_logits(other, next), expected));
  Batch<Model, T, KV> batch(weights, 2);
  other.load(path);
  batch.restore(1, other.snapshot());
  CHECK(same_logits<KV>(batch.prefill(1, next), row_of<Model>(expected, 24)));

  other.load(path);
  other.save(folder.file("again.safetensors"));
  CHECK(read_file(folder.file("again.safetensors")) == read_file(path));

  // Over an existing file, and an empty sequence.
  other.reset();
  other.save(path);
  session.load(path);
  CHECK(session.position() == 0);
  CHECK(same_logits<KV>(all_logits(session, next), all_logits(other, next)));
}

}  // namespace

TEMPLATE_TEST_CASE("a saved state continues with the same bits", "", (Case<Model, float, float>),
                   (Case<Model, float, bf16>), (Case<Full, float, float>),
                   (Case<tiny::Mixed, float, float>), (Case<tiny::Odd, double, double>)) {
  check_round_trip(TestType{});
}

TEST_CASE("the file holds what it is documented to hold") {
  const TempDir folder;
  const std::string path = folder.file("state.safetensors");
  const auto shapes = [&] {
    std::map<std::string, std::pair<std::string, Shape>> all;
    const auto file = SafetensorsFile::open(path);
    for (const TensorView& t : file.tensors())
      all[std::string(t.name)] = {dtype_name(t.dtype), t.shape};
    return all;
  };
  using Shapes = decltype(shapes());

  const auto weights = random_weights<Model>(2);
  Session<Model, float, bf16> session(weights);
  session.prefill(std::vector<std::int32_t>{1, 2, 3});
  session.save(path);
  // Branches 0 and 4 are Mamba (d_inner 64), 2 and 6 attention (2 heads of 8, window 24).
  Shapes expected;
  for (const char* branch : {"0.", "4."}) {
    expected[std::string(branch) + "conv"] = {"F32", {3, 64}};
    expected[std::string(branch) + "ssm"] = {"F32", {16, 64}};
  }
  for (const char* branch : {"2.", "6."})
    for (const char* name : {"k", "v"}) expected[std::string(branch) + name] = {"BF16", {2, 24, 8}};
  CHECK(shapes() == expected);
  {
    const auto file = SafetensorsFile::open(path);
    auto metadata = file.metadata();
    CHECK(metadata["samba.structure"] == structure<Model>());
    CHECK(metadata["samba.hash"] == std::to_string(fnv1a(structure<Model>())));
    CHECK(metadata["samba.position"] == "3");
    CHECK(metadata["samba.state"] == "1");
    CHECK(metadata["samba.dtypes"].find("BF16") != std::string::npos);
    // Rings by slot: of each head three positions are filled, the rest is zero.
    const auto k = read_tensor<float>(file, "2.k");
    for (std::size_t i = 0; i < k.size(); ++i)
      CHECK((std::abs(k[i]) > 0) == (i % (24 * 8) < 3 * 8));
  }

  // Full attention: as many slots as the session has capacity. Position 24 of a window of 24 is in
  // slot 0.
  const auto full_weights = random_weights<Full>(2);
  Session full(full_weights, {.capacity = 9});
  full.save(path);
  CHECK(shapes() == Shapes{{"0.k", {"F32", {1, 9, 12}}},
                           {"0.v", {"F32", {1, 9, 12}}},
                           {"1.k", {"F32", {6, 9, 6}}},
                           {"1.v", {"F32", {6, 9, 6}}}});
  CHECK(SafetensorsFile::open(path).metadata().at("samba.capacity") == "9");

  Session windowed(weights);
  windowed.prefill(std::vector<std::int32_t>(24, 5));
  windowed.save(path);
  const auto before = read_tensor<float>(SafetensorsFile::open(path), "2.k");
  windowed.step(6);
  windowed.save(path);
  const auto after = read_tensor<float>(SafetensorsFile::open(path), "2.k");
  for (std::size_t i = 0; i < before.size(); i += 8) {  // rows of 2 heads, 24 slots
    CAPTURE(i);
    CHECK(same_bits(std::span(before).subspan(i, 8), std::span(after).subspan(i, 8)) ==
          (i % (24 * 8) > 0));
  }

  // Parallel layers: <branch>.<number>.<layer>.<tensor>.
  const auto mixed = random_weights<tiny::Mixed>(2);
  Session(mixed).save(path);
  CHECK(shapes().at("2.1.swa.k") == std::pair<std::string, Shape>{"F32", {2, 10, 16}});
  CHECK(shapes().at("0.0.mamba.ssm").second == Shape{16, 64});
}

TEST_CASE("FNV-1a is what its authors published") {
  CHECK(fnv1a("") == 0xcbf29ce484222325u);
  CHECK(fnv1a("a") == 0xaf63dc4c8601ec8cu);
  CHECK(fnv1a("foobar") == 0x85944171f73967e8u);
}

TEST_CASE("a state of another model, of other types or capacity") {
  const TempDir folder;
  const std::string path = folder.file("other.safetensors");
  const auto weights = random_weights<Full>(3);
  Session session(weights, {.capacity = 30});
  session.prefill(std::vector<std::int32_t>{1, 2, 3});

  const auto samba = random_weights<Model>(3);
  Session(samba).save(path);
  check_rejected(session, path, {"another model", structure<Full>(), structure<Model>()});
  Session<Full, float, bf16>(weights, {.capacity = 30}).save(path);
  check_rejected(session, path, {"other types", "F32", "F32", "F32", "BF16"});
  Session(weights, {.capacity = 31}).save(path);
  check_rejected(session, path, {"a different capacity", "30", "31"});
  const auto exact = random_weights<Full, double>(3);
  Session(exact, {.capacity = 30}).save(path);
  check_rejected(session, path, {"other types", "F32", "F64"});
  save(weights, path);  // a checkpoint
  check_rejected(session, path, {"not a state file", "samba."});
  check_rejected(session, folder.file("absent"), {"absent"});
}

TEST_CASE("a damaged state file") {
  const TempDir folder;
  const std::string good = folder.file("good.safetensors"), bad = folder.file("bad.safetensors");
  const auto weights = random_weights<Full>(4);
  Session session(weights, {.capacity = 30});
  session.prefill(std::vector<std::int32_t>{1, 2, 3});
  session.save(good);
  session.prefill(std::vector<std::int32_t>{4, 5, 6, 7});

  const auto with = [&](const std::string& key, const std::string& value) {
    rewrite(good, bad, [&](Metadata& metadata, auto&) { metadata.at("samba." + key) = value; });
  };
  with("state", "2");
  check_rejected(session, bad, {"version", "expected 1", "found 2"});
  with("hash", "17");
  check_rejected(session, bad, {"samba.hash", "samba.structure"});
  with("structure", structure<Full>() + " ");
  check_rejected(session, bad, {"samba.hash", "samba.structure"});
  for (const char* position : {"31", "-1", "9223372036854775807"}) {
    with("position", position);
    check_rejected(session, bad, {"position", position});
  }
  for (const char* position : {"", "3x", "3.0", " 3", "9223372036854775808"}) {
    with("position", position);
    check_rejected(session, bad,
                   {"samba.position", "expected an integer", std::string("\"") + position + "\""});
  }
  with("capacity", "many");
  check_rejected(session, bad, {"samba.capacity", "expected an integer", "many"});
  for (const char* key : {"state", "structure", "hash", "dtypes", "capacity", "position"}) {
    rewrite(good, bad,
            [&](Metadata& metadata, auto&) { metadata.erase(std::string("samba.") + key); });
    check_rejected(session, bad, {"not a state file", std::string("samba.") + key});
  }

  using Tensors = std::vector<TensorView>;
  rewrite(good, bad, [](Metadata&, Tensors& tensors) { tensors.erase(tensors.begin() + 2); });
  check_rejected(session, bad, {"1.k", "missing", "F32 [6, 30, 6]"});
  rewrite(good, bad, [](Metadata&, Tensors& tensors) { tensors[2].shape = {6, 6, 30}; });
  check_rejected(session, bad, {"1.k", "expected F32 [6, 30, 6]", "found F32 [6, 6, 30]"});
  rewrite(good, bad, [](Metadata&, Tensors& tensors) { tensors[2].dtype = Dtype::i32; });
  check_rejected(session, bad, {"1.k", "expected F32 [6, 30, 6]", "found I32 [6, 30, 6]"});
  rewrite(good, bad, [](Metadata&, Tensors& tensors) {
    tensors.push_back(tensors[0]);
    tensors.back().name = "9.k";
  });
  check_rejected(session, bad, {"expected 4 tensors", "found 5"});

  const std::string bytes = read_file(good);
  for (const std::size_t length :
       {bytes.size() - 1, bytes.size() / 2, std::size_t{100}, std::size_t{7}, std::size_t{0}}) {
    CAPTURE(length);
    write_file(bad, bytes.substr(0, length));
    check_rejected(session, bad, {});
  }
  session.load(good);
  CHECK(session.position() == 3);
}

TEST_CASE("a state that cannot be written leaves no file") {
  const auto weights = random_weights<Full>(5);
  Session session(weights);
  const TempDir folder;
  const std::string path = folder.file("no/such/folder/state");
  CHECK_MESSAGE_OF(session.save(path), path);
  CHECK_MESSAGE_OF(session.save(folder.path()), folder.path());
  CHECK(std::filesystem::is_empty(folder.path()));
}
