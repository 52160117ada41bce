#include "bench.hpp"

#include <samba/kernels/cpu/rope.hpp>

using namespace bench;
using namespace samba;

namespace {

/// Heads heads of queries, of keys and of values, HeadDim channels each, in fused rows.
template <int Heads, int HeadDim>
struct Shape {
  static constexpr int half = HeadDim / 2, width = 3 * Heads * HeadDim;
  static constexpr std::int64_t position = 4096;

  /// q, k: (rows, Heads * HeadDim).
  static void raw_loop(float* q, float* k, std::int64_t rows) {
    for (std::int64_t t = 0; t < rows; ++t)
      for (int i = 0; i < half; ++i) {
        const float angle = static_cast<float>(position + t) *
                            std::pow(10000.f, -2.f * static_cast<float>(i) / HeadDim);
        const float cos = std::cos(angle), sin = std::sin(angle);
        for (float* x : {q, k})
          for (int head = 0; head < Heads; ++head) {
            float* channel = x + (t * Heads + head) * HeadDim + i;
            const float a = channel[0], b = channel[half];
            channel[0] = a * cos - b * sin;
            channel[half] = a * sin + b * cos;
          }
      }
  }

  static kernels::FusedHeads<float, Heads, 1, HeadDim> fused(float* qkv, std::int64_t rows) {
    return kernels::FusedHeads<float, Heads, 1, HeadDim>(Rows<float, width>{qkv, rows});
  }

  /// rotate: reference::rope or rope_backward.
  template <auto rotate>
  static void reference(const kernels::RotaryTable<HeadDim>& table, float* qkv, std::int64_t rows) {
    float cos[half], sin[half];
    for (std::int64_t t = 0; t < rows; ++t) {
      table.at(position + t, cos, sin);
      for (int head = 0; head < 3 * Heads; ++head)
        if (head % 3 < 2) rotate(cos, sin, half, qkv + t * width + head * HeadDim);
    }
  }
};

/// rotate(team, table, qkv)
template <int Heads, int HeadDim, class Rotate>
void add_row(const std::string& kernel, const std::string& variant, const std::string& model,
             std::int64_t rows, int threads, Rotate rotate) {
  constexpr int width = Shape<Heads, HeadDim>::width;
  const std::int64_t turned = rows * 2 * Heads * HeadDim;
  const Cost cost{.bytes = floats(2 * turned),
                  .flops = 3.0 * static_cast<double>(turned),
                  .footprint = floats(rows * width)};
  row(path({kernel, variant, model, extents({rows, Heads, HeadDim})}), threads, cost, [=] {
    static const kernels::RotaryTable<HeadDim> table(10000.f, RopeTable::exact);
    return [=, qkv = Floats(rows * width)](const Team& team, std::int64_t) {
      rotate(team, table, qkv.data());
    };
  });
}

template <int Heads, int HeadDim>
void add(const std::string& model, std::int64_t rows) {
  using S = Shape<Heads, HeadDim>;
  const auto add_variant = [=](const std::string& variant, int threads, auto rotate) {
    add_row<Heads, HeadDim>("rope", variant, model, rows, threads, rotate);
  };
  add_variant("raw_loop", 1, [=](const Team&, const auto&, float* qkv) {
    S::raw_loop(qkv, qkv + rows * Heads * HeadDim, rows);
  });
  add_variant("reference", 1, [=](const Team&, const auto& table, float* qkv) {
    S::template reference<kernels::reference::rope<float>>(table, qkv, rows);
  });
  for (const int threads : thread_counts())
    add_variant("simd", threads, [=](const Team& team, const auto& table, float* qkv) {
      const Segment segment{.position = S::position, .rows = rows};
      const auto all = S::fused(qkv, rows);
      kernels::rope<HeadDim, Heads, 1, HeadDim>(on(team, segment),
                                                {.angles = table, .q = all.q, .k = all.k});
    });
}

/// The work is the forward's.
template <int Heads, int HeadDim>
void add_backward(const std::string& model, std::int64_t rows) {
  using S = Shape<Heads, HeadDim>;
  const auto add_variant = [=](const std::string& variant, int threads, auto rotate) {
    add_row<Heads, HeadDim>("rope_backward", variant, model, rows, threads, rotate);
  };
  add_variant("reference", 1, [=](const Team&, const auto& table, float* dqkv) {
    S::template reference<kernels::reference::rope_backward<float>>(table, dqkv, rows);
  });
  for (const int threads : thread_counts())
    add_variant("simd", threads, [=](const Team& team, const auto& table, float* dqkv) {
      const Segment segment{.position = S::position, .rows = rows};
      const auto all = S::fused(dqkv, rows);
      kernels::rope_backward<HeadDim, Heads, 1, HeadDim>(on(team, segment),
                                                         {.angles = table, .q = all.q, .k = all.k});
    });
}

[[maybe_unused]] const bool registered = [] {
  add<4, 64>("demo", 64);
  add<12, 128>("samba421m", 1);
  add<12, 128>("samba421m", 512);
  add_backward<4, 64>("demo", 64);
  add_backward<12, 128>("samba421m", 512);
  return true;
}();

}  // namespace
