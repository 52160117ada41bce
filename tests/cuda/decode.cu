// The kernels for few rows: matrix products and attention against sums in double, and equal bits for
// every number of rows; operations that share a kernel, which have the bits of one after the other.
// Usage: decode          Exit status 77 where there is no device.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "tests/cuda/support.cuh"

using namespace samba;
using namespace samba_test;

namespace {

/// Reproducible numbers in [-1, 1).
struct Numbers {
  std::uint64_t state = 1;
  float operator()() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(static_cast<std::int64_t>(state) >> 40) / 8388608.f;
  }
  std::vector<bf16> narrow(std::size_t n) {
    std::vector<bf16> all(n);
    for (bf16& x : all) x = to_bf16((*this)());
    return all;
  }
  static bf16 to_bf16(float x) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof(bits));
    bf16 out;
    out.bits = static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    return out;
  }
};
double number(bf16 x) {
  const std::uint32_t bits = std::uint32_t{x.bits} << 16;
  float out = 0;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
}
double number(float x) { return x; }

using RowM = RowMajor<bf16>;

/// All plans that a benchmark may try, and the one that is used.
std::vector<cuda::FewRowsPlan> plans(std::int64_t N, std::int64_t K) {
  std::vector<cuda::FewRowsPlan> all{cuda::few_rows_plan(N, K)};
  for (const auto [tiles, unroll] : {std::pair{1, 4}, {1, 8}, {2, 4}, {2, 8}, {4, 4}})
    for (const int split : {1, 4, 8, 16})
      if (split <= cuda::few_rows_warps(tiles, unroll))
        all.push_back({tiles, unroll, split < 4 ? 4 : split, split});
  return all;
}

template <class O>
void check_matmul(const cuda::Device& device, std::int64_t N, std::int64_t K, bool bias,
                  double& worst) {
  constexpr std::int64_t most = cuda::few_rows;
  Numbers numbers;
  const std::int64_t x_stride = K + 8, out_stride = N + 3;
  const auto w = numbers.narrow(static_cast<std::size_t>(N * K)),
             x = numbers.narrow(static_cast<std::size_t>(most * x_stride));
  std::vector<float> b(static_cast<std::size_t>(N));
  for (float& value : b) value = numbers();
  // Against double, of few outputs of large matrices.
  const std::int64_t step = N > 4096 ? 37 : 1;
  std::vector<double> exact(static_cast<std::size_t>(most * N));
  for (std::int64_t i = 0; i < most; ++i)
    for (std::int64_t n = 0; n < N; n += step) {
      double sum = bias ? double{b[static_cast<std::size_t>(n)]} : 0.;
      for (std::int64_t k = 0; k < K; ++k)
        sum += number(x[static_cast<std::size_t>(i * x_stride + k)]) *
               number(w[static_cast<std::size_t>(n * K + k)]);
      exact[static_cast<std::size_t>(i * N + n)] = sum;
    }
  DeviceCopy<bf16> on_w(w), on_x(x);
  DeviceCopy<float> on_b(b);
  O guard{};
  std::memset(&guard, 0x5a, sizeof(guard));
  for (const auto& plan : plans(N, K)) {
    std::vector<O> of_all;
    for (const std::int64_t rows :
         {most, std::int64_t{1}, std::int64_t{2}, std::int64_t{7}, std::int64_t{8}, std::int64_t{9},
          std::int64_t{16}, std::int64_t{17}, std::int64_t{47}}) {
      // The last `rows` rows, so that a row has other neighbours and another place.
      const std::int64_t first = most - rows;
      DeviceCopy<O> out(std::vector<O>(static_cast<std::size_t>(most * out_stride), guard));
      const kernels::MatmulArgs<RowM, bf16, O> a{.w = on_w.data(),
                                                 .bias = bias ? on_b.data() : nullptr,
                                                 .x = on_x.data() + first * x_stride,
                                                 .x_stride = x_stride,
                                                 .out = out.data(),
                                                 .out_stride = out_stride,
                                                 .rows = rows,
                                                 .N = N,
                                                 .K = K};
      is_right(cuda::has_few_rows(a), "has_few_rows");
      cuda::matmul_few_rows<true>(device.get(), a, plan);
      device.synchronize();
      const auto found = out.read();
      if (of_all.empty()) of_all = found;
      bool same = true, untouched = true;
      for (std::int64_t i = 0; i < most; ++i)
        for (std::int64_t n = 0; n < out_stride; ++n) {
          const auto at = static_cast<std::size_t>(i * out_stride + n);
          if (i >= rows || n >= N) {
            untouched &= std::memcmp(&found[at], &guard, sizeof(O)) == 0;
            continue;
          }
          const std::int64_t row = first + i;
          same &= std::memcmp(&found[at], &of_all[static_cast<std::size_t>(row * out_stride + n)],
                              sizeof(O)) == 0;
          if (n % step == 0) {
            const double expected = exact[static_cast<std::size_t>(row * N + n)];
            // In units of the typical size of a sum.
            const double error = std::abs(number(found[at]) - expected) / std::sqrt(double(K) + 1);
            worst = error > worst || std::isnan(error) ? error : worst;
          }
        }
      if (!same || !untouched)
        std::printf("  plan {%d, %d, %d, %d}, N %lld, K %lld, rows %lld\n", plan.tiles, plan.unroll,
                    plan.warps, plan.split, static_cast<long long>(N), static_cast<long long>(K),
                    static_cast<long long>(rows));
      is_right(same, "matmul: a row has the same bits in every batch");
      is_right(untouched, "matmul: nothing is written outside of the result");
    }
  }
}

void check_products(const cuda::Device& device) {
  double worst = 0, worst_narrow = 0;
  for (const auto [N, K] : {std::pair{1, 8},
                            {7, 40},
                            {16, 128},
                            {33, 72},
                            {160, 4096},
                            {1024, 64},
                            {1030, 1000},
                            {2048, 2048},
                            {2560, 520},
                            {4096, 128},
                            {1500, 8192}}) {
    check_matmul<float>(device, N, K, N % 2 == 0, worst);
    check_matmul<bf16>(device, N, K, N % 2 == 1, worst_narrow);
  }
  check_matmul<float>(device, 50304, 256, false, worst);
  // Tensor cores cut what they add: up to 2^-23 of the sum for each of K / 16 steps.
  std::printf("matmul: error %.2e, at most 3e-5; rounded to bf16 %.2e, at most 1e-2\n", worst,
              worst_narrow);
  is_right(worst < 3e-5, "matmul");
  is_right(worst_narrow < 1e-2, "matmul to bf16");
}

/// One layer of attention of several sequences.
struct Case {
  int n_kv_heads, group, head_dim;
  std::int64_t window, n_slots;
  float cap;
  bool sinks, update;
  std::vector<Segment> segments;
};

struct Result {
  std::vector<bf16> out, log_sum, rings;
};

void check_attention(const cuda::Device& device, const Case& c, double& worst, double& worst_log) {
  const std::int64_t D = c.head_dim, heads = c.n_kv_heads * c.group,
                     width = (heads + 2 * c.n_kv_heads) * D, states = 4;
  std::int64_t rows = 0;
  for (const Segment& s : c.segments) rows += s.rows;
  Numbers numbers;
  const auto qkv = numbers.narrow(static_cast<std::size_t>(rows * width));
  const std::int64_t ring = c.n_kv_heads * c.n_slots * D, to_next = 2 * ring;
  const auto rings = numbers.narrow(static_cast<std::size_t>(states * to_next));
  std::vector<float> sinks(static_cast<std::size_t>(heads));
  for (float& s : sinks) s = 3 * numbers();
  const float divisor = std::sqrt(static_cast<float>(D)) / 4;  // peaked weights

  DeviceCopy<bf16> on_qkv(qkv);
  DeviceCopy<float> on_sinks(sinks);
  // How: 0 for all by parts, 1 for the kernel of any number of rows, 2 for one segment after the other.
  const auto run = [&](int how) {
    DeviceCopy<bf16> on_rings(rings);
    DeviceCopy<bf16> out(std::vector<bf16>(static_cast<std::size_t>(rows * heads * D))),
        log_sum(std::vector<bf16>(static_cast<std::size_t>(rows * heads)));
    kernels::AttentionChunk<bf16, bf16> a{};
    bf16* const x = on_qkv.data();
    a.args.q = {x, width, c.group * D};
    a.args.k = {x + heads * D, width, D};
    a.args.v = {x + (heads + c.n_kv_heads) * D, width, D};
    a.args.n_slots = c.n_slots;
    a.args.window = c.window;
    a.args.rows = rows;
    a.args.n_kv_heads = c.n_kv_heads;
    a.args.group = c.group;
    a.args.head_dim = c.head_dim;
    a.args.divisor = divisor;
    a.args.cap = c.cap;
    a.args.sinks = c.sinks ? on_sinks.data() : nullptr;
    a.args.out = out.data();
    a.args.out_stride = heads * D;
    a.args.log_sum = log_sum.data();
    a.ring_k.data = on_rings.data();
    a.ring_v.data = on_rings.data() + ring;
    a.ring_k.stride = a.ring_v.stride = to_next * std::int64_t{sizeof(bf16)};
    a.update_rings = c.update;
    const auto submit = [&](std::vector<Segment> some, std::int64_t n) {
      DeviceCopy<Segment> on_device(some);
      const Chunk chunk{{on_device.data(), some.size()}, n};
      if (how == 1) {
        const dim3 grid(static_cast<unsigned>(n), static_cast<unsigned>(heads),
                        static_cast<unsigned>(some.size()));
        cuda::launch_kernel(device.get(), "attention", cuda::attention<bf16, bf16>, grid,
                            cuda::attention_threads,
                            static_cast<std::size_t>(2 * D) * sizeof(float), chunk.segments.data(),
                            a.args, ArrayData<bf16>(a.ring_k), ArrayData<bf16>(a.ring_v));
        if (c.update)
          launch(device.get(), chunk,
                 kernels::UpdateRingsChunk<bf16, bf16>{a.args, a.ring_k, a.ring_v});
      } else {
        is_right(cuda::attention_by_parts(device.get(), chunk, a), "attention_by_parts");
      }
      device.synchronize();
    };
    if (how == 2) {
      for (const Segment& s : c.segments) {  // as the only rows of their chunk
        a.args.q.data = x + s.first_row * width;
        a.args.k.data = x + heads * D + s.first_row * width;
        a.args.v.data = x + (heads + c.n_kv_heads) * D + s.first_row * width;
        a.args.out = out.data() + s.first_row * heads * D;
        a.args.log_sum = log_sum.data() + s.first_row * heads;
        submit({{s.position, 0, s.rows, s.state}}, s.rows);
      }
    } else {
      submit(c.segments, rows);
    }
    return Result{out.read(), log_sum.read(), on_rings.read()};
  };
  const Result parts = run(0), any = run(1), alone = run(2);
  const auto same = [](const std::vector<bf16>& a, const std::vector<bf16>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(bf16)) == 0;
  };
  is_right(same(parts.rings, any.rings), "rings, as update_rings leaves them");
  is_right(same(parts.out, alone.out) && same(parts.log_sum, alone.log_sum) &&
               same(parts.rings, alone.rings),
           "attention: the same bits in every batch");

  double difference = 0;
  for (const Segment& s : c.segments)
    for (std::int64_t i = 0; i < s.rows; ++i)
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t row = s.first_row + i, position = s.position + i, g = h / c.group;
        const std::int64_t begin = position < c.window ? 0 : position - c.window + 1;
        const auto at = [&](std::int64_t j, bool value, std::int64_t d) {
          if (j >= s.position)
            return number(
                qkv[static_cast<std::size_t>((s.first_row + j - s.position) * width +
                                             (heads + (value ? c.n_kv_heads : 0) + g) * D + d)]);
          return number(rings[static_cast<std::size_t>(s.state * to_next + (value ? ring : 0) +
                                                       (g * c.n_slots + j % c.n_slots) * D + d)]);
        };
        std::vector<double> scores;
        double maximum = c.sinks ? sinks[static_cast<std::size_t>(h)] : -INFINITY;
        for (std::int64_t j = begin; j <= position; ++j) {
          double score = 0;
          for (std::int64_t d = 0; d < D; ++d)
            score +=
                number(qkv[static_cast<std::size_t>(row * width + h * D + d)]) * at(j, false, d);
          score /= divisor;
          if (c.cap > 0) score = c.cap * std::tanh(score / c.cap);
          scores.push_back(score);
          maximum = (std::max)(maximum, score);
        }
        double total = c.sinks ? std::exp(sinks[static_cast<std::size_t>(h)] - maximum) : 0.;
        for (double& score : scores) total += score = std::exp(score - maximum);
        for (std::int64_t d = 0; d < D; ++d) {
          double sum = 0;
          for (std::size_t j = 0; j < scores.size(); ++j)
            sum += scores[j] * at(begin + static_cast<std::int64_t>(j), true, d);
          const auto to = static_cast<std::size_t>((row * heads + h) * D + d);
          const double found = number(parts.out[to]), error = std::abs(found - sum / total);
          worst = error > worst || std::isnan(error) ? error : worst;
          difference = (std::max)(difference, std::abs(found - number(any.out[to])));
        }
        const double exact = maximum + std::log(total),
                     error =
                         std::abs(number(parts.log_sum[static_cast<std::size_t>(row * heads + h)]) -
                                  exact) /
                         (1 + std::abs(exact));
        worst_log = error > worst_log || std::isnan(error) ? error : worst_log;
      }
  is_right(difference < 2e-2, "attention: as the kernel for any number of rows");
}

void check_attentions(const cuda::Device& device) {
  double worst = 0, worst_log = 0;
  const std::vector<Segment> first{{0, 0, 1, 0}}, full{{5000, 0, 1, 1}},
      // Of a tile's edges, before and after the window is full; 16 rows
      batch{{63, 0, 1, 2}, {64, 1, 1, 0}, {2047, 2, 1, 3}, {4095, 3, 13, 1}},
      some{{10, 0, 3, 1}, {250, 3, 5, 0}};
  for (const auto& segments : {first, full, batch}) {
    check_attention(device, {4, 8, 64, 2048, 2048, 0, false, true, segments}, worst, worst_log);
    check_attention(device, {2, 3, 128, 200, 200, 5, true, true, segments}, worst, worst_log);
    check_attention(device, {1, 5, 256, 100, 100, 0, true, false, segments}, worst, worst_log);
    check_attention(device, {2, 1, 64, 3, 3, 0, false, true, segments}, worst, worst_log);
  }
  for (const auto& segments : {first, some})  // full attention
    check_attention(device, {2, 4, 64, 512, 512, 0, true, true, segments}, worst, worst_log);
  std::printf("attention: error %.2e, at most 1e-2; logarithms %.2e, at most 1e-2\n", worst,
              worst_log);
  is_right(worst < 1e-2, "attention");
  is_right(worst_log < 1e-2, "attention: log_sum");
}

/// Operations that share a kernel against the same ones with a pause between them.
void check_together(const cuda::Device& device, std::int64_t rows, std::int64_t N, std::int64_t K,
                    bool bias) {
  Numbers numbers;
  const std::int64_t stride = N + 8;
  const auto n = static_cast<std::size_t>(rows * stride);
  const DeviceCopy<bf16> w(numbers.narrow(static_cast<std::size_t>(N * K))),
      w_up(numbers.narrow(static_cast<std::size_t>(N * K))),
      x(numbers.narrow(static_cast<std::size_t>(rows * K)));
  std::vector<float> wide(n), some(static_cast<std::size_t>(N));
  for (float& value : wide) value = numbers();
  for (float& value : some) value = numbers();
  const DeviceCopy<float> b(some), weight(some);
  const auto product = [&](const DeviceCopy<bf16>& of, const DeviceCopy<bf16>& out) {
    return cuda::NarrowProduct{.w = of.data(),
                               .bias = bias ? b.data() : nullptr,
                               .x = x.data(),
                               .x_stride = K,
                               .out = out.data(),
                               .out_stride = stride,
                               .rows = rows,
                               .N = N,
                               .K = K};
  };
  struct Result {
    std::vector<bf16> y, gate, up, normed;
    std::vector<float> stream;
  };
  const auto run = [&](bool pause) {
    const std::vector<bf16> narrow(n, Numbers::to_bf16(-7));
    const DeviceCopy<bf16> y(narrow), gate(narrow), up(narrow), normed(narrow);
    const DeviceCopy<float> stream(wide);
    const auto maybe_pause = [&] {
      if (pause) device.synchronize();
    };
    const int still = pause ? 1 : 0;  // what waits after the second operation
    const kernels::AddArgs<float, bf16> add{.term = y.data(),
                                            .term_stride = stride,
                                            .to = stream.data(),
                                            .to_stride = stride,
                                            .factor = 0.7f,
                                            .rows = rows,
                                            .columns = N};
    const kernels::RmsNormArgs<float, bf16, float> norm{.weight = weight.data(),
                                                        .eps = 1e-5f,
                                                        .x = stream.data(),
                                                        .x_stride = stride,
                                                        .out = normed.data(),
                                                        .out_stride = stride,
                                                        .rows = rows,
                                                        .columns = N};
    launch(device.get(), Chunk{}, product(w, y));
    maybe_pause();
    launch(device.get(), Chunk{}, add);
    is_right(device.get().deferred->n == still, "a product and the sum after it");
    launch(device.get(), Chunk{}, add);  // no product waits
    is_right(device.get().deferred->n == 1, "a sum waits for a norm");
    maybe_pause();
    launch(device.get(), Chunk{}, norm);
    is_right(device.get().deferred->n == 0, "a norm");

    launch(device.get(), Chunk{}, product(w, gate));
    maybe_pause();
    launch(device.get(), Chunk{}, product(w_up, up));
    is_right(device.get().deferred->n == 2 - still, "two products of the same rows");
    maybe_pause();
    // As in an MLP: hidden takes the place of up.
    launch(device.get(), Chunk{},
           kernels::SiluMulArgs<bf16>{.gate = gate.data(),
                                      .gate_stride = stride,
                                      .up = up.data(),
                                      .up_stride = stride,
                                      .out = up.data(),
                                      .out_stride = stride,
                                      .rows = rows,
                                      .columns = N});
    is_right(device.get().deferred->n == 0, "a gate");
    device.synchronize();
    return Result{y.read(), gate.read(), up.read(), normed.read(), stream.read()};
  };
  const Result apart = run(true), together = run(false);
  const auto same = [](const auto& a, const auto& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
  };
  is_right(same(apart.y, together.y) && same(apart.stream, together.stream), "product and sum");
  is_right(same(apart.normed, together.normed), "sum and norm");
  is_right(same(apart.gate, together.gate) && same(apart.up, together.up), "products and gate");
  bool untouched = true;
  double worst = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto at = [&](std::int64_t j) { return static_cast<std::size_t>(i * stride + j); };
    double squares = 0;
    for (std::int64_t j = 0; j < N; ++j)
      squares += double{together.stream[at(j)]} * double{together.stream[at(j)]};
    for (std::int64_t j = 0; j < N; ++j) {
      const double exact = together.stream[at(j)] / std::sqrt(squares / double(N) + 1e-5) *
                           some[static_cast<std::size_t>(j)];
      worst = (std::max)(
          worst, std::abs(number(together.normed[at(j)]) - exact) / (1e-3 + std::abs(exact)));
    }
    for (std::int64_t j = N; j < stride; ++j)
      untouched &= number(together.y[at(j)]) == -7 && number(together.up[at(j)]) == -7 &&
                   number(together.normed[at(j)]) == -7 && together.stream[at(j)] == wide[at(j)];
  }
  if (worst > 8e-3) std::printf("  norm of %lld: error %.2e\n", static_cast<long long>(N), worst);
  is_right(worst <= 8e-3, "norm");
  is_right(untouched, "nothing is written outside of the result");
}

void check_all_together(const cuda::Device& device) {
  for (const std::int64_t rows : {1, 9, 64})
    for (const std::int64_t N : {33, 512, 2048, 4104, 9001})
      check_together(device, rows, N, N == 9001 ? 64 : 520, rows == 9);
  std::printf("operations together: %s\n", right ? "the bits of one after the other" : "WRONG");
}

void check() {
  for (const bool overlap : {false, true}) {
    const cuda::Device device(overlap);
    std::printf("kernels overlap: %s\n", device.get().overlap ? "yes" : "no");
    check_products(device);
    check_attentions(device);
    check_all_together(device);
  }
}

}  // namespace

int main() { return run_checks(check); }
