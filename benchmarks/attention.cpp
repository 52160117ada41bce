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

  std::string name(const std::string& variant, const std::string& model) const {
    return path({"attention", variant, model,
                 extents({rows, KvHeads * Group, HeadDim})
                     .append("_at_")
                     .append(std::to_string(position))});
  }

  template <class KV>
  Cost cost(bool cold) const {
    double flops = 0;
    for (std::int64_t i = position; i < position + rows; ++i)
      flops += static_cast<double>(i + 1 - kernels::first_visible(i, Window)) * 4 * width;
    const std::int64_t keys = position + rows - first_key();
    const double rings = sizeof(KV) * 2.0 * static_cast<double>(keys * kv_width);
    Cost cost{.bytes = rings + floats(2 * rows * width), .flops = flops, .dot = dot_of<KV>};
    if (cold) cost.footprint = floats(pool_floats);
    return cost;
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
template <class KV, int KvHeads, int Group, int HeadDim, int Window>
void add_simd(const std::string& model, bool cold, Case<KvHeads, Group, HeadDim, Window> shape) {
  using Shape = Case<KvHeads, Group, HeadDim, Window>;
  using KeyRing = Ring<KV, KvHeads, Window, HeadDim>;
  using Scratch = kernels::AttentionScratch<HeadDim, float>;
  for (const int threads : thread_counts())
    row(shape.name("simd" + suffix<KV>(), model), threads, shape.template cost<KV>(cold), [=] {
      return [=, all_rings = reinterpret_cast<KV*>(pool()),
              qkv = Floats(shape.rows * Shape::qkv_width), out = Floats(shape.rows * Shape::width),
              scratch = Floats(threads * round_up(Scratch::size, alignment))](const Team& team,
                                                                              std::int64_t call) {
        KV* rings = all_rings + pool_offset<KV>(2 * Window * Shape::kv_width, cold ? call : 0);
        KeyRing k, v;
        k.bind(reinterpret_cast<std::byte*>(rings), Window);
        v.bind(reinterpret_cast<std::byte*>(rings + Window * Shape::kv_width), Window);
        const Segment segment{shape.position, 0, shape.rows};
        kernels::attention<HeadDim>(Chunk{team, {&segment, 1}, shape.rows}, Window,
                                    Rows<float, Shape::qkv_width>{qkv.data(), shape.rows},
                                    States<KeyRing>(reinterpret_cast<std::byte*>(&k), 0),
                                    States<KeyRing>(reinterpret_cast<std::byte*>(&v), 0),
                                    Scratch{scratch.data()},
                                    Rows<float, Shape::width>{out.data(), shape.rows});
      };
    });
}

template <int KvHeads, int Group, int HeadDim, int Window>
void add(const std::string& model, bool cold, std::int64_t position, std::int64_t rows) {
  using Shape = Case<KvHeads, Group, HeadDim, Window>;
  const Shape shape{position, rows};
  const Cost cost = shape.template cost<float>(cold);
  row(shape.name("raw_loop", model), 1, cost, [=] {
    const std::int64_t keys = position + rows - shape.first_key();
    return [=, q = Floats(rows * Shape::width), k = Floats(keys * Shape::kv_width),
            v = Floats(keys * Shape::kv_width), weights = Floats(Window),
            out = Floats(rows * Shape::width)](const Team&, std::int64_t) {
      shape.raw_loop(q.data(), k.data(), v.data(), weights.data(), out.data());
    };
  });
  row(shape.name("reference", model), 1, cost, [=] {
    return [=, rings = pool(), qkv = Floats(rows * Shape::qkv_width),
            out = Floats(rows * Shape::width)](const Team&, std::int64_t) {
      kernels::reference::attention(
          kernels::AttentionArgs<float, float>{
              qkv.data(), Shape::qkv_width, rings, rings + Window * Shape::kv_width, Window, Window,
              position, rows, KvHeads, Group, HeadDim, out.data(), Shape::width, nullptr},
          {0, KvHeads}, {0, rows});
    };
  });
  add_simd<float, KvHeads, Group, HeadDim, Window>(model, cold, shape);
  add_simd<bf16, KvHeads, Group, HeadDim, Window>(model, cold, shape);
}

[[maybe_unused]] const bool registered = [] {
  add<2, 2, 64, 512>("demo", false, 1024, 1);
  add<2, 2, 64, 512>("demo", false, 1024, 64);
  add<12, 1, 128, 2048>("samba421m", true, 4096, 1);
  add<12, 1, 128, 2048>("samba421m", true, 0, 512);
  add<12, 1, 128, 2048>("samba421m", true, 4096, 512);
  add<12, 1, 128, 2048>("samba421m", true, 0, 4096);
  return true;
}();

}  // namespace
