// Attention of many rows against a reference in double, with fresh random inputs: heads of 64 and 128,
// groups, windows, rings that wrap, caps, sinks, several segments; that a sequence gets the same bits
// for any split; and that every output is written (they are poisoned before).
// Usage: attention          Exit status 77 where there is no device.
#include <samba/samba.hpp>

#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "tests/cuda/support.cuh"

using namespace samba;
using namespace samba_test;

namespace {

struct Case {
  int n_kv_heads, group, head_dim;
  std::int64_t window, n_slots;
  float cap;
  bool sinks;
  std::vector<Segment> segments;  // states in order; position: tokens read before
};

std::vector<bf16> random_bf16(std::size_t n, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  std::vector<bf16> x(n);
  for (bf16& v : x) v = bf16(normal(generator));
  return x;
}

/// Runs a case; the outputs, (rows, heads * head_dim), and the log sums.
struct Result {
  std::vector<bf16> out, log_sum;
};

/// All keys and values of every sequence, by absolute position, and its queries.
struct Data {
  std::int64_t length;
  std::vector<std::vector<bf16>> q, k, v;  // per sequence: (length, heads, head_dim)
  std::vector<float> sinks;
};

Result run(const cuda::Device& device, const Case& c, const Data& data) {
  const int heads = c.n_kv_heads * c.group, D = c.head_dim;
  const std::int64_t q_width = heads * D, kv_width = c.n_kv_heads * D,
                     width = q_width + 2 * kv_width;
  std::int64_t rows = 0;
  for (const Segment& s : c.segments) rows += s.rows;
  std::vector<bf16> qkv(static_cast<std::size_t>(rows * width));
  const std::size_t ring = static_cast<std::size_t>(c.n_slots * kv_width);
  std::vector<bf16> rings(c.segments.size() * 2 * ring, bf16(std::nanf("")));
  for (const Segment& s : c.segments) {
    const auto i = static_cast<std::size_t>(s.state);
    for (std::int64_t t = 0; t < s.rows; ++t) {
      bf16* const to = qkv.data() + (s.first_row + t) * width;
      std::copy_n(data.q[i].data() + (s.position + t) * q_width, q_width, to);
      std::copy_n(data.k[i].data() + (s.position + t) * kv_width, kv_width, to + q_width);
      std::copy_n(data.v[i].data() + (s.position + t) * kv_width, kv_width,
                  to + q_width + kv_width);
    }
    for (std::int64_t j = (std::max)(std::int64_t{0}, s.position - c.n_slots); j < s.position; ++j)
      for (int g = 0; g < c.n_kv_heads; ++g) {
        const auto at = (g * c.n_slots + j % c.n_slots) * D;
        bf16* const to = rings.data() + i * 2 * ring + at;
        std::copy_n(data.k[i].data() + j * kv_width + g * D, D, to);
        std::copy_n(data.v[i].data() + j * kv_width + g * D, D, to + ring);
      }
  }
  const bf16 nan(std::nanf(""));
  const DeviceCopy<bf16> on_device(qkv), rings_on_device(rings),
      out(std::vector<bf16>(static_cast<std::size_t>(rows * q_width), nan)),
      log_sum(std::vector<bf16>(static_cast<std::size_t>(rows * heads), nan));
  const DeviceCopy<Segment> segments(c.segments);
  const DeviceCopy<float> sinks(data.sinks);

  kernels::AttentionChunk<bf16, bf16> chunk{};
  chunk.args.q = {on_device.data(), width, c.group * D};
  chunk.args.k = {on_device.data() + q_width, width, D};
  chunk.args.v = {on_device.data() + q_width + kv_width, width, D};
  chunk.args.n_slots = c.n_slots;
  chunk.args.window = c.window;
  chunk.args.n_kv_heads = c.n_kv_heads;
  chunk.args.group = c.group;
  chunk.args.head_dim = D;
  chunk.args.divisor = std::sqrt(static_cast<float>(D));
  chunk.args.cap = c.cap;
  chunk.args.sinks = c.sinks ? sinks.data() : nullptr;
  chunk.args.out = out.data();
  chunk.args.out_stride = q_width;
  chunk.args.log_sum = log_sum.data();
  const std::int64_t state_bytes = static_cast<std::int64_t>(2 * ring * sizeof(bf16));
  ArrayData<bf16>& ring_k = chunk.ring_k;
  ArrayData<bf16>& ring_v = chunk.ring_v;
  ring_k.data = rings_on_device.data();
  ring_v.data = ring_k.data + ring;
  ring_k.stride = ring_v.stride = state_bytes;
  const Chunk all{{segments.data(), c.segments.size()}, rows};
  is_right(cuda::launch_attention_tiles(device.get(), all, chunk),
           "attention_tiles takes the case");
  device.synchronize();
  return {out.read(), log_sum.read()};
}

/// The largest difference to a reference in double, relative to the largest value.
void check(const cuda::Device& device, const Case& c) {
  std::mt19937 generator(std::random_device{}());
  const int heads = c.n_kv_heads * c.group, D = c.head_dim;
  Data data;
  data.length = 0;
  for (const Segment& s : c.segments) data.length = (std::max)(data.length, s.position + s.rows);
  for (std::size_t i = 0; i < c.segments.size(); ++i) {
    const auto n = static_cast<std::size_t>(data.length * D);
    data.q.push_back(random_bf16(n * static_cast<std::size_t>(heads), generator));
    data.k.push_back(random_bf16(n * static_cast<std::size_t>(c.n_kv_heads), generator));
    data.v.push_back(random_bf16(n * static_cast<std::size_t>(c.n_kv_heads), generator));
  }
  for (int h = 0; h < heads; ++h) data.sinks.push_back(static_cast<float>(h % 3) - 1.f);
  const Result result = run(device, c, data);

  double worst = 0, worst_log = 0, largest = 0;
  for (const Segment& s : c.segments) {
    const auto i = static_cast<std::size_t>(s.state);
    for (std::int64_t t = 0; t < s.rows; t += 1 + s.rows / 40)
      for (int h = 0; h < heads; ++h) {
        const std::int64_t p = s.position + t, g = h / c.group;
        const bf16* const q = data.q[i].data() + (p * heads + h) * D;
        const std::int64_t first = kernels::first_visible(p, c.window);
        std::vector<double> score;
        double maximum = c.sinks ? data.sinks[static_cast<std::size_t>(h)] : -1e300;
        for (std::int64_t j = first; j <= p; ++j) {
          double sum = 0;
          for (int d = 0; d < D; ++d)
            sum += double(float(q[d])) *
                   float(data.k[i][static_cast<std::size_t>((j * c.n_kv_heads + g) * D + d)]);
          sum /= std::sqrt(double(D));
          if (c.cap > 0) sum = c.cap * std::tanh(sum / c.cap);
          score.push_back(sum);
          maximum = (std::max)(maximum, sum);
        }
        double total = c.sinks ? std::exp(data.sinks[static_cast<std::size_t>(h)] - maximum) : 0.;
        for (double& x : score) total += x = std::exp(x - maximum);
        const std::size_t at = static_cast<std::size_t>((s.first_row + t) * heads + h);
        for (int d = 0; d < D; ++d) {
          double sum = 0;
          for (std::int64_t j = first; j <= p; ++j)
            sum += score[static_cast<std::size_t>(j - first)] *
                   float(data.v[i][static_cast<std::size_t>((j * c.n_kv_heads + g) * D + d)]);
          const double found =
              float(result.out[at * static_cast<std::size_t>(D) + static_cast<std::size_t>(d)]);
          worst = (std::max)(worst, std::isfinite(found) ? std::abs(found - sum / total) : 1e30);
          largest = (std::max)(largest, std::abs(sum / total));
        }
        const double found = float(result.log_sum[at]);
        worst_log = (std::max)(
            worst_log, std::isfinite(found) ? std::abs(found - (maximum + std::log(total))) : 1e30);
      }
  }
  const bool passed = worst <= 0.01 * largest && worst_log <= 0.05;
  right &= passed;
  std::printf("%s %d x %d heads of %3d, window %5lld, slots %5lld, cap %2.0f%s, segments",
              passed ? "     " : "WRONG", c.n_kv_heads, c.group, D,
              static_cast<long long>(c.window), static_cast<long long>(c.n_slots),
              static_cast<double>(c.cap), c.sinks ? ", sinks" : "");
  for (const Segment& s : c.segments)
    std::printf(" %lld+%lld", static_cast<long long>(s.position), static_cast<long long>(s.rows));
  std::printf(": error %.4f of the largest, log sums %.4f\n", worst / largest, worst_log);

  // The last segment alone, and in two parts.
  Case alone = c;
  alone.segments = {c.segments.back()};
  Segment& s = alone.segments[0];
  const std::int64_t first_row = s.first_row;
  Data of_alone = data;
  of_alone.q = {data.q.back()};
  of_alone.k = {data.k.back()};
  of_alone.v = {data.v.back()};
  s.first_row = s.state = 0;
  const auto same = [&](const Result& part, std::int64_t row, std::int64_t rows) {
    return std::memcmp(part.out.data(), result.out.data() + (first_row + row) * heads * D,
                       static_cast<std::size_t>(rows * heads * D) * sizeof(bf16)) == 0;
  };
  bool equal = same(run(device, alone, of_alone), 0, s.rows);
  const std::int64_t all_rows = s.rows, half = all_rows / 2;
  s.rows = half;
  if (half > 0) equal &= same(run(device, alone, of_alone), 0, half);
  s.rows = all_rows - half;
  s.position += half;
  equal &= same(run(device, alone, of_alone), half, all_rows - half);
  is_right(equal, "the same bits alone and in parts");
}

}  // namespace

int main() {
  return run_checks([] {
    const cuda::Device device;
    check(device, {1, 1, 64, 1 << 20, 512, 0, false, {{0, 0, 64, 0}}});
    check(device, {2, 8, 64, 2048, 2048, 0, false, {{0, 0, 777, 0}}});
    check(device, {4, 8, 64, 2048, 2048, 0, false, {{5000, 0, 300, 0}, {100, 300, 55, 1}}});
    check(device,
          {1, 3, 64, 100, 100, 0, true, {{0, 0, 1, 0}, {99, 1, 17, 1}, {1003, 18, 333, 2}}});
    check(device, {2, 1, 64, 7, 7, 30, false, {{3, 0, 200, 0}}});
    check(device, {2, 1, 128, 1 << 20, 4096, 0, false, {{0, 0, 500, 0}, {1500, 500, 200, 1}}});
    check(device, {12, 1, 128, 2048, 2048, 50, true, {{3000, 0, 129, 0}}});
    check(device, {2, 4, 128, 64, 64, 0, false, {{0, 0, 0, 0}, {640, 0, 64, 1}}});
  });
}
