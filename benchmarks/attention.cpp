#include "bench.hpp"

#include <samba/kernels/attention.hpp>

using namespace bench;
using namespace samba;

namespace {

/// Sliding-window attention of `rows` queries from `position` on.
template <int KvHeads, int Group, int HeadDim, int Window>
struct Case {
  static constexpr int kv_width = KvHeads * HeadDim, width = Group * kv_width,
                       qkv_width = width + 2 * kv_width;
  std::int64_t position, rows;

  std::int64_t first_key() const { return kernels::first_visible(position, Window); }

  Cost cost() const {
    double flops = 0;
    for (std::int64_t i = position; i < position + rows; ++i)
      flops += static_cast<double>(i + 1 - kernels::first_visible(i, Window)) * 4 * width;
    const std::int64_t keys = position + rows - first_key();
    return {.bytes = floats(2 * keys * kv_width + 2 * rows * width), .flops = flops};
  }

  /// Softmax attention over plain arrays: q, out: (rows, width), k, v: (keys, kv_width) from
  /// first_key() on.
  void raw_loop(const float* q, const float* k, const float* v, float* weights, float* out) const {
    for (std::int64_t i = 0; i < rows; ++i)
      for (int head = 0; head < KvHeads * Group; ++head) {
        const std::int64_t last = position + i, first = kernels::first_visible(last, Window),
                           keys = last + 1 - first;
        const float* key = k + (first - first_key()) * kv_width + head / Group * HeadDim;
        const float* value = v + (first - first_key()) * kv_width + head / Group * HeadDim;
        const float* query = q + i * width + head * HeadDim;
        float* to = out + i * width + head * HeadDim;

        float maximum = -3e38f, total = 0;
        for (std::int64_t j = 0; j < keys; ++j) {
          float score = 0;
          for (int d = 0; d < HeadDim; ++d) score += query[d] * key[j * kv_width + d];
          weights[j] = score / std::sqrt(static_cast<float>(HeadDim));
          maximum = std::max(maximum, weights[j]);
        }
        for (std::int64_t j = 0; j < keys; ++j)
          total += weights[j] = std::exp(weights[j] - maximum);
        for (int d = 0; d < HeadDim; ++d) to[d] = 0;
        for (std::int64_t j = 0; j < keys; ++j)
          for (int d = 0; d < HeadDim; ++d) to[d] += weights[j] / total * value[j * kv_width + d];
      }
  }
};

/// Cold: the rings come from memory.
template <int KvHeads, int Group, int HeadDim, int Window>
void add(const std::string& model, bool cold, std::int64_t position, std::int64_t rows) {
  using Shape = Case<KvHeads, Group, HeadDim, Window>;
  using KeyRing = Ring<float, Window, Shape::kv_width>;
  const Shape shape{position, rows};
  Cost cost = shape.cost();
  if (cold) cost.footprint = floats(pool_floats);
  const auto name = [=](const std::string& variant) {
    return path({"attention", variant, model,
                 extents({rows, KvHeads * Group, HeadDim})
                     .append("_at_")
                     .append(std::to_string(position))});
  };
  row(name("raw_loop"), 1, cost, [=] {
    const std::int64_t keys = position + rows - shape.first_key();
    return [=, q = Floats(rows * Shape::width), k = Floats(keys * Shape::kv_width),
            v = Floats(keys * Shape::kv_width), weights = Floats(Window),
            out = Floats(rows * Shape::width)](const Team&, std::int64_t) {
      shape.raw_loop(q.data(), k.data(), v.data(), weights.data(), out.data());
    };
  });
  // attend(team, k, v, qkv, scratch, out)
  const auto add_row = [=](const std::string& variant, int threads, auto attend) {
    row(name(variant), threads, cost, [=] {
      return [=, all_rings = pool(), qkv = Floats(rows * Shape::qkv_width),
              out = Floats(rows * Shape::width),
              scratch =
                  Floats(threads * round_up(kernels::simd::attention_scratch<HeadDim>, alignment))](
                 const Team& team, std::int64_t call) {
        float* rings = all_rings + pool_offset(2 * Window * Shape::kv_width, cold ? call : 0);
        KeyRing k{rings}, v{rings + Window * Shape::kv_width};
        attend(team, k, v, qkv.data(), scratch.data(), out.data());
      };
    });
  };
  add_row("reference", 1, [=](const Team&, KeyRing& k, KeyRing& v, float* qkv, float*, float* out) {
    for (int g = 0; g < KvHeads; ++g)
      kernels::reference::attention<HeadDim>(
          kernels::AttentionArgs<float, float>{qkv, Shape::qkv_width, k.data, v.data, Window,
                                               Window, position, rows, KvHeads, Group, out,
                                               Shape::width},
          g, {0, rows});
  });
  for (const int threads : thread_counts())
    add_row("simd", threads,
            [=](const Team& team, KeyRing& k, KeyRing& v, float* qkv, float* scratch, float* out) {
              const Segment segment{position, 0, rows};
              kernels::attention<HeadDim>(Chunk{team, {&segment, 1}, rows}, Window,
                                          Rows<float, Shape::qkv_width>{qkv, rows},
                                          States<KeyRing>(reinterpret_cast<std::byte*>(&k), 0),
                                          States<KeyRing>(reinterpret_cast<std::byte*>(&v), 0),
                                          kernels::AttentionScratch<HeadDim, float>{scratch},
                                          Rows<float, Shape::width>{out, rows});
            });
}

[[maybe_unused]] const bool registered = [] {
  add<2, 2, 64, 512>("demo", false, 1024, 1);
  add<2, 2, 64, 512>("demo", false, 1024, 64);
  add<12, 1, 128, 2048>("samba421m", true, 4096, 1);
  add<12, 1, 128, 2048>("samba421m", true, 0, 512);
  add<12, 1, 128, 2048>("samba421m", true, 4096, 512);
  return true;
}();

}  // namespace
