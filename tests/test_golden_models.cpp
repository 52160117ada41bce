// The golden cases: whole models against float64 results of an independent implementation.
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

template <class Model, class T, class KV = Real<T>>
void check_case(double tolerance) {
  const golden::Expected<Model> expected;
  REQUIRE(expected.rows == 2);
  const auto weights = load<Model, T>(golden::path<Model>("model.safetensors"));

  for (const int chunk : {1, 7, 256}) {
    for (std::size_t row = 0; row < expected.rows; ++row) {
      CAPTURE(Model::folder, chunk, row);
      Session<Model, T, KV> session(weights, {.chunk = chunk});
      CHECK(relative_error(all_logits(session, expected.ids_of(row)), expected.logits_of(row)) <=
            tolerance);
    }

    // A batch gives the logits of a chunk's last tokens: read all tokens one by one, then all at
    // once.
    Batch<Model, T, KV> batch(weights, 2, {.chunk = chunk});
    std::vector<Real<T>> stepped(expected.logits.size());
    for (std::size_t i = 0; i < expected.seq_len; ++i) {
      const auto logits = batch.step(std::array{expected.ids_of(0)[i], expected.ids_of(1)[i]});
      for (std::size_t row = 0; row < 2; ++row)
        std::copy_n(logits.begin() + static_cast<std::ptrdiff_t>(row * Model::vocab_size),
                    Model::vocab_size,
                    stepped.begin() + static_cast<std::ptrdiff_t>((row * expected.seq_len + i) *
                                                                  Model::vocab_size));
    }
    CAPTURE(Model::folder, chunk);
    CHECK(relative_error(stepped, expected.logits) <= tolerance);

    batch.reset(0);
    batch.reset(1);
    batch.prefill(std::array{expected.ids_of(0), expected.ids_of(1)});
    for (int row = 0; row < 2; ++row)
      CHECK(relative_error(
                batch.logits(row),
                expected.logits_of(static_cast<std::size_t>(row)).last(Model::vocab_size)) <=
            tolerance);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("golden logits", "", golden::SambaTiny, golden::SambaOdd, golden::SambaBias,
                   golden::SambaNope, golden::SambaBf16Rope, golden::MambaSwaMlp, golden::MambaMlp,
                   golden::SwaMlp, golden::MambaOnly, golden::MambaTiny, golden::Llama2,
                   golden::Llama3, golden::Llama31, golden::Mistral, golden::Phi3, golden::Gemma,
                   golden::Gemma2, golden::Gemma3, golden::Gemma3Linear, golden::Qwen3,
                   golden::RecurrentGemma) {
  SECTION("float") { check_case<TestType, float>(2e-5); }
  SECTION("bf16") { check_case<TestType, bf16>(3e-2); }
  SECTION("bf16, keys and values too") { check_case<TestType, bf16, bf16>(3e-2); }
  SECTION("double, reference kernels") { check_case<TestType, double>(1e-10); }
}
