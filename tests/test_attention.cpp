#include <samba/kernels/cpu/attention.hpp>

#include <tests/catch.hpp>
#include <tests/gradients.hpp>
#include <tests/support.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

constexpr std::int64_t all_keys = std::numeric_limits<std::int64_t>::max();

struct Case {
  std::int64_t window;    ///< all_keys: full attention
  std::int64_t position;  ///< of the first row; the keys before it are in the ring
  std::int64_t rows;
  int n_kv_heads = 1, group = 1;
  double scale = 1;            ///< size of queries and keys
  float divisor = 0, cap = 0;  ///< of the scores; 0: sqrt(head_dim), none
  bool sinks = false;
  std::size_t qkv_offset = 0, ring_offset = 0, out_offset = 0, gap = 0;
};

/// A NaN, made of bits so that it is one under -ffast-math.
template <class KV>
KV not_a_number() {
  std::array<unsigned char, sizeof(KV)> bits;
  bits.fill(0xff);
  return std::bit_cast<KV>(bits);
}

/// Random tokens, of which the last rows go through the kernels and the others stand in the
/// rings: what they should give, and what they do.
template <class KV>
class Problem {
 public:
  Problem(int head_dim, const Case& c, Random& rng)
      : c_(c),
        D_(head_dim),
        heads_(c.n_kv_heads * (c.group + 2)),
        tokens_(c.position + c.rows),
        slots_(c.window == all_keys ? tokens_ + 1 : c.window),
        divisor_(c.divisor > 0 ? double{c.divisor} : std::sqrt(double{1} * head_dim)) {
    for (std::int64_t token = 0; token < tokens_; ++token)
      for (int head = 0; head < heads_; ++head) {
        const int place = head % (c.group + 2);
        const double size = place <= c.group ? c.scale : 1;
        for (const float x : rng.values(count(D_), -size, size))
          qkv_.push_back(static_cast<float>(KV(x)));  // so that rounding makes no difference
      }
    if (c.sinks) sinks_ = rng.values(count(c.n_kv_heads * c.group), -2, 2);
    dout_ = rng.values(count(c.rows * out_width()));
    for (auto* dring : {&dring_k_, &dring_v_}) *dring = rng.values(count(slots_ * kv_width()));
  }

  /// Softmax over the keys j, position - window < j <= position, by the book, and the logarithm of
  /// its sum. `scores`: the largest sum of the magnitudes of the terms of a score.
  Named<Sized> solve() {
    std::vector<Sized> out, log_sum;
    each_query([&](std::int64_t, int g, int, std::int64_t begin, const std::vector<double>& weight,
                   const std::vector<double>&, double sum) {
      for (int d = 0; d < D_; ++d) {
        Sized value;
        for (std::size_t j = 0; j < weight.size(); ++j)
          value += Sized(weight[j]) * at(begin + static_cast<std::int64_t>(j), g, c_.group + 1, d);
        out.push_back(value);
      }
      log_sum.push_back({sum, 1});
    });
    return {{"out", out}, {"log_sum", log_sum}};
  }

  /// The gradients for dout, and for random ones of the rings as they are left, whose slots hold
  /// the last tokens.
  Named<Sized> solve_backward() {
    std::vector<Sized> dqkv(count(c_.rows * width())), dk = sized(dring_k_), dv = sized(dring_v_);
    const auto gradient = [&](std::int64_t token, int g, int place, int d) -> Sized& {
      if (token >= c_.position)
        return dqkv[count((token - c_.position) * width() + (g * (c_.group + 2) + place) * D_ + d)];
      return (place == c_.group ? dk : dv)[slot(token, g) + count(d)];
    };
    for (std::int64_t i = std::max(c_.position, tokens_ - slots_); i < tokens_; ++i)
      for (int g = 0; g < c_.n_kv_heads; ++g)
        for (int d = 0; d < D_; ++d)
          for (auto [place, ring] : {std::pair{c_.group, &dk}, {c_.group + 1, &dv}})
            gradient(i, g, place, d) = std::exchange((*ring)[slot(i, g) + count(d)], Sized());
    std::vector<Sized> dsinks(sinks_.size());
    each_query([&](std::int64_t i, int g, int h, std::int64_t begin,
                   const std::vector<double>& weight, const std::vector<double>& slope,
                   double sum) {
      const auto dout = [&](int d) {
        return double{dout_[count((i - c_.position) * out_width() + (g * c_.group + h) * D_ + d)]};
      };
      std::vector<Sized> dp(weight.size());
      Sized mean;
      for (std::size_t j = 0; j < dp.size(); ++j) {
        for (int d = 0; d < D_; ++d)
          dp[j] += dout(d) * at(begin + static_cast<std::int64_t>(j), g, c_.group + 1, d);
        mean += weight[j] * dp[j];
      }
      if (c_.sinks) {
        const std::size_t head = count(g * c_.group + h);
        dsinks[head] += -std::exp(double{sinks_[head]} - sum) * mean;
      }
      for (std::size_t j = 0; j < dp.size(); ++j) {
        const std::int64_t token = begin + static_cast<std::int64_t>(j);
        const Sized ds = weight[j] * (dp[j] - mean) * slope[j];
        for (int d = 0; d < D_; ++d) {
          gradient(token, g, c_.group + 1, d) += weight[j] * dout(d);
          gradient(token, g, c_.group, d) += ds * at(i, g, h, d);
          gradient(i, g, h, d) += ds * at(token, g, c_.group, d);
        }
      }
    });
    return {{"dqkv", dqkv}, {"dring_k", dk}, {"dring_v", dv}, {"dsinks", dsinks}};
  }

  /// The results of a forward kernel, in R.
  template <class R, class Forward>
  Named<R> run(Forward forward) const {
    const Memory<R> m(*this);
    forward(m.args);
    CHECK(m.guarded());
    return {{"out", m.out.values()}, {"log_sum", m.log_sum.values()}};
  }
  /// Those of a backward kernel after it.
  template <class R, class Forward, class Backward>
  Named<R> run_backward(Forward forward, Backward backward) const {
    const Memory<R> m(*this);
    const Guarded<R> dout(convert<R>(dout_), count(c_.rows), c_.gap, c_.out_offset);
    const Guarded<R> dqkv(count(c_.rows), count(width()), count(width()) + c_.gap, c_.qkv_offset);
    const Guarded<R> dk(convert<R>(dring_k_), c_.ring_offset),
        dv(convert<R>(dring_v_), c_.ring_offset), dsinks(sinks_.size());
    std::fill_n(dsinks.data(), sinks_.size(), R{0});
    forward(m.args);
    backward(
        AttentionBackwardArgs<R, typename Memory<R>::Stored>{.forward = m.args,
                                                             .dout = dout.data(),
                                                             .dout_stride = dout.stride(),
                                                             .dq = head_rows<R>(dqkv, 0),
                                                             .dk = head_rows<R>(dqkv, c_.group),
                                                             .dv = head_rows<R>(dqkv, c_.group + 1),
                                                             .dring_k = dk.data(),
                                                             .dring_v = dv.data(),
                                                             .dsinks = dsinks.data(),
                                                             .update_rings = true});
    CHECK((m.guarded() && dqkv.guarded() && dk.guarded() && dv.guarded() && dsinks.guarded()));
    return {{"dqkv", dqkv.values()},
            {"dring_k", dk.values()},
            {"dring_v", dv.values()},
            {"dsinks", dsinks.values()}};
  }

  double scores = 0;

 private:
  /// What the kernels read and the forward ones write. Slots of the ring that no query may read are
  /// NaN.
  template <class R>
  struct Memory {
    using Stored = std::conditional_t<std::is_same_v<R, double>, double, KV>;
    Guarded<Stored> ring_k, ring_v;
    Guarded<R> qkv, out, log_sum, sinks;
    AttentionArgs<R, Stored> args;

    explicit Memory(const Problem& p)
        : ring_k(count(p.slots_ * p.kv_width()), p.c_.ring_offset),
          ring_v(count(p.slots_ * p.kv_width()), p.c_.ring_offset),
          qkv(convert<R>(
                  std::vector<float>(p.qkv_.begin() + p.c_.position * p.width(), p.qkv_.end())),
              count(p.c_.rows), p.c_.gap, p.c_.qkv_offset),
          out(count(p.c_.rows), count(p.out_width()), count(p.out_width()) + p.c_.gap,
              p.c_.out_offset),
          log_sum(count(p.c_.rows * p.c_.n_kv_heads * p.c_.group)),
          sinks(convert<R>(p.sinks_), 1),
          args{.q = p.head_rows<const R>(qkv, 0),
               .k = p.head_rows<const R>(qkv, p.c_.group),
               .v = p.head_rows<const R>(qkv, p.c_.group + 1),
               .ring_k = ring_k.data(),
               .ring_v = ring_v.data(),
               .n_slots = p.slots_,
               .window = p.c_.window,
               .position = p.c_.position,
               .rows = p.c_.rows,
               .n_kv_heads = p.c_.n_kv_heads,
               .group = p.c_.group,
               .head_dim = p.D_,
               .divisor = p.c_.divisor > 0 ? R{p.c_.divisor} : std::sqrt(static_cast<R>(p.D_)),
               .cap = R{p.c_.cap},
               .sinks = p.c_.sinks ? sinks.data() : nullptr,
               .out = out.data(),
               .out_stride = out.stride(),
               .log_sum = log_sum.data()} {
      // Of the `slots` keys before row 0 the earliest is out of its sight.
      const std::int64_t oldest = std::max<std::int64_t>(0, p.c_.position - p.c_.window + 1);
      for (std::int64_t j = oldest; j < p.c_.position; ++j)
        for (int g = 0; g < p.c_.n_kv_heads; ++g)
          for (int d = 0; d < p.D_; ++d) {
            const std::size_t to = p.slot(j, g) + count(d);
            ring_k.data()[to] = Stored(static_cast<R>(p.at(j, g, p.c_.group, d)));
            ring_v.data()[to] = Stored(static_cast<R>(p.at(j, g, p.c_.group + 1, d)));
          }
    }
    bool guarded() const {
      return ring_k.guarded() && ring_v.guarded() && qkv.guarded() && out.guarded() &&
             log_sum.guarded() && sinks.guarded();
    }
  };

  /// Calls f(token, group, head of the group, first key in sight, softmax weights, derivatives of the
  /// scores by the products of query and key, log of the sum of exponentials) for every query.
  template <class F>
  void each_query(F f) {
    for (std::int64_t i = c_.position; i < tokens_; ++i)
      for (int head = 0; head < c_.n_kv_heads * c_.group; ++head) {
        const int g = head / c_.group, h = head % c_.group;
        const std::int64_t begin = c_.window > i ? 0 : i - c_.window + 1;
        std::vector<double> weight, slope;
        for (std::int64_t j = begin; j <= i; ++j) {
          Sized dot;
          for (int d = 0; d < D_; ++d) dot += Sized(at(i, g, h, d)) * at(j, g, c_.group, d);
          const double score = dot.value / divisor_, cap = double{c_.cap};
          weight.push_back(cap > 0 ? cap * std::tanh(score / cap) : score);
          const double t = cap > 0 ? weight.back() / cap : 0;
          slope.push_back((1 - t * t) / divisor_);
          scores = std::max(scores, dot.size / divisor_);
        }
        const double sink = c_.sinks ? double{sinks_[count(head)]} : -1e300;
        const double most = std::max(sink, *std::max_element(weight.begin(), weight.end()));
        double total = std::exp(sink - most);
        for (double& w : weight) total += w = std::exp(w - most);
        for (double& w : weight) w /= total;
        f(i, g, h, begin, weight, slope, most + std::log(total));
      }
  }

  static std::size_t count(std::int64_t n) { return static_cast<std::size_t>(n); }
  std::int64_t width() const { return std::int64_t{heads_} * D_; }
  std::int64_t kv_width() const { return std::int64_t{c_.n_kv_heads} * D_; }
  std::int64_t out_width() const { return kv_width() * c_.group; }
  /// In fused rows, the heads of each group from `place` on: its query heads, its key, its value.
  template <class E, class R>
  HeadRows<E> head_rows(const Guarded<R>& fused, int place) const {
    return {fused.data() + std::int64_t{place} * D_, fused.stride(),
            std::int64_t{c_.group + 2} * D_};
  }
  /// Where the ring has a token's key or value of a group.
  std::size_t slot(std::int64_t token, int g) const {
    return count((g * slots_ + token % slots_) * D_);
  }
  /// Channel d of head `place` of group g (its query heads, its key, its value) of a token.
  double at(std::int64_t token, int g, int place, int d) const {
    return double{qkv_[count(token * width() + (g * (c_.group + 2) + place) * D_ + d)]};
  }

  Case c_;
  int D_, heads_;
  std::int64_t tokens_, slots_;
  double divisor_;
  std::vector<float> qkv_, dout_;  // (tokens, heads, D), (rows, query heads, D)
  std::vector<float> dring_k_, dring_v_, sinks_;
};

constexpr auto naive_forward = [](const auto& args) {
  reference::attention(args, {0, args.n_kv_heads}, {0, args.rows});
};

/// The vector kernel, `together` key/value heads at once, as many as the scratch has room for.
auto fast_forward(const Guarded<float>& scratch, std::int64_t together) {
  return [&scratch, together](const auto& args) {
    const std::int64_t block =
        std::max<std::int64_t>(1, kernels::attention_rows / args.group / together);
    for (std::int64_t g = 0; g < args.n_kv_heads; g += together)
      for (std::int64_t row = 0; row < args.rows; row += block)
        simd::attention(args, {g, std::min<std::int64_t>(g + together, args.n_kv_heads)},
                        {row, std::min(row + block, args.rows)},
                        reinterpret_cast<std::byte*>(scratch.data()));
  };
}

template <class KV = float>
void check(int head_dim, const Case& c, Random& rng) {
  CAPTURE(rng.seed, head_dim, sizeof(KV), c.window, c.position, c.rows, c.n_kv_heads, c.group,
          c.scale, c.divisor, c.cap, c.sinks, c.qkv_offset, c.ring_offset, c.out_offset, c.gap);
  Problem<KV> problem(head_dim, c, rng);
  const auto exact = problem.solve();

  const Guarded<float> scratch(static_cast<std::size_t>(attention_scratch_bytes(head_dim) / 4));
  const auto by_one = problem.template run<float>(fast_forward(scratch, 1));
  if (c.n_kv_heads * c.group <= kernels::attention_rows)
    CHECK(same_results(problem.template run<float>(fast_forward(scratch, c.n_kv_heads)), by_one));
  // A score's roundings, relative to the sum of its terms' magnitudes, are absolute errors of the
  // exponent; exp, weights, their sum and the division add a few.
  // Of bf16, weights are rounded too, each by as much as it likes.
  const double tiny = (8 + 2 * problem.scores) * unit_roundoff + (sizeof(KV) == 2 ? 0x1p-9 : 0);
  check_results(exact, by_one, problem.template run<float>(naive_forward),
                problem.template run<double>(naive_forward), tiny, 1e-14 * (1 + problem.scores));
  CHECK(scratch.guarded());
}

template <class KV = float>
void check_backward(int head_dim, const Case& c, Random& rng) {
  CAPTURE(rng.seed, head_dim, sizeof(KV), c.window, c.position, c.rows, c.n_kv_heads, c.group,
          c.scale, c.divisor, c.cap, c.sinks, c.qkv_offset, c.ring_offset, c.out_offset, c.gap);
  Problem<KV> problem(head_dim, c, rng);
  const auto exact = problem.solve_backward();
  const Guarded<float> forward_scratch(
      static_cast<std::size_t>(attention_scratch_bytes(head_dim) / 4)),
      scratch(static_cast<std::size_t>(attention_backward_scratch(head_dim)));
  const auto fast = [&](const auto& args) {
    for (int g = 0; g < c.n_kv_heads; ++g) {
      if (c.sinks) reference::attention_backward_sinks(args, g);
      reference::attention_backward_start(args, g, {0, c.rows});
      simd::attention_backward(args, g, {}, scratch.data());
    }
  };
  const auto naive = [&](const auto& args) {
    for (int g = 0; c.sinks && g < c.n_kv_heads; ++g) reference::attention_backward_sinks(args, g);
    reference::attention_backward(args, {0, c.n_kv_heads});
  };
  // As in the forward pass. Of bf16, the mean of dp comes from its rounded weights.
  const double tiny = (8 + 2 * problem.scores) * unit_roundoff + (sizeof(KV) == 2 ? 0x1p-9 : 0);
  check_results(exact, problem.template run_backward<float>(fast_forward(forward_scratch, 1), fast),
                problem.template run_backward<float>(naive_forward, naive),
                problem.template run_backward<double>(naive_forward, naive), tiny,
                1e-14 * (1 + problem.scores));
  CHECK(scratch.guarded());
}

constexpr Case cases_of_sizes[] = {
    {.window = 70, .position = 0, .rows = 9},
    {.window = 5, .position = 133, .rows = 9},
    {.window = 67, .position = 100, .rows = 3, .n_kv_heads = 2, .group = 2}};
constexpr int head_dims[] = {4, 8, 12, 16, 20, 64, 80, 128, 256};

/// A sequence that goes through rounding, attention and storing as in a layer, in any pieces.
template <class KV, class R = float>
struct Sequence {
  static constexpr int head_dim = 12, n_kv_heads = 2, group = 2, kv_width = n_kv_heads * head_dim;
  static constexpr int width = n_kv_heads * (group + 2) * head_dim, out_width = group * kv_width;
  using P = Policy<R, KV>;
  using Queries = Heads<R, n_kv_heads, group, head_dim>;
  using Keys = Heads<R, n_kv_heads, 1, head_dim>;

  /// The memory of one sequence's rings, NaN at first.
  struct State {
    std::vector<KV> k, v;
    explicit State(std::int64_t slots)
        : k(static_cast<std::size_t>(slots * kv_width), not_a_number<KV>()), v(k) {}
  };

  /// The rings of segments as operations take them.
  struct Rings {
    SegmentStates<KV> k_states, v_states;
    RingData<KV> k, v;

    Rings(const std::vector<Segment>& segments, const std::vector<State*>& states)
        : k_states(segments, members(states, &State::k)),
          v_states(segments, members(states, &State::v)),
          k{k_states.data(), std::ssize(states[0]->k) / kv_width},
          v{v_states.data(), std::ssize(states[0]->v) / kv_width} {}
    Rings(const std::vector<Segment>& segments, std::vector<State>& states)
        : Rings(segments, pointers_to(states)) {}
    bool take_over() { return k_states.take_over() && v_states.take_over(); }

   private:
    static std::vector<std::vector<KV>*> members(const std::vector<State*>& states,
                                                 std::vector<KV> State::* member) {
      std::vector<std::vector<KV>*> all;
      for (State* state : states) all.push_back(&(state->*member));
      return all;
    }
    static std::vector<State*> pointers_to(std::vector<State>& states) {
      std::vector<State*> all;
      for (State& state : states) all.push_back(&state);
      return all;
    }
  };

  /// Queries, keys and values in three buffers, in which rows and heads stand in different orders:
  /// queries head by head, keys and values row by row, those with gaps between heads.
  struct Apart {
    Guarded<R> q_memory, k_memory, v_memory;
    Queries q;
    Keys k, v;

    explicit Apart(std::int64_t rows)
        : q_memory(heads_of(rows), group * head_dim, group * head_dim + 3, 1),
          k_memory(heads_of(rows), head_dim, head_dim, 2),
          v_memory(heads_of(rows), head_dim, head_dim + 5, 0),
          q(q_memory.data(), rows, q_memory.stride(), rows * q_memory.stride()),
          k(Rows<R, kv_width>{k_memory.data(), rows}),
          v(v_memory.data(), rows, n_kv_heads * v_memory.stride(), v_memory.stride()) {}

    /// From rows of qkv, and back.
    void set(const std::vector<R>& qkv) const {
      each(qkv, [](R& mine, const R& fused) { mine = fused; });
    }
    std::vector<R> get() const {
      std::vector<R> qkv(static_cast<std::size_t>(q.rows * width));
      each(qkv, [](const R& mine, R& fused) { fused = mine; });
      CHECK((q_memory.guarded() && k_memory.guarded() && v_memory.guarded()));
      return qkv;
    }

   private:
    static std::size_t heads_of(std::int64_t rows) {
      return static_cast<std::size_t>(rows * n_kv_heads);
    }
    void each(auto& qkv, auto f) const {
      for (std::int64_t i = 0; i < q.rows; ++i)
        for (int g = 0; g < n_kv_heads; ++g) {
          auto* const from = qkv.data() + i * width + g * (group + 2) * head_dim;
          for (int d = 0; d < group * head_dim; ++d) f(q.at(i, g)[d], from[d]);
          for (int d = 0; d < head_dim; ++d) {
            f(k.at(i, g)[d], from[group * head_dim + d]);
            f(v.at(i, g)[d], from[(group + 1) * head_dim + d]);
          }
        }
    }
  };

  /// The outputs of queries for keys and values, (rows, out_width).
  static std::vector<R> attend(const Queries& q, const Keys& k, const Keys& v, std::int64_t window,
                               const std::vector<Segment>& segments,
                               const std::vector<State*>& states, int threads) {
    Rings rings(segments, states);
    std::vector<R> y(static_cast<std::size_t>(q.rows * out_width));
    std::vector<R> memory(static_cast<std::size_t>(threads) *
                          round_up(AttentionScratch<head_dim, R>::size, alignment));
    const AttentionScratch<head_dim, R> scratch{memory.data()};
    parallel(threads, [&](Team team) {
      const Context<P> c{{segments, q.rows}, {team}};
      attention<n_kv_heads, group, head_dim>(c, {.q = q,
                                                 .k = k,
                                                 .v = v,
                                                 .ring_k = rings.k,
                                                 .ring_v = rings.v,
                                                 .window = window,
                                                 .out = {y.data(), q.rows},
                                                 .scratch = scratch});
    });
    CHECK(rings.take_over());
    return y;
  }

  /// The outputs of rows of qkv, (rows, width).
  static std::vector<R> run(std::vector<R> qkv, std::int64_t window,
                            const std::vector<Segment>& segments, std::vector<State*> states,
                            int threads = 1) {
    const auto [q, k, v] = fused(qkv);
    return attend(q, k, v, window, segments, states, threads);
  }
  static std::vector<R> run_apart(const std::vector<R>& qkv, std::int64_t window,
                                  const std::vector<Segment>& segments, std::vector<State*> states,
                                  int threads = 1) {
    const Apart apart(std::ssize(qkv) / width);
    apart.set(qkv);
    return attend(apart.q, apart.k, apart.v, window, segments, states, threads);
  }

  /// The gradients of queries, keys and values for dout, after the forward pass from the same
  /// states; `gradients`: those of the rings, of every segment.
  static void attend_backward(const Queries& q, const Keys& k, const Keys& v,
                              const std::vector<R>& dout, std::int64_t window,
                              const std::vector<Segment>& segments,
                              const std::vector<State>& starts, const Queries& dq, const Keys& dk,
                              const Keys& dv,
                              std::vector<typename Sequence<R, R>::State>& gradients, int threads) {
    auto before = starts, after = starts;
    Rings found(segments, before), left(segments, after);
    typename Sequence<R, R>::Rings drings(segments, gradients);
    std::vector<R> y(dout.size()), log_sum(dout.size() / head_dim);
    const auto size = [&](std::int64_t n) {
      return static_cast<std::size_t>(threads * round_up(n, alignment));
    };
    std::vector<R> memory(size(AttentionScratch<head_dim, R>::size)),
        backward_memory(size(AttentionBackwardScratch<head_dim, R>::size));
    const AttentionScratch<head_dim, R> scratch{memory.data()};
    const AttentionBackwardScratch<head_dim, R> backward_scratch{backward_memory.data()};
    const Rows<R, out_width> out{y.data(), q.rows};
    const Rows<R, out_width / head_dim> sums{log_sum.data(), q.rows};
    parallel(threads, [&](Team team) {
      const Context<P> c{{segments, q.rows}, {team}};
      attention<n_kv_heads, group, head_dim>(c, {.q = q,
                                                 .k = k,
                                                 .v = v,
                                                 .ring_k = left.k,
                                                 .ring_v = left.v,
                                                 .window = window,
                                                 .out = out,
                                                 .log_sum = sums,
                                                 .scratch = scratch});
      attention_backward<n_kv_heads, group, head_dim>(c, {.q = q,
                                                          .k = k,
                                                          .v = v,
                                                          .ring_k = found.k,
                                                          .ring_v = found.v,
                                                          .window = window,
                                                          .out = out,
                                                          .log_sum = sums,
                                                          .dout = {dout.data(), q.rows},
                                                          .dq = dq,
                                                          .dk = dk,
                                                          .dv = dv,
                                                          .dring_k = drings.k,
                                                          .dring_v = drings.v,
                                                          .scratch = backward_scratch});
    });
    CHECK((found.take_over() && drings.take_over()));
    for (std::size_t i = 0; i < starts.size(); ++i)
      CHECK((same_bits(before[i].k, starts[i].k) && same_bits(before[i].v, starts[i].v)));
  }

  /// The gradients of qkv, in the same way.
  static std::vector<R> backward(std::vector<R> qkv, const std::vector<R>& dout,
                                 std::int64_t window, const std::vector<Segment>& segments,
                                 const std::vector<State>& starts,
                                 std::vector<typename Sequence<R, R>::State>& gradients,
                                 int threads = 1) {
    std::vector<R> dqkv(qkv.size());
    const auto [q, k, v] = fused(qkv);
    const auto [dq, dk, dv] = fused(dqkv);
    attend_backward(q, k, v, dout, window, segments, starts, dq, dk, dv, gradients, threads);
    return dqkv;
  }
  static std::vector<R> backward_apart(const std::vector<R>& qkv, const std::vector<R>& dout,
                                       std::int64_t window, const std::vector<Segment>& segments,
                                       const std::vector<State>& starts,
                                       std::vector<typename Sequence<R, R>::State>& gradients,
                                       int threads = 1) {
    const Apart in(std::ssize(qkv) / width), d(in.q.rows);
    in.set(qkv);
    attend_backward(in.q, in.k, in.v, dout, window, segments, starts, d.q, d.k, d.v, gradients,
                    threads);
    CHECK(same_bits(in.get(), qkv));
    return d.get();
  }

  static FusedHeads<R, n_kv_heads, group, head_dim> fused(std::vector<R>& qkv) {
    return FusedHeads<R, n_kv_heads, group, head_dim>(
        Rows<R, width>{qkv.data(), std::ssize(qkv) / width});
  }
  static std::vector<R> tokens(std::int64_t n, Random& rng) {
    return rng.values<R>(static_cast<std::size_t>(n * width), -1.5, 1.5);
  }
  static std::vector<R> part(const std::vector<R>& qkv, std::int64_t begin, std::int64_t end) {
    return {qkv.begin() + begin * width, qkv.begin() + end * width};
  }
};

template <class R>
void append(std::vector<R>& to, const std::vector<R>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

/// The outputs of a sequence split anywhere are those of its tokens one by one: from every token on
/// a piece of some length, and from some tokens on all the rest, and from the first all up to them.
template <class KV>
void check_splits(std::int64_t window, std::int64_t slots, std::int64_t length) {
  using S = Sequence<KV>;
  Random rng;
  CAPTURE(rng.seed, window, slots, length, sizeof(KV));
  const auto qkv = S::tokens(length, rng);
  std::vector<typename S::State> states{typename S::State(slots)};  // before token i
  std::vector<float> steps;
  for (std::int64_t i = 0; i < length; ++i) {
    states.push_back(states.back());
    append(steps, S::run(S::part(qkv, i, i + 1), window, {{i, 0, 1}}, {&states.back()}));
  }
  const auto as_steps = [&](std::int64_t begin, std::int64_t end) {
    auto state = states[static_cast<std::size_t>(begin)];
    const auto& after = states[static_cast<std::size_t>(end)];
    const auto y = S::run(S::part(qkv, begin, end), window, {{begin, 0, end - begin}}, {&state});
    const std::vector<float> expected(steps.begin() + begin * S::out_width,
                                      steps.begin() + end * S::out_width);
    return same_result(y, expected) && same_bits(state.k, after.k) && same_bits(state.v, after.v);
  };
  int wrong = 0;
  for (std::int64_t split = 0; split < length; ++split) {
    wrong += !as_steps(split, std::min<std::int64_t>(length, split + 2 + rng.below(70)));
    if (length <= 60 || split % 16 == 0) wrong += !as_steps(split, length) + !as_steps(0, split);
  }
  CHECK(wrong == 0);
  CHECK(relative_error(steps, steps) == 0);  // all are finite
}

}  // namespace

TEST_CASE("attention: simd against reference, head sizes, keys in float and bfloat16") {
  Random rng;
  for (const int head_dim : head_dims)
    for (const Case& c : cases_of_sizes) {
      check(head_dim, c, rng);
      check<bf16>(head_dim, c, rng);
    }
}

TEST_CASE("attention: a window sees position - window < j <= position") {
  Random rng;
  for (const std::int64_t window : {1, 2, 3, 5, 16, 63, 64, 65, 100, 128, 129})
    for (const std::int64_t position :
         {std::int64_t{0}, std::int64_t{1}, window - 1, window, window + 1, 3 * window + 7})
      for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{2}, window + 3})
        check(8, {.window = window, .position = position, .rows = rows}, rng);
}

TEST_CASE("attention: other scales, capped scores, sinks") {
  Random rng;
  for (const int head_dim : {4, 20, 128})
    for (const Case& sizes : cases_of_sizes)
      for (const float cap : {0.f, 0.5f, 30.f})
        for (const float divisor : {0.f, 1.5f})
          for (const bool sinks : {false, true}) {
            Case c = sizes;
            c.cap = cap;
            c.divisor = divisor;
            c.sinks = sinks;
            c.scale = 2;
            check(head_dim, c, rng);
            check<bf16>(head_dim, c, rng);
            check_backward(head_dim, c, rng);
            check_backward<bf16>(head_dim, c, rng);
          }
}

TEST_CASE("attention: every number of keys around the vector width and the tile") {
  Random rng;
  for (std::int64_t keys = 1; keys <= 3 * vector_floats + 1; ++keys) {
    check(8, {.window = keys, .position = 200, .rows = 2}, rng);
    check<bf16>(8, {.window = all_keys, .position = keys - 1, .rows = 1}, rng);
  }
  for (std::int64_t keys = kernels::attention_tile - 2; keys <= kernels::attention_tile + 2; ++keys)
    for (std::int64_t position = 126; position <= 130; ++position)
      check(8, {.window = keys, .position = position, .rows = 1}, rng);
}

TEST_CASE("attention: full causal attention") {
  Random rng;
  for (const std::int64_t position : {0, 1, 63, 64, 65, 200})
    for (const std::int64_t rows : {1, 2, 70}) {
      const Case c{
          .window = all_keys, .position = position, .rows = rows, .n_kv_heads = 2, .group = 3};
      check(16, c, rng);
      check<bf16>(16, c, rng);
    }
}

TEST_CASE("attention: query heads share key/value heads in groups, more rows than a block") {
  Random rng;
  for (const int n_kv_heads : {1, 2, 3})
    for (const int group : {1, 2, 3, 7, 64})
      check(4,
            {.window = 9,
             .position = 20,
             .rows = 2 * kernels::attention_rows / group + 3,
             .n_kv_heads = n_kv_heads,
             .group = group},
            rng);
}

TEST_CASE("attention: simd against reference, every misalignment, rows with gaps") {
  Random rng;
  every_misalignment(Case{.window = 7, .position = 30, .rows = 3, .group = 2},
                     {&Case::qkv_offset, &Case::ring_offset, &Case::out_offset},
                     [&](const Case& c) {
                       check(20, c, rng);
                       check<bf16>(20, c, rng);
                     });
}

TEST_CASE("attention: large and tiny scores, without overflow") {
  Random rng;
  for (const double scale : {1e-20, 1e-3, 5., 30., 1000.})
    check(16, {.window = 100, .position = 150, .rows = 5, .scale = scale}, rng);
}

TEST_CASE("attention: huge scores pick the largest key") {
  Random rng;
  CAPTURE(rng.seed);
  using S = Sequence<float>;
  // One query, scores of up to 1e30 of both signs: the softmax is one at the best key.
  for (int best = 0; best < 40; ++best) {
    auto qkv = S::tokens(40, rng);
    for (std::int64_t token = 0; token < 40; ++token)
      for (int head = 0; head < S::width / S::head_dim; ++head) {
        const int place = head % (S::group + 2);
        for (int d = 0; d < S::head_dim && place <= S::group; ++d)
          qkv[static_cast<std::size_t>(token * S::width + head * S::head_dim + d)] =
              place < S::group ? 1e15f
              : token == best  ? 1e14f
                               : -1e14f * static_cast<float>(token % 3);
      }
    S::State state(64);
    const auto y = S::run(qkv, 64, {{0, 0, 40}}, {&state});
    const auto* last = &y[39 * S::out_width];
    for (int head = 0; head < S::n_kv_heads * S::group; ++head)
      for (int d = 0; d < S::head_dim; ++d) {
        const int value = (head / S::group * (S::group + 2) + S::group + 1) * S::head_dim + d;
        CHECK(last[head * S::head_dim + d] ==
              Approx(qkv[static_cast<std::size_t>(best * S::width + value)]));
      }
  }
}

TEST_CASE("attention: equal scores give the mean of the values") {
  Random rng;
  CAPTURE(rng.seed);
  using S = Sequence<float>;
  auto qkv = S::tokens(50, rng);
  for (std::size_t i = 0; i < qkv.size(); ++i)
    if (i % S::width / S::head_dim % (S::group + 2) == S::group) qkv[i] = 0;  // keys
  S::State state(7);
  const auto y = S::run(qkv, 7, {{0, 0, 50}}, {&state});
  std::vector<double> mean;
  for (std::size_t token = 0; token < 50; ++token)
    for (std::size_t head = 0; head < S::n_kv_heads * S::group; ++head)
      for (std::size_t d = 0; d < S::head_dim; ++d) {
        const std::size_t begin = token < 7 ? 0 : token - 6;
        double sum = 0;
        for (std::size_t j = begin; j <= token; ++j)
          sum += double{qkv[j * S::width +
                            (head / S::group * (S::group + 2) + S::group + 1) * S::head_dim + d]};
        mean.push_back(sum / static_cast<double>(token - begin + 1));
      }
  CHECK(relative_error(y, mean) <= 8 * unit_roundoff);
}

TEST_CASE("attention: the same bits for a sequence split anywhere") {
  for (const std::int64_t window : {1, 2, 5, 16, 63, 64, 65, 100})
    check_splits<float>(window, window, 3 * window + 7);
  check_splits<float>(all_keys, 90, 90);
  check_splits<bf16>(5, 5, 22);
  check_splits<bf16>(65, 65, 140);
  check_splits<bf16>(all_keys, 70, 70);
}

TEST_CASE("attention: the same bits for a sequence in random pieces, far from its start") {
  Random rng;
  CAPTURE(rng.seed);
  using S = Sequence<bf16>;
  constexpr std::int64_t window = 37, length = 150, start = (std::int64_t{1} << 33) - 80;
  const auto qkv = S::tokens(length, rng);
  // The window before the first token holds something, as if the sequence had run up to there.
  S::State begin(window);
  const auto earlier = S::tokens(window, rng);
  S::run(earlier, window, {{start - window, 0, window}}, {&begin});
  S::State whole_state = begin;
  const auto whole = S::run(qkv, window, {{start, 0, length}}, {&whole_state});
  for (int attempt = 0; attempt < 20; ++attempt) {
    CAPTURE(attempt);
    S::State state = begin;
    std::vector<float> y;
    for (std::int64_t at = 0; at < length;) {
      const std::int64_t n = std::min<std::int64_t>(length - at, 1 + rng.below(60));
      append(y, S::run(S::part(qkv, at, at + n), window, {{start + at, 0, n}}, {&state},
                       1 + rng.below(3)));
      at += n;
    }
    CHECK(same_result(y, whole));
    CHECK(same_bits(state.k, whole_state.k));
    CHECK(same_bits(state.v, whole_state.v));
  }
}

TEST_CASE("attention: segments of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  const auto run = [&]<class S>(S) {
    constexpr std::int64_t window = 19;
    std::vector<typename S::State> starts, ends;
    std::vector<Segment> segments;
    typename std::remove_cvref_t<decltype(S::tokens(1, rng))> qkv, alone;
    for (const std::int64_t n : {1, 70, 2, 0, 33}) {
      const std::int64_t position = rng.below(200);
      typename S::State state(window);
      if (position > 0) S::run(S::tokens(position, rng), window, {{0, 0, position}}, {&state});
      starts.push_back(state);
      const auto part = S::tokens(n, rng);
      segments.push_back({position, static_cast<std::int64_t>(qkv.size() / S::width), n,
                          4 - std::ssize(segments)});
      append(qkv, part);
      append(alone, S::run(part, window, {{position, 0, n}}, {&state}));
      ends.push_back(state);
    }
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      auto states = starts;
      std::vector<typename S::State*> all;
      for (auto& state : states) all.push_back(&state);
      CHECK(same_result(S::run(qkv, window, segments, all, threads), alone));
      for (std::size_t s = 0; s < states.size(); ++s) {
        CHECK(same_bits(states[s].k, ends[s].k));
        CHECK(same_bits(states[s].v, ends[s].v));
      }
    }
  };
  run(Sequence<float>{});
  run(Sequence<bf16>{});
  run(Sequence<double, double>{});
}

TEST_CASE("attention: keys and values in bfloat16 are rounded before any use") {
  Random rng;
  CAPTURE(rng.seed);
  // Rings of bfloat16 give the same bits for inputs that were rounded before, and what rings of
  // float give for those, but for the rounding of weights.
  using Narrow = Sequence<bf16>;
  using Wide = Sequence<float>;
  constexpr std::int64_t window = 20, length = 90;
  const auto qkv = Narrow::tokens(length, rng);
  std::vector<float> rounded;
  for (const float x : qkv) rounded.push_back(static_cast<float>(bf16(x)));
  Narrow::State narrow(window), narrow_rounded(window);
  Wide::State wide(window);
  std::int64_t at = 0;
  for (const std::int64_t n : {50, 1, 39}) {
    const std::vector<Segment> segments{{at, 0, n}};
    const auto some = Narrow::part(rounded, at, at + n);
    const auto y = Narrow::run(Narrow::part(qkv, at, at + n), window, segments, {&narrow});
    CHECK(same_result(y, Narrow::run(some, window, segments, {&narrow_rounded})));
    const double off = relative_error(y, Wide::run(some, window, segments, {&wide}));
    CHECK((off > 1e-4 && off < 0x1p-8));
    at += n;
  }
  CHECK(convert<float>(narrow.k) == wide.k);
  CHECK(convert<float>(narrow.v) == wide.v);
}

TEST_CASE("attention: the rings take the last tokens, slot = position modulo slots") {
  Random rng;
  CAPTURE(rng.seed);
  using S = Sequence<float>;
  constexpr std::int64_t slots = 6;
  for (const std::int64_t n : {1, 5, 6, 7, 20}) {
    CAPTURE(n);
    const std::int64_t position = 10;
    const auto qkv = S::tokens(n, rng);
    S::State state(slots);
    S::run(qkv, slots, {{position, 0, n}}, {&state});
    int wrong = 0;
    for (std::int64_t slot = 0; slot < slots; ++slot) {
      std::int64_t token = -1;  // the last with this slot
      for (std::int64_t i = 0; i < n; ++i)
        if ((position + i) % slots == slot) token = i;
      for (int g = 0; g < S::n_kv_heads; ++g)
        for (int d = 0; d < S::head_dim; ++d) {
          const auto at = static_cast<std::size_t>((g * slots + slot) * S::head_dim + d);
          const auto key = static_cast<std::size_t>(
              token * S::width + (g * (S::group + 2) + S::group) * S::head_dim + d);
          if (token < 0)
            wrong += is_finite(state.k[at]) || is_finite(state.v[at]);  // untouched
          else
            wrong += state.k[at] != qkv[key] || state.v[at] != qkv[key + S::head_dim];
        }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("attention backward: simd against reference, head sizes, keys in float and bfloat16") {
  Random rng;
  for (const int head_dim : head_dims)
    for (const Case& c : cases_of_sizes) {
      check_backward(head_dim, c, rng);
      check_backward<bf16>(head_dim, c, rng);
    }
}

TEST_CASE(
    "attention backward: windows and positions around the tile, before and after the ring wraps") {
  Random rng;
  for (const std::int64_t window : {1, 2, 5, 63, 64, 65, 129})
    for (const std::int64_t position :
         {std::int64_t{0}, std::int64_t{1}, window - 1, window, window + 1, 3 * window + 7})
      for (const std::int64_t rows : {std::int64_t{1}, window - 1, window, window + 3})
        if (rows > 0)
          check_backward(4, {.window = window, .position = position, .rows = rows}, rng);
  for (std::int64_t window = 62; window <= 66; ++window)
    for (std::int64_t position = 126; position <= 130; ++position)
      check_backward<bf16>(8, {.window = window, .position = position, .rows = 2}, rng);
}

TEST_CASE("attention backward: full causal attention, groups of query heads, blocks of rows") {
  Random rng;
  for (const std::int64_t position : {0, 1, 64, 200})
    for (const std::int64_t rows : {1, 2, 47, 70}) {
      const Case c{
          .window = all_keys, .position = position, .rows = rows, .n_kv_heads = 2, .group = 3};
      check_backward(12, c, rng);
      check_backward<bf16>(12, c, rng);
    }
  for (const int group : {1, 2, 7, 50, 64})
    check_backward(
        4, {.window = 9, .position = 20, .rows = 100 / group + 3, .n_kv_heads = 2, .group = group},
        rng);
}

TEST_CASE("attention backward: simd against reference, every misalignment, rows with gaps") {
  Random rng;
  every_misalignment(Case{.window = 7, .position = 30, .rows = 3, .group = 2},
                     {&Case::qkv_offset, &Case::ring_offset, &Case::out_offset},
                     [&](const Case& c) {
                       check_backward(20, c, rng);
                       check_backward<bf16>(20, c, rng);
                     });
}

TEST_CASE("attention backward: large and tiny scores") {
  Random rng;
  for (const double scale : {1e-15, 1e-3, 5., 30., 200.})
    check_backward(16, {.window = 100, .position = 150, .rows = 5, .scale = scale}, rng);
}

TEST_CASE("attention backward: huge scores give finite gradients") {
  Random rng;
  CAPTURE(rng.seed);
  using S = Sequence<float>;
  for (const float scale : {1e3f, 1e6f, 1e9f, 1e12f, 1e15f}) {
    CAPTURE(scale);
    auto qkv = S::tokens(90, rng);
    for (std::size_t i = 0; i < qkv.size(); ++i)
      if (i % S::width / S::head_dim % (S::group + 2) <= S::group) qkv[i] *= scale;
    std::vector<S::State> state{S::State(64)}, gradient{S::State(64)};
    for (auto* ring : {&gradient[0].k, &gradient[0].v}) std::fill(ring->begin(), ring->end(), 0.f);
    const auto dqkv =
        S::backward(qkv, rng.values(90 * S::out_width), 64, {{0, 0, 90}}, state, gradient);
    CHECK(relative_error(dqkv, dqkv) == 0);  // all are finite
  }
}

TEST_CASE("attention backward: segments of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  const auto run = [&]<class KV, class R>(KV, R, std::int64_t window, std::int64_t slots,
                                          const std::vector<std::int64_t>& lengths) {
    using S = Sequence<KV, R>;
    CAPTURE(window, lengths);
    std::vector<typename S::State> starts;
    std::vector<typename Sequence<R, R>::State> gradients, ends;
    std::vector<Segment> segments;
    std::vector<R> qkv, dout, alone;
    for (const std::int64_t n : lengths) {
      const int most = window == all_keys ? static_cast<int>(slots - n) : 200;
      const std::int64_t position = rng.below(most);
      typename S::State state(slots);
      if (position > 0) S::run(S::tokens(position, rng), window, {{0, 0, position}}, {&state});
      typename Sequence<R, R>::State gradient(slots);
      for (auto* ring : {&gradient.k, &gradient.v}) rng.fill(std::span(*ring));
      const auto part = S::tokens(n, rng);
      const auto dpart = rng.values<R>(static_cast<std::size_t>(n * S::out_width));
      std::vector<typename Sequence<R, R>::State> end{gradient};
      append(alone, S::backward(part, dpart, window, {{position, 0, n}}, {state}, end));
      segments.push_back({position, static_cast<std::int64_t>(qkv.size() / S::width), n,
                          std::ssize(lengths) - 1 - std::ssize(segments)});
      starts.push_back(state);
      gradients.push_back(gradient);
      ends.push_back(end[0]);
      append(qkv, part);
      append(dout, dpart);
      if (n == 0) CHECK((same_bits(end[0].k, gradient.k) && same_bits(end[0].v, gradient.v)));
    }
    for (int threads = 1; threads <= 5; ++threads) {
      CAPTURE(threads);
      auto found = gradients;
      CHECK(same_result(S::backward(qkv, dout, window, segments, starts, found, threads), alone));
      for (std::size_t s = 0; s < found.size(); ++s) {
        CHECK(same_result(found[s].k, ends[s].k));
        CHECK(same_result(found[s].v, ends[s].v));
      }
    }
  };
  run(float{}, float{}, 19, 19, {1, 70, 2, 0, 33});
  run(bf16{}, float{}, 19, 19, {1, 70, 2, 0, 33});
  run(double{}, double{}, 19, 19, {1, 70, 2, 0, 33});
  // Fewer heads than threads, which then share one by its tiles of keys.
  run(float{}, float{}, 150, 150, {500});
  run(bf16{}, float{}, 64, 64, {333, 5});
  run(float{}, float{}, all_keys, 700, {400, 3});
}

TEST_CASE("attention backward: bfloat16 rounds queries, keys and values before any use") {
  Random rng;
  CAPTURE(rng.seed);
  using S = Sequence<bf16>;
  const auto qkv = S::tokens(90, rng), dout = rng.values(90 * S::out_width);
  std::vector<float> rounded;
  for (const float x : qkv) rounded.push_back(static_cast<float>(bf16(x)));
  std::vector<Sequence<float>::State> gradients(1, Sequence<float>::State(20)), again = gradients;
  for (auto* g : {&gradients[0], &again[0]})
    std::fill(g->k.begin(), g->k.end(), 0.f), std::fill(g->v.begin(), g->v.end(), 0.f);
  const std::vector<S::State> start(1, S::State(20));
  CHECK(same_result(S::backward(qkv, dout, 20, {{0, 0, 90}}, start, gradients),
                    S::backward(rounded, dout, 20, {{0, 0, 90}}, start, again)));
}

TEST_CASE("attention, attention backward: the same bits for q, k and v apart as in one row") {
  Random rng;
  CAPTURE(rng.seed);
  const auto run = [&]<class KV, class R>(KV, R) {
    using S = Sequence<KV, R>;
    constexpr std::int64_t window = 19;
    std::vector<typename S::State> starts;
    std::vector<typename Sequence<R, R>::State> gradients;
    std::vector<Segment> segments;
    std::vector<R> qkv, dout;
    for (const std::int64_t n : {70, 1, 9}) {
      const std::int64_t position = rng.below(200);
      typename S::State state(window);
      if (position > 0) S::run(S::tokens(position, rng), window, {{0, 0, position}}, {&state});
      typename Sequence<R, R>::State gradient(window);
      for (auto* ring : {&gradient.k, &gradient.v}) rng.fill(std::span(*ring));
      segments.push_back({position, std::ssize(qkv) / S::width, n, 2 - std::ssize(segments)});
      starts.push_back(state);
      gradients.push_back(gradient);
      append(qkv, S::tokens(n, rng));
      append(dout, rng.values<R>(static_cast<std::size_t>(n * S::out_width)));
    }
    for (int threads = 1; threads <= 3; ++threads) {
      CAPTURE(sizeof(KV), sizeof(R), threads);
      auto states = starts, same_states = starts;
      const auto pointers = [](auto& all) {
        return std::vector<typename S::State*>{&all[0], &all[1], &all[2]};
      };
      CHECK(same_result(S::run_apart(qkv, window, segments, pointers(states), threads),
                        S::run(qkv, window, segments, pointers(same_states), threads)));
      auto found = gradients, same_found = gradients;
      CHECK(same_result(S::backward_apart(qkv, dout, window, segments, starts, found, threads),
                        S::backward(qkv, dout, window, segments, starts, same_found, threads)));
      for (std::size_t s = 0; s < starts.size(); ++s) {
        CHECK(
            (same_bits(states[s].k, same_states[s].k) && same_bits(states[s].v, same_states[s].v)));
        CHECK(
            (same_result(found[s].k, same_found[s].k) && same_result(found[s].v, same_found[s].v)));
      }
    }
  };
  run(float{}, float{});
  run(bf16{}, float{});
  run(double{}, double{});
}
