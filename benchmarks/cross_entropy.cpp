#include "bench.hpp"

#include <samba/kernels/cpu/cross_entropy.hpp>

using namespace bench;
using namespace samba;

namespace {

/// Losses of `rows` tokens, whose logits become their gradients. Cold: the logits come from memory.
template <int N>
void add(const std::string& model, bool cold, std::int64_t rows) {
  // Of a logit: the maximum 1, the difference to it 1, exp 1, the sum 1, the factor 1.
  const Cost cost{.bytes = floats(2 * rows * N + 2 * rows),
                  .flops = 5.0 * N * static_cast<double>(rows),
                  .footprint = floats(cold ? pool_floats : rows * N)};
  const float scale = 1.f / static_cast<float>(rows);
  // loss(team, targets, logits, losses)
  const auto add_row = [=](const std::string& variant, int threads, auto loss) {
    row(path({"cross_entropy", variant, model, extents({rows, N})}), threads, cost, [=] {
      std::vector<std::int32_t> targets;
      Random random;
      for (std::int64_t i = 0; i < rows; ++i)
        targets.push_back(static_cast<std::int32_t>((std::uint64_t{random()} * N) >> 32));
      return [=, logits = pool(), losses = Floats(rows)](const Team& team, std::int64_t call) {
        loss(team, targets.data(), logits + pool_offset(rows * N, cold ? call : 0), losses.data());
      };
    });
  };
  add_row("reference", 1,
          [=](const Team&, const std::int32_t* targets, float* logits, float* losses) {
            for (std::int64_t i = 0; i < rows; ++i)
              losses[i] = kernels::reference::cross_entropy(logits + i * N, N, targets[i], scale);
          });
  for (const int threads : thread_counts())
    add_row("simd", threads,
            [=](const Team& team, const std::int32_t* targets, float* logits, float* losses) {
              using P = Policy<float>;
              kernels::cross_entropy(
                  on<P>(team, rows),
                  kernels::CrossEntropy<P>{.targets = targets, .scale = scale, .losses = losses},
                  RowsArgument<float, N>{logits, rows});
            });
}

[[maybe_unused]] const bool registered = [] {
  add<256>("demo", false, 64);
  add<32000>("samba421m", true, 512);
  return true;
}();

}  // namespace
