#pragma once
/// \file
/// From logits to the next token: stages that narrow a list of candidates, and the Sampler that
/// runs them in the usual order.
#include <samba/core/checked.hpp>
#include <samba/core/error.hpp>
#include <samba/core/random.hpp>
#include <samba/core/scalar.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// A number added to the logit of a token.
struct LogitBias {
  std::int32_t id = 0;
  float bias = 0;
};

/// How a Sampler chooses. The defaults draw from the model's own distribution.
struct SamplerOptions {
  float temperature =
      1;  ///< divides the logits; 0 takes the most likely token, and the lowest id of equal ones
  int top_k = 0;                 ///< keep this many of the most likely; 0 keeps all
  float top_p = 1;               ///< keep the smallest set of the most likely with this probability
  float min_p = 0;               ///< keep those with this fraction of the largest probability
  float repetition_penalty = 1;  ///< above 1 makes the latest tokens less likely
  int repetition_window = 64;    ///< number of latest tokens that the penalty considers
  std::uint64_t seed = 0;
  int vocab_size = 0;  ///< ids from here on, which pad a head, are never chosen; 0: no limit
  std::vector<std::int32_t> banned = {};  ///< never chosen
  std::vector<LogitBias> biases = {};     ///< several for one id add up
};

/// The stages, for your own samplers. Each takes candidates, moves those it keeps to the front,
/// possibly in another order, and returns them. No stage depends on another. Probabilities are
/// those of the candidates that a stage is given (the softmax of their logits, which sums to 1). Of
/// equal logits, the lower id counts as more likely. An option out of range is an Error. (Stages
/// that sort are templates only so that programs that do not use them need not compile them.)
namespace sampling {

struct Candidate {
  std::int32_t id = 0;
  float logit = 0;  // finite
};

using samba::SplitMix64;

namespace detail {

inline void check_option(bool in_range, const char* option, const char* rule, double found) {
  if (in_range) return;
  char number[32];
  std::snprintf(number, sizeof number, "%.9g", found);
  fail({"sampling: ", option, " must be ", rule, ", found ", number});
}

inline void check_temperature(float t) {
  check_option(is_finite(t) && t >= 0, "temperature", "finite and at least 0", t);
}
inline void check_top_k(int k) { check_option(k >= 0, "top_k", "at least 0", k); }
inline void check_top_p(float p) {
  check_option(is_finite(p) && p >= 0 && p <= 1, "top_p", "in [0, 1]", p);
}
inline void check_min_p(float p) {
  check_option(is_finite(p) && p >= 0 && p <= 1, "min_p", "in [0, 1]", p);
}
inline void check_bias(LogitBias b) {
  check_option(b.id >= 0, "the id of a bias", "at least 0", b.id);
  check_option(is_finite(b.bias), "bias", "finite (ban a token otherwise)", b.bias);
}
inline void check_penalty(float r) {
  check_option(is_finite(r) && r > 0, "repetition_penalty", "finite and above 0", r);
}

inline bool more_likely(Candidate a, Candidate b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/// `candidates` must not be empty, here and in total_weight.
inline Candidate most_likely(std::span<const Candidate> candidates) {
  Candidate best = candidates[0];
  for (const Candidate c : candidates)
    if (more_likely(c, best)) best = c;
  return best;
}

/// The probability relative to that of a logit of `max`.
inline double weight(Candidate c, float max) {
  return std::exp(static_cast<double>(c.logit) - max);
}

inline double total_weight(std::span<const Candidate> candidates, float max) {
  double sum = 0;
  for (const Candidate c : candidates) sum += weight(c, max);
  return sum;
}

inline float clamp_to_float(double x) {
  constexpr double largest = (std::numeric_limits<float>::max)();
  return static_cast<float>(std::clamp(x, -largest, largest));
}

}  // namespace detail

/// Candidates for all logits except those of -inf, in ascending order of id, in `storage`, which
/// has room for logits.size(). Throws Error, leaving `storage` undefined, if there are no logits,
/// if one is NaN or +inf, or if all are -inf.
[[nodiscard]] inline std::span<Candidate> candidates(std::span<const float> logits,
                                                     std::span<Candidate> storage) {
  if (logits.empty()) fail({"sampling: there are no logits"});
  if (storage.size() < logits.size())
    fail({"sampling: expected storage for ", logits.size(), " candidates, found ", storage.size()});
  std::size_t n = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(logits[i]);
    if (is_finite(logits[i]))
      storage[n++] = {static_cast<std::int32_t>(i), logits[i]};
    else if (bits != 0xff800000u)
      fail({"sampling: the logit at index ", i, " is ", bits == 0x7f800000u ? "+inf" : "NaN"});
  }
  if (n == 0) fail({"sampling: all ", logits.size(), " logits are -inf"});
  return storage.first(n);
}

// Below, C is always Candidate. As a template argument it delays the compilation of algorithms
// until a stage is called, so that not every program that includes this header pays for them.

namespace detail {

/// Sorts candidates by ascending id, unless they are already sorted.
template <class C>
void sort_by_id(std::span<C> candidates) {
  const auto by_id = [](C a, C b) { return a.id < b.id; };
  if (!std::is_sorted(candidates.begin(), candidates.end(), by_id))
    std::sort(candidates.begin(), candidates.end(), by_id);
}

/// The candidate with an id, among candidates sorted by id, or null.
template <class C>
C* find(std::span<C> candidates, std::int32_t id) {
  const auto c = std::lower_bound(candidates.begin(), candidates.end(), id,
                                  [](C a, std::int32_t b) { return a.id < b; });
  return c != candidates.end() && c->id == id ? &*c : nullptr;
}

}  // namespace detail

/// Keeps the candidates whose ids are not among `ids`, which must be sorted, in their order.
template <class C = Candidate>
[[nodiscard]] std::span<C> leave_out(std::type_identity_t<std::span<C>> candidates,
                                     std::span<const std::int32_t> ids) {
  if (ids.empty()) return candidates;
  const auto end = std::remove_if(candidates.begin(), candidates.end(), [&](C c) {
    return std::binary_search(ids.begin(), ids.end(), c.id);
  });
  return candidates.first(static_cast<std::size_t>(end - candidates.begin()));
}

/// Adds biases to the logits of their ids. If there are any, sorts the candidates by ascending id.
/// Ids that are not candidates are ignored.
template <class C = Candidate>
[[nodiscard]] std::span<C> bias(std::type_identity_t<std::span<C>> candidates,
                                std::span<const LogitBias> biases) {
  for (const LogitBias b : biases) detail::check_bias(b);
  if (!biases.empty()) detail::sort_by_id(candidates);
  for (const LogitBias b : biases)
    if (C* const c = detail::find(candidates, b.id))
      c->logit =
          detail::clamp_to_float(static_cast<double>(c->logit) + static_cast<double>(b.bias));
  return candidates;
}

/// Divides positive logits by `penalty` and multiplies the others by it, once for each distinct id
/// in `recent` (Keskar et al. 2019, section 4.1, extended to negative logits so that it always
/// lowers them). Sorts `recent`, and the candidates by ascending id. Ids that are not candidates
/// are ignored.
template <class C = Candidate>
[[nodiscard]] std::span<C> repetition_penalty(std::type_identity_t<std::span<C>> candidates,
                                              std::span<std::int32_t> recent, float penalty) {
  detail::check_penalty(penalty);
  detail::sort_by_id(candidates);
  const std::span<std::conditional_t<std::is_same_v<C, Candidate>, std::int32_t, C>> ids = recent;
  std::sort(ids.begin(), ids.end());
  for (std::size_t i = 0; i < recent.size(); ++i) {
    if (i > 0 && recent[i] == recent[i - 1]) continue;
    if (C* const c = detail::find(candidates, recent[i])) {
      const double logit = c->logit;
      c->logit = detail::clamp_to_float(logit > 0 ? logit / penalty : logit * penalty);
    }
  }
  return candidates;
}

/// Divides the logits by t, after subtracting the largest from each, which changes no probability
/// and prevents overflow. t = 0 is the limit: it keeps only the most likely candidate.
[[nodiscard]] inline std::span<Candidate> temperature(std::span<Candidate> candidates, float t) {
  detail::check_temperature(t);
  if (candidates.empty()) return candidates;
  const Candidate best = detail::most_likely(candidates);
  if (!(t > 0)) {
    candidates[0] = best;
    return candidates.first(1);
  }
  for (Candidate& c : candidates)
    c.logit = detail::clamp_to_float((static_cast<double>(c.logit) - best.logit) / t);
  return candidates;
}

/// Keeps the k most likely candidates, most likely first; all of them, in their order, if k is 0 or
/// there are at most k.
template <class C = Candidate>
[[nodiscard]] std::span<C> top_k(std::type_identity_t<std::span<C>> candidates, int k) {
  detail::check_top_k(k);
  const auto count = static_cast<std::size_t>(k);
  if (count == 0 || count >= candidates.size()) return candidates;
  std::partial_sort(candidates.begin(), candidates.begin() + k, candidates.end(),
                    detail::more_likely);
  return candidates.first(count);
}

/// Keeps the nucleus (Holtzman et al. 2020): the smallest number of most likely candidates, at
/// least one, whose probabilities sum to p or more, most likely first. p = 1 keeps all, in their
/// order.
template <class C = Candidate>
[[nodiscard]] std::span<C> top_p(std::type_identity_t<std::span<C>> candidates, float p) {
  detail::check_top_p(p);
  if (p >= 1 || candidates.empty()) return candidates;
  const float max = detail::most_likely(candidates).logit;
  const double needed = p * detail::total_weight(candidates, max);
  double sum = 0;
  std::size_t sorted = 0;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (i == sorted) {
      // The nucleus is usually small: sort twice as far whenever it turns out to be larger.
      sorted = (std::min)(std::max<std::size_t>(64, 2 * i), candidates.size());
      const auto begin = candidates.begin();
      std::partial_sort(begin + static_cast<std::ptrdiff_t>(i),
                        begin + static_cast<std::ptrdiff_t>(sorted), candidates.end(),
                        detail::more_likely);
    }
    sum += detail::weight(candidates[i], max);
    if (sum >= needed) return candidates.first(i + 1);
  }
  return candidates;
}

/// Keeps the candidates that are at least p times as probable as the most likely one, in their
/// order.
template <class C = Candidate>
[[nodiscard]] std::span<C> min_p(std::type_identity_t<std::span<C>> candidates, float p) {
  detail::check_min_p(p);
  if (!(p > 0) || candidates.empty()) return candidates;
  const float max = detail::most_likely(candidates).logit;
  const auto end = std::remove_if(candidates.begin(), candidates.end(),
                                  [&](C c) { return detail::weight(c, max) < p; });
  return candidates.first(static_cast<std::size_t>(end - candidates.begin()));
}

/// Draws an id: that of the candidate at u, uniform in [0, 1), when their probabilities are laid
/// end to end.
[[nodiscard]] inline std::int32_t draw(std::span<const Candidate> candidates, double u) {
  if (candidates.empty()) fail({"sampling: there are no candidates to draw from"});
  detail::check_option(u >= 0 && u < 1, "the random number", "in [0, 1)", u);
  const Candidate best = detail::most_likely(candidates);
  std::int32_t id = best.id;
  double left = u * detail::total_weight(candidates, best.logit);
  for (const Candidate c : candidates) {
    const double weight = detail::weight(c, best.logit);
    if (weight > 0) id = c.id;  // if rounding leaves a remainder at the end, the last possible one
    left -= weight;
    if (left < 0) break;
  }
  return id;
}

}  // namespace sampling

/// Chooses tokens. It drops banned tokens, then applies biases, repetition penalty, temperature,
/// top-k, top-p and min-p, in this order, each to what the previous one kept, and draws. A seed
/// gives the same random numbers on every platform. Probabilities are computed in double, so that a
/// difference in the last digit of exp between platforms changes a draw about once in 1e15. A copy
/// continues independently from the same state.
class Sampler {
 public:
  /// Throws Error, naming the option, if one is out of range.
  template <int = 0>
  explicit Sampler(SamplerOptions given = SamplerOptions{})
      : options_(std::move(given)), generator_(options_.seed) {
    sampling::detail::check_temperature(options_.temperature);
    sampling::detail::check_top_k(options_.top_k);
    sampling::detail::check_top_p(options_.top_p);
    sampling::detail::check_min_p(options_.min_p);
    sampling::detail::check_penalty(options_.repetition_penalty);
    sampling::detail::check_option(options_.repetition_window >= 0, "repetition_window",
                                   "at least 0", options_.repetition_window);
    sampling::detail::check_option(options_.vocab_size >= 0, "vocab_size", "at least 0",
                                   options_.vocab_size);
    for (const std::int32_t id : options_.banned)
      sampling::detail::check_option(id >= 0, "a banned id", "at least 0", id);
    for (const LogitBias b : options_.biases) sampling::detail::check_bias(b);
    std::sort(options_.banned.begin(), options_.banned.end());
    if (options_.repetition_penalty == 1) return;
    resize(recent_, options_.repetition_window, "repetition_window");
    resize(scratch_, options_.repetition_window, "repetition_window");
  }

  /// The next token for `logits`, [vocab_size]; -inf excludes a token. Throws Error, naming the
  /// index and changing nothing, if logits are empty, all -inf or banned, or contain NaN or +inf.
  /// Allocates only if vocab_size is larger than in any earlier call.
  template <int = 0>
  std::int32_t operator()(std::span<const float> logits) {
    if (const auto n = static_cast<std::size_t>(options_.vocab_size); n > 0) {
      if (n > logits.size())
        fail({"Sampler: vocab_size: expected at most the number of logits, ", logits.size(),
              ", found ", n});
      logits = logits.first(n);
    }
    candidates_.resize(logits.size());
    // Spans of pointer and size: those of a whole vector cost every program compile time.
    auto kept = sampling::candidates(logits, {candidates_.data(), candidates_.size()});
    kept = sampling::leave_out(kept, {options_.banned.data(), options_.banned.size()});
    if (kept.empty()) fail({"Sampler: every token that its logits allow is banned"});
    kept = sampling::bias(kept, {options_.biases.data(), options_.biases.size()});
    const std::span<std::int32_t> recent(scratch_.data(), (std::min)(seen_, recent_.size()));
    std::copy_n(recent_.begin(), recent.size(), recent.begin());
    kept = sampling::repetition_penalty(kept, recent, options_.repetition_penalty);
    kept = sampling::temperature(kept, options_.temperature);
    kept = sampling::top_k(kept, options_.top_k);
    kept = sampling::top_p(kept, options_.top_p);
    kept = sampling::min_p(kept, options_.min_p);
    const std::int32_t token = sampling::draw(kept, generator_.uniform());
    remember(token);
    return token;
  }

  /// Counts tokens, such as the prompt, as used for the repetition penalty. A negative one is an
  /// Error.
  void observe(std::span<const std::int32_t> tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if (tokens[i] < 0)
        fail({"Sampler: observed token ", tokens[i], " at index ", i, " is negative"});
    for (const std::int32_t token : tokens) remember(token);
  }

  /// Returns to the state after construction: the same seed, and no tokens seen.
  void reset() {
    generator_ = sampling::SplitMix64(options_.seed);
    seen_ = 0;
  }

 private:
  void remember(std::int32_t token) {
    if (!recent_.empty()) recent_[seen_++ % recent_.size()] = token;
  }

  SamplerOptions options_;
  sampling::SplitMix64 generator_;
  std::vector<sampling::Candidate> candidates_;
  std::vector<std::int32_t> recent_,
      scratch_;           // (repetition_window), a ring; its copy, for sorting
  std::size_t seen_ = 0;  // tokens written to the ring so far
};

}  // namespace samba::inline SAMBA_TARGET
