// A published model from its GGUF file, against float64 results of transformers on the dequantised
// weights.
#pragma once
#include <samba/io/bpe.hpp>
#include <samba/io/gguf_checkpoint.hpp>
#include <samba/model/published.hpp>
#include <samba/samba.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace real {

using namespace samba;

struct Case {
  std::string name, text;
  std::vector<std::int32_t> ids, greedy;
  std::vector<double> nll;
  double mean_nll;
};

inline std::vector<Case> read_cases(const char* path) {
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

template <class Model, class T>
Found run(const Weights<Model, T>& weights, const Case& c) {
  constexpr std::size_t vocab_size = Model::vocab_size;
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

/// True if a tokenizer gives these ids for the case's text, and the text back; prints it.
inline bool same_ids(const Case& c, const std::vector<std::int32_t>& ids,
                     const BpeTokenizer& tokenizer, bool add_bos) {
  const auto found = tokenizer.encode(c.text, {.add_bos = add_bos});
  const bool ok =
      found == ids && tokenizer.decode(std::span(found).subspan(add_bos), true) == c.text;
  std::printf("%-10s %4zu ids%s\n", c.name.c_str(), found.size(), ok ? "" : "  FAILED");
  return ok;
}

/// The loss of every token within 2e-4, greedy continuations; with matrices in bf16 and int8 the mean
/// loss of all tokens within 1 %, in q4 within q4_bound. Prints what it finds; true if all is right.
template <class Model>
bool compare(const char* gguf, const std::vector<Case>& cases, double q4_bound) {
  bool right = !cases.empty();
  double expected = 0;  // the losses of all cases
  {
    const auto weights = load_gguf<Model>(gguf);
    for (const Case& c : cases) {
      const Found found = run(weights, c);
      const bool ok = found.worst <= 2e-4 && (found.equal == c.greedy.size() || found.gap <= 1e-3);
      right = right && ok;
      std::printf(
          "%-10s %4zu tokens: losses within %.1e, %zu of %zu tokens of the continuation%s\n",
          c.name.c_str(), c.ids.size(), found.worst, found.equal, c.greedy.size(),
          ok ? "" : "  FAILED");
      expected += c.mean_nll * static_cast<double>(c.nll.size());
    }
  }
  const auto check = [&]<class T>(const char* type, T, double bound) {
    const auto weights = load_gguf<Model, T>(gguf);
    double found = 0;
    for (const Case& c : cases) found += run(weights, c).mean * static_cast<double>(c.nll.size());
    const double off = found / expected - 1;
    const bool ok = std::abs(off) <= bound;
    right = right && ok;
    std::printf("%s: mean loss off by %+.2f %%%s\n", type, 100 * off, ok ? "" : "  FAILED");
  };
  check("bf16", bf16{}, 0.01);
  check("int8", int8{}, 0.01);
  check("q4", q4{}, q4_bound);
  return right;
}

/// Runs a program with the arguments FILE.gguf EXPECTED.json; returns its exit status.
template <class F>
int main_of(const char* name, int argc, char** argv, F program) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s FILE.gguf EXPECTED.json\n", name);
    return 2;
  }
  try {
    return program(argv[1], read_cases(argv[2])) ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}

}  // namespace real
