// The library samba::compiled: every instruction set of this processor against the golden logits.
// (That its bits are those of a program compiled for the set: tests/compiled.)
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

/// The sets that the library holds; those that the processor lacks are refused.
std::vector<std::string> present_sets() {
  std::vector<std::string> sets;
  for (const char* name : {"sse2", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "neon"}) try {
      use_instruction_set(name);
      sets.push_back(name);
    } catch (const Error& error) {
      CHECK(std::string(error.what())
                .find("use_instruction_set: expected one that "
                      "samba::compiled holds and this processor has (") == 0);
    }
  return sets;
}

template <class T>
double error_of(double tolerance) {
  using Model = golden::SambaOdd;
  const auto file = SafetensorsFile::open(golden::path<Model>("expected.safetensors"));
  std::vector<std::int32_t> ids;
  for (const auto id : read_tensor<std::int64_t>(file, "input_ids"))
    ids.push_back(static_cast<std::int32_t>(id));
  ids.resize(ids.size() / 2);  // of the first of two sequences
  auto expected = read_tensor<double>(file, "logits");
  expected.resize(expected.size() / 2);
  const auto weights = load<Model, T>(golden::path<Model>("model.safetensors"));
  Session session(weights);
  return relative_error(all_logits(session, ids), expected) / tolerance;
}

}  // namespace

TEST_CASE("samba::compiled: golden logits on every instruction set") {
  const std::string best(instruction_set());
  const auto sets = present_sets();
  REQUIRE(!sets.empty());
  CHECK(sets.back() == best);
  for (const std::string& set : sets) {
    CAPTURE(set);
    use_instruction_set(set);
    CHECK(instruction_set() == set);
    CHECK(build_info().find(", " + std::string(target) + " for " + set + ", ") !=
          std::string::npos);
    CHECK(error_of<float>(2e-5) <= 1);
    CHECK(error_of<bf16>(3e-2) <= 1);
    CHECK(error_of<double>(1e-10) <= 1);
  }
}

TEST_CASE("samba::compiled: an unknown instruction set changes nothing") {
  const std::string before(instruction_set());
  CHECK_THROWS_WITH(use_instruction_set("sve"),
                    Catch::Contains("found \"sve\"") && Catch::Contains(before));
  CHECK(instruction_set() == before);
}
