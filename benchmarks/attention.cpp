#include "bench.hpp"

#include <samba/kernels/cpu/attention.hpp>

using namespace bench;
using namespace samba;

namespace {

/// Sliding-window attention of `rows` queries from `position` on.
template <int KvHeads, int Group, int HeadDim, int Window>
struct Case {
  static constexpr int kv_width = KvHeads * HeadDim, width = Group * kv_width,
                       qkv_width = width + 2 * kv_width, heads = KvHeads * Group, window = Window;
  std::int64_t position, rows;

  std::int64_t first_key() const { return kernels::first_visible(position, Window); }

  std::string name(const std::string& kernel, const std::string& variant,
                   const std::string& model) const {
    return path({kernel, variant, model,
                 extents({rows, heads, HeadDim}).append("_at_").append(std::to_string(position))});
  }

  /// FLOPs of one product of queries and the keys that they see.
  double product() const {
    double keys = 0;
    for (std::int64_t i = position; i < position + rows; ++i)
      keys += static_cast<double>(i + 1 - kernels::first_visible(i, Window));
    return keys * 2 * width;
  }

  template <class KV>
  Cost cost(bool cold) const {
    const std::int64_t keys = position + rows - first_key();
    const double rings = sizeof(KV) * 2.0 * static_cast<double>(keys * kv_width);
    Cost cost{.bytes = rings + floats(2 * rows * width), .flops = 2 * product(), .dot = dot_of<KV>};
    if (cold) cost.footprint = floats(pool_floats);
    return cost;
  }

  /// Five products: scores, dp, dv, dq, dk, of float factors for any KV. Of the rings the keys and
  /// values before the first row are read, the gradients of all slots in use read and written.
  template <class KV>
  Cost backward_cost(bool cold) const {
    const std::int64_t before = position - first_key(),
                       slots = std::min<std::int64_t>(before + rows, Window),
                       of_row = 2 * qkv_width + 2 * width + heads;
    const double rings = sizeof(KV) * 2.0 * static_cast<double>(before * kv_width);
    Cost cost{.bytes = rings + floats(4 * slots * kv_width + rows * of_row),
              .flops = 5 * product()};
    if (cold) cost.footprint = floats(pool_floats);
    return cost;
  }

  template <class KV>
  using KeyRing = Ring<KV, KvHeads, Window, HeadDim>;
  static constexpr std::int64_t ring_size = Window * kv_width;

  /// Rings of keys and of values, the second behind the first.
  template <class KV>
  static std::pair<KeyRing<KV>, KeyRing<KV>> rings(KV* numbers) {
    KeyRing<KV> k, v;
    k.bind(reinterpret_cast<std::byte*>(numbers), 0, Window);
    v.bind(reinterpret_cast<std::byte*>(numbers + ring_size), 0, Window);
    return {k, v};
  }

  using Fused = kernels::FusedHeads<float, KvHeads, Group, HeadDim>;
  Fused fused(const Floats& qkv) const { return Fused(Rows<float, qkv_width>{qkv.data(), rows}); }

  kernels::AttentionArgs<float, float> args(const float* rings, const Floats& qkv,
                                            const Floats& out) const {
    const auto [q, k, v] = fused(qkv);
    return {.q = {q.data, q.stride, q.head_stride},
            .k = {k.data, k.stride, k.head_stride},
            .v = {v.data, v.stride, v.head_stride},
            .ring_k = rings,
            .ring_v = rings + ring_size,
            .n_slots = Window,
            .window = Window,
            .position = position,
            .rows = rows,
            .n_kv_heads = KvHeads,
            .group = Group,
            .head_dim = HeadDim,
            .divisor = std::sqrt(static_cast<float>(HeadDim)),
            .cap = 0,
            .sinks = nullptr,
            .out = out.data(),
            .out_stride = width,
            .log_sum = nullptr};
  }

  /// Softmax attention over plain arrays: q, out: (rows, width), k, v: (keys, kv_width) from
  /// first_key() on.
  void raw_loop(const float* q, const float* k, const float* v, float* weights, float* out) const {
    for (std::int64_t i = 0; i < rows; ++i)
      for (int head = 0; head < heads; ++head) {
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

/// The gradients of attention. What the forward pass would have left is made up: weights are those
/// of a full window of equal scores.
template <class Shape>
struct Gradients {
  std::int64_t rows;
  Floats qkv{rows * Shape::qkv_width}, out{rows * Shape::width}, log_sum{rows * Shape::heads},
      dout{rows * Shape::width}, dqkv{rows * Shape::qkv_width}, drings{2 * Shape::ring_size};

  explicit Gradients(std::int64_t n) : rows(n) {
    std::fill_n(log_sum.data(), rows * Shape::heads, std::log(static_cast<float>(Shape::window)));
  }
};

/// Cold: the rings come from memory.
template <class KV, int KvHeads, int Group, int HeadDim, int Window>
void add_simd(const std::string& model, bool cold, Case<KvHeads, Group, HeadDim, Window> shape) {
  using Shape = Case<KvHeads, Group, HeadDim, Window>;
  using Scratch = kernels::AttentionScratch<HeadDim, float>;
  for (const int threads : thread_counts())
    row(shape.name("attention", "simd" + suffix<KV>(), model), threads,
        shape.template cost<KV>(cold), [=] {
          return [=, all_rings = reinterpret_cast<KV*>(pool()),
                  qkv = Floats(shape.rows * Shape::qkv_width),
                  out = Floats(shape.rows * Shape::width),
                  scratch = Floats(threads * round_up(Scratch::size, alignment))](
                     const Team& team, std::int64_t call) {
            auto [k, v] =
                Shape::rings(all_rings + pool_offset<KV>(2 * Shape::ring_size, cold ? call : 0));
            const Segment segment{shape.position, 0, shape.rows};
            const auto [q, key, value] = shape.fused(qkv);
            kernels::attention<KvHeads, Group, HeadDim>(on<Policy<float, KV>>(team, segment),
                                                        {.q = q,
                                                         .k = key,
                                                         .v = value,
                                                         .ring_k = k,
                                                         .ring_v = v,
                                                         .window = Window,
                                                         .out = {out.data(), shape.rows},
                                                         .scratch = Scratch{scratch.data()}});
          };
        });
}

template <class KV, int KvHeads, int Group, int HeadDim, int Window>
void add_simd_backward(const std::string& model, bool cold,
                       Case<KvHeads, Group, HeadDim, Window> shape) {
  using Shape = Case<KvHeads, Group, HeadDim, Window>;
  using Scratch = kernels::AttentionBackwardScratch<HeadDim, float>;
  const std::int64_t rows = shape.rows;
  for (const int threads : thread_counts())
    row(shape.name("attention_backward", "simd" + suffix<KV>(), model), threads,
        shape.template backward_cost<KV>(cold), [=] {
          return [=, all_rings = reinterpret_cast<KV*>(pool()), d = Gradients<Shape>(rows),
                  scratch = Floats(threads * round_up(Scratch::size, alignment))](
                     const Team& team, std::int64_t call) {
            auto [k, v] =
                Shape::rings(all_rings + pool_offset<KV>(2 * Shape::ring_size, cold ? call : 0));
            auto [dk, dv] = Shape::rings(d.drings.data());
            const Segment segment{shape.position, 0, rows};
            const auto [q, key, value] = shape.fused(d.qkv);
            const auto [dq, dkey, dvalue] = shape.fused(d.dqkv);
            kernels::attention_backward<KvHeads, Group, HeadDim>(
                on<Policy<float, KV>>(team, segment), {.q = q,
                                                       .k = key,
                                                       .v = value,
                                                       .ring_k = k,
                                                       .ring_v = v,
                                                       .window = Window,
                                                       .out = {d.out.data(), rows},
                                                       .log_sum = {d.log_sum.data(), rows},
                                                       .dout = {d.dout.data(), rows},
                                                       .dq = dq,
                                                       .dk = dkey,
                                                       .dv = dvalue,
                                                       .dring_k = dk,
                                                       .dring_v = dv,
                                                       .scratch = Scratch{scratch.data()}});
          };
        });
}

template <int KvHeads, int Group, int HeadDim, int Window>
void add(const std::string& model, bool cold, std::int64_t position, std::int64_t rows) {
  using Shape = Case<KvHeads, Group, HeadDim, Window>;
  const Shape shape{position, rows};
  const Cost cost = shape.template cost<float>(cold);
  row(shape.name("attention", "raw_loop", model), 1, cost, [=] {
    const std::int64_t keys = position + rows - shape.first_key();
    return [=, q = Floats(rows * Shape::width), k = Floats(keys * Shape::kv_width),
            v = Floats(keys * Shape::kv_width), weights = Floats(Window),
            out = Floats(rows * Shape::width)](const Team&, std::int64_t) {
      shape.raw_loop(q.data(), k.data(), v.data(), weights.data(), out.data());
    };
  });
  row(shape.name("attention", "reference", model), 1, cost, [=] {
    return [=, rings = pool(), qkv = Floats(rows * Shape::qkv_width),
            out = Floats(rows * Shape::width)](const Team&, std::int64_t) {
      kernels::reference::attention(shape.args(rings, qkv, out), {0, KvHeads}, {0, rows});
    };
  });
  add_simd<float, KvHeads, Group, HeadDim, Window>(model, cold, shape);
  add_simd<bf16, KvHeads, Group, HeadDim, Window>(model, cold, shape);
}

template <int KvHeads, int Group, int HeadDim, int Window>
void add_backward(const std::string& model, bool cold, std::int64_t position, std::int64_t rows) {
  using Shape = Case<KvHeads, Group, HeadDim, Window>;
  const Shape shape{position, rows};
  row(shape.name("attention_backward", "reference", model), 1,
      shape.template backward_cost<float>(cold), [=] {
        return [=, rings = pool(), d = Gradients<Shape>(rows)](const Team&, std::int64_t) {
          const auto [dq, dk, dv] = shape.fused(d.dqkv);
          kernels::reference::attention_backward(
              kernels::AttentionBackwardArgs<float, float>{
                  .forward = shape.args(rings, d.qkv, d.out),
                  .dout = d.dout.data(),
                  .dout_stride = Shape::width,
                  .dq = dq,
                  .dk = dk,
                  .dv = dv,
                  .dring_k = d.drings.data(),
                  .dring_v = d.drings.data() + Shape::ring_size,
                  .dsinks = nullptr,
                  .update_rings = true},
              {0, KvHeads});
        };
      });
  add_simd_backward<float, KvHeads, Group, HeadDim, Window>(model, cold, shape);
  add_simd_backward<bf16, KvHeads, Group, HeadDim, Window>(model, cold, shape);
}

[[maybe_unused]] const bool registered = [] {
  add<2, 2, 64, 512>("demo", false, 1024, 1);
  add<2, 2, 64, 512>("demo", false, 1024, 64);
  add<12, 1, 128, 2048>("samba421m", true, 4096, 1);
  add<12, 1, 128, 2048>("samba421m", true, 0, 512);
  add<12, 1, 128, 2048>("samba421m", true, 4096, 512);
  add<12, 1, 128, 2048>("samba421m", true, 0, 4096);
  add_backward<2, 2, 64, 512>("demo", false, 1024, 64);
  add_backward<12, 1, 128, 2048>("samba421m", true, 0, 512);
  add_backward<12, 1, 128, 2048>("samba421m", true, 4096, 512);
  return true;
}();

}  // namespace
