// The trained demo model against float64 results of an independent implementation, on real text.
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

std::string demo_path(const std::string& file) { return std::string(SAMBA_DEMO_MODEL "/") + file; }

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}

template <class T = float>
Weights<DemoModel, T> demo_weights() {
  return load<DemoModel, T>(demo_path("model.safetensors"));
}

const nlohmann::json& expected() {
  static const auto json = nlohmann::json::parse(read_text(demo_path("expected.json")));
  return json;
}

}  // namespace

TEST_CASE("demo: logits of the first 256 positions") {
  const auto weights = demo_weights();
  const auto file = SafetensorsFile::open(demo_path("expected_logits.safetensors"));
  const auto logits = read_tensor<double>(file, "logits");
  std::vector<std::int32_t> ids;
  for (const auto id : read_tensor<std::int64_t>(file, "input_ids"))
    ids.push_back(static_cast<std::int32_t>(id));
  REQUIRE(ids.size() == 256);
  REQUIRE(ids == ByteTokenizer{}.encode(read_text(demo_path("heldout.txt")).substr(0, 256)));

  Session session(weights);
  const auto found = all_logits(session, ids);
  CHECK(relative_error(found, logits) <= 2e-5);

  // The score of these bytes, which at -O0 stands in for that of the longer text below.
  session.reset();
  double nll = 0;
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto row = std::span(logits).subspan(i * 256, 256);
    double sum = 0;
    for (const double x : row) sum += std::exp(x);
    nll += std::log(sum) - row[static_cast<std::size_t>(ids[i + 1])];
  }
  const Score scored = score(session, ids);
  CHECK(scored.tokens == 255);
  CHECK(scored.nll == Approx(nll).epsilon(1e-5));
}

#ifdef __OPTIMIZE__
TEST_CASE("demo: bits per byte of held-out text") {
  const auto weights = demo_weights();
  const std::size_t bytes = expected().at("heldout_bytes");
  REQUIRE(bytes == 4096);
  Session session(weights);
  const auto ids = ByteTokenizer{}.encode(read_text(demo_path("heldout.txt")).substr(0, bytes));
  const Score scored = score(session, ids);
  CHECK(scored.bits_per_token() ==
        Approx(expected().at("bits_per_byte").get<double>()).margin(0.0005));
  CHECK(scored.nll == Approx(expected().at("nll_sum_nats").get<double>()).epsilon(1e-5));
}

TEMPLATE_TEST_CASE("demo: what matrices of fewer bits cost, in bits per byte", "",
                   (std::pair<bf16, float>), (std::pair<bf16, bf16>), (std::pair<int8, float>),
                   (std::pair<int8, bf16>), (std::pair<q4, float>), (std::pair<q4, bf16>)) {
  using T = typename TestType::first_type;
  constexpr double most = std::is_same_v<T, q4> ? 0.015 : std::is_same_v<T, int8> ? 0.003 : 0.0015;
  const auto weights = demo_weights<T>();
  Session<DemoModel, T, typename TestType::second_type> session(weights);
  const auto ids = ByteTokenizer{}.encode(read_text(demo_path("heldout.txt")).substr(0, 4096));
  const double more =
      score(session, ids).bits_per_token() / expected().at("bits_per_byte").get<double>() - 1;
  CAPTURE(sizeof(T), most, more);
  CHECK(more < most);
  CHECK(std::abs(more) > 1e-6);  // it did round
}
#endif

TEST_CASE("demo: greedy continuations") {
  const auto weights = demo_weights();
  REQUIRE(expected().at("greedy").size() == 3);
  for (const auto& [prompt, entry] : expected().at("greedy").items()) {
    std::string continuation = entry.at("continuation");
    CAPTURE(prompt);
    REQUIRE(continuation.size() > 90);
#ifndef __OPTIMIZE__
    continuation.resize(20);
#endif
    Session session(weights);
    Sampler greedy{{.temperature = 0}};
    auto logits = session.prefill(ByteTokenizer{}.encode(prompt));
    std::string text;
    while (text.size() < continuation.size()) {
      const auto token = greedy(logits);
      text += ByteTokenizer{}.decode(std::span(&token, 1));
      logits = session.step(token);
    }
    CHECK(text == continuation);
  }
}
