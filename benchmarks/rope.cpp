#include "bench.hpp"

#include <samba/kernels/rope.hpp>

using namespace bench;
using namespace samba;

namespace {

/// Heads heads of queries, of keys and of values, HeadDim channels each, in fused rows.
template <int Heads, int HeadDim>
struct Shape {
  static constexpr int half = HeadDim / 2, width = 3 * Heads * HeadDim;

  /// q, k: (rows, Heads * HeadDim).
  static void raw_loop(float* q, float* k, std::int64_t position, std::int64_t rows) {
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

  static void reference(const kernels::RotaryTable<HeadDim>& table, float* qkv,
                        std::int64_t position, std::int64_t rows) {
    float cos[half], sin[half];
    for (std::int64_t t = 0; t < rows; ++t) {
      table.at(position + t, cos, sin);
      for (int head = 0; head < 3 * Heads; ++head)
        if (head % 3 < 2)
          kernels::reference::rope(cos, sin, half, qkv + t * width + head * HeadDim);
    }
  }
};

template <int Heads, int HeadDim>
void add(const std::string& model, std::int64_t rows) {
  using S = Shape<Heads, HeadDim>;
  constexpr std::int64_t position = 4096;
  const std::int64_t turned = rows * 2 * Heads * HeadDim;
  const Cost cost{.bytes = floats(2 * turned),
                  .flops = 3.0 * static_cast<double>(turned),
                  .footprint = floats(rows * S::width)};
  // rotate(team, table, qkv)
  const auto add_row = [=](const std::string& variant, int threads, auto rotate) {
    row(path({"rope", variant, model, extents({rows, Heads, HeadDim})}), threads, cost, [=] {
      static const kernels::RotaryTable<HeadDim> table(10000.f, RopeTable::exact);
      return [=, qkv = Floats(rows * S::width)](const Team& team, std::int64_t) {
        rotate(team, table, qkv.data());
      };
    });
  };
  add_row("raw_loop", 1, [=](const Team&, const auto&, float* qkv) {
    S::raw_loop(qkv, qkv + rows * Heads * HeadDim, position, rows);
  });
  add_row("reference", 1, [=](const Team&, const auto& table, float* qkv) {
    S::reference(table, qkv, position, rows);
  });
  for (const int threads : thread_counts())
    add_row("simd", threads, [=](const Team& team, const auto& table, float* qkv) {
      const Segment segment{position, 0, rows};
      kernels::rope<HeadDim>(Chunk{team, {&segment, 1}, rows}, 1, table,
                             Rows<float, S::width>{qkv, rows});
    });
}

[[maybe_unused]] const bool registered = [] {
  add<4, 64>("demo", 64);
  add<12, 128>("samba421m", 1);
  add<12, 128>("samba421m", 512);
  return true;
}();

}  // namespace
