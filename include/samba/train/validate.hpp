#pragma once
#include <samba/runtime/score.hpp>
#include <samba/runtime/session.hpp>
#include <samba/train/check_option.hpp>
#include <samba/train/token_file.hpp>

#include <cstdint>
#include <vector>

namespace samba::inline SAMBA_TARGET {

struct ValidationOptions {
  std::int64_t seq_len = 512;                 ///< the sequence length of training
  std::vector<int> multiples = {1, 2, 4, 8};  ///< of seq_len, ascending
  int windows = 8;                            ///< number of windows, of the largest multiple
  /// At most the number of processors; 0: OpenMP's default, or 1 inside a parallel region.
  int threads = 0;
};

struct Validation {
  std::int64_t length;  ///< tokens from the beginning of a window
  double loss;          ///< mean cross entropy of the token after each of them, in nats
};

/// The loss on texts of the training length and longer (as in arXiv 2406.07522): long windows are
/// spread evenly over the file and read once each from an empty state, and their predictions are
/// averaged up to each length. The same bits for any number of threads. Throws Error, naming the
/// file, before anything is computed, if it has too few tokens for the windows or a larger
/// vocabulary than the model.
template <class Model, class T>
std::vector<Validation> validate(const Weights<Model, T>& weights, const TokenFile& file,
                                 const ValidationOptions& options = ValidationOptions{}) {
  check_at_least("ValidationOptions::seq_len", options.seq_len, 1);
  check_at_least("ValidationOptions::windows", options.windows, 1);
  if (options.multiples.empty())
    fail({"ValidationOptions::multiples: expected at least one, found none"});
  int before = 0;
  for (const int multiple : options.multiples) {
    if (multiple <= before)
      fail({"ValidationOptions::multiples: expected ascending numbers of 1 or more, found ",
            multiple, " after ", before});
    before = multiple;
  }
  if (file.vocab_size() > Model::vocab_size)
    fail({file.path(), ": vocab_size: expected at most the model's, ", Model::vocab_size,
          ", found ", file.vocab_size()});
  const int largest = options.multiples.back();
  const std::int64_t share = (file.size() - 1) / options.windows;  // tokens of the file per window
  if (share / largest < options.seq_len)
    fail({file.path(), ": validation: expected at least ", options.windows, " * ", largest, " * ",
          options.seq_len, " + 1 tokens (windows * largest multiple * seq_len), found ",
          file.size()});

  const std::int64_t longest = options.seq_len * largest;
  std::vector<Score> scores(options.multiples.size());  // for the predictions up to each length
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(longest) + 1);
  Session session(weights, {.capacity = longest, .threads = options.threads});
  for (int w = 0; w < options.windows; ++w) {
    file.read(w * share, tokens);
    session.reset();
    Score window;
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const std::int64_t begin = window.tokens, end = options.seq_len * options.multiples[i];
      window +=
          score(session, std::span(tokens).subspan(static_cast<std::size_t>(begin),
                                                   static_cast<std::size_t>(end - begin) + 1));
      scores[i] += window;
    }
  }
  std::vector<Validation> results;
  for (std::size_t i = 0; i < scores.size(); ++i)
    results.push_back({options.seq_len * options.multiples[i], scores[i].nats_per_token()});
  return results;
}

}  // namespace samba::inline SAMBA_TARGET
