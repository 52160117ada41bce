// The kernels for few rows: matrix products and attention against sums in double, equal bits for every
// number of rows; whole models with kernels that overlap and without.
// Exit status 77 where there is no device.
#include <samba/cuda.cuh>

#include "tests/models.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>

using namespace samba_test;

namespace {

bool right = true;

bool is_right(bool passed, const char* what) {
  if (!passed) std::printf("  WRONG: %s\n", what);
  right &= passed;
  return passed;
}

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

/// A copy on the device.
template <class X>
struct OnDevice {
  Arena memory;
  std::size_t n;
  explicit OnDevice(const std::vector<X>& from)
      : memory(cuda::to_device(std::as_bytes(std::span(from)), "test")), n(from.size()) {}
  X* data() { return reinterpret_cast<X*>(memory.data()); }
  std::vector<X> get() {
    std::vector<X> to(n);
    cuda::check_call(cudaMemcpy(to.data(), data(), n * sizeof(X), cudaMemcpyDeviceToHost),
                     "cudaMemcpy");
    return to;
  }
};

using RowM = RowMajor<bf16>;

/// All plans that a benchmark may try, and the one that is used.
std::vector<cuda::FewRowsPlan> plans(std::int64_t N, std::int64_t K) {
  std::vector<cuda::FewRowsPlan> all{cuda::few_rows_plan(N, K), {0, 4, 8, 8}};
  for (const auto [tiles, unroll] : {std::pair{1, 4}, {1, 8}, {2, 4}, {2, 8}, {4, 4}})
    for (const int split : {1, 4, 8, 16})
      if (split <= cuda::few_rows_warps(tiles, unroll))
        all.push_back({tiles, unroll, split < 4 ? 4 : split, split});
  return all;
}

template <class O>
void check_matmul(const cuda::Device& device, std::int64_t N, std::int64_t K, bool bias,
                  double& worst) {
  constexpr std::int64_t most = 16;
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
  OnDevice<bf16> on_w(w), on_x(x);
  OnDevice<float> on_b(b);
  O guard{};
  std::memset(&guard, 0x5a, sizeof(guard));
  for (const auto& plan : plans(N, K)) {
    std::vector<O> of_all;
    for (const std::int64_t rows : {16, 1, 2, 3, 5, 8, 9, 15}) {
      // The last `rows` rows, so that a row has other neighbours and another place.
      const std::int64_t first = most - rows;
      OnDevice<O> out(std::vector<O>(static_cast<std::size_t>(most * out_stride), guard));
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
      cuda::matmul_few_rows(device.get(), a, plan);
      device.synchronize();
      const auto found = out.get();
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

  OnDevice<bf16> on_qkv(qkv);
  OnDevice<float> on_sinks(sinks);
  // How: 0 for all by parts, 1 for the kernel of any number of rows, 2 for one segment after the other.
  const auto run = [&](int how) {
    OnDevice<bf16> on_rings(rings);
    OnDevice<bf16> out(std::vector<bf16>(static_cast<std::size_t>(rows * heads * D))),
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
      OnDevice<Segment> on_device(some);
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
    return Result{out.get(), log_sum.get(), on_rings.get()};
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

/// Heads of 64, so that attention goes by parts; the window turns.
struct Wide
    : LanguageModel<Repeat<2, HybridStack<Mamba<256>, SwiGLU<256, 512>,
                                          SWA<100, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>,
                                          SwiGLU<256, 512>>>,
                    ModelOptions{.vocab_size = 2000, .tie_embeddings = true}> {
  static constexpr const char* folder = "heads of 64";
};

/// Steps of a session that overlaps kernels, and of one that does not.
template <class Model>
void check_overlap(const Weights<Model, RowM>& weights, int n) {
  cuda::Session<Model, bf16> with(weights, {.overlap = true}), without(weights, {.overlap = false});
  Numbers numbers;
  bool same = true;
  for (int i = 0; i < n; ++i) {
    const auto token =
        static_cast<std::int32_t>((numbers() + 1) / 2 * Model::vocab_size) % Model::vocab_size;
    const auto a = with.step(token), b = without.step(token);
    same &= std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
  }
  std::printf("%-24s %d steps with and without overlap: %s\n", Model::folder, n,
              same ? "the same" : "not the same");
  is_right(same, "the same bits with overlap and without");
}

template <class Model>
Weights<Model, RowM> numbered_weights() {
  Weights<Model, RowM> weights;
  Numbers numbers;
  std::vector<float> row;
  for (const auto& tensor : weights.tensors())
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      row.resize(static_cast<std::size_t>(tensor.row_size));
      for (float& x : row) x = numbers() / 8;
      tensor.set_row(r, row.data());
    }
  weights.derive();
  return weights;
}

int run() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::puts("no CUDA device");
    return 77;
  }
  cudaDeviceProp properties{};
  cuda::check_call(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  for (const bool overlap : {false, true}) {
    const cuda::Device device(overlap);
    std::printf("%s, kernels overlap: %s\n", properties.name, device.get().overlap ? "yes" : "no");
    check_products(device);
    check_attentions(device);
  }
  check_overlap<Wide>(numbered_weights<Wide>(), 300);
  using Tiny = golden::SambaTiny;
  check_overlap<Tiny>(load<Tiny, RowM>(golden::path<Tiny>("model.safetensors")), 300);
  std::puts(right ? "right" : "WRONG");
  return right ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
    return 1;
  }
}
