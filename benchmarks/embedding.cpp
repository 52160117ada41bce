// There is no simd variant: an embedding only copies. `table` is the row-major embedding of a model
// with a head of its own, `packed` the one that a tied head shares.
#include "bench.hpp"

#include <samba/kernels/cpu/embedding.hpp>

using namespace bench;
using namespace samba;

namespace {

/// table: (vocab_size, D), row major.
void raw_loop(const float* table, const std::int32_t* tokens, float* out, std::int64_t rows,
              int D) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (int d = 0; d < D; ++d) out[i * D + d] = table[std::int64_t{tokens[i]} * D + d];
}

template <int V, int D>
void add(const std::string& model, std::int64_t rows) {
  const double table_bytes = floats(std::int64_t{V} * D);
  const Cost cost{.bytes = floats(2 * rows * D + rows), .flops = 0, .footprint = table_bytes};
  // copy(team, table, tokens, out)
  const auto add_row = [=](const std::string& variant, const std::string& size, int threads,
                           auto copy) {
    row(path({"embedding", variant, model, size}), threads, cost, [=] {
      const std::int64_t calls = 2 * V / rows;  // with tokens of their own: most of the table
      std::vector<std::int32_t> tokens;
      Random random;
      for (std::int64_t i = 0; i < calls * rows; ++i)
        tokens.push_back(static_cast<std::int32_t>((std::uint64_t{random()} * V) >> 32));
      return [=, table = pool(), out = Floats(rows * D)](const Team& team, std::int64_t call) {
        copy(team, table, tokens.data() + call % calls * rows, out.data());
      };
    });
  };
  const std::string size = extents({rows, D});
  add_row("raw_loop", size, 1,
          [=](const Team&, float* table, const std::int32_t* tokens, float* out) {
            raw_loop(table, tokens, out, rows, D);
          });
  for (const int threads : thread_counts())
    add_row("reference", std::string(size).append("_table"), threads,
            [=](const Team& team, float* numbers, const std::int32_t* tokens, float* out) {
              Table<float, V, D> table;
              table.bind(reinterpret_cast<std::byte*>(numbers));
              kernels::embedding(on(team, rows), table, tokens, Rows<float, D>{out, rows});
            });
  for (const int threads : thread_counts())
    add_row("reference", std::string(size).append("_packed"), threads,
            [=](const Team& team, float* numbers, const std::int32_t* tokens, float* out) {
              static_assert(Matrix<float, V, D>::bytes <= 4 * pool_floats);
              Matrix<float, V, D> table;
              table.bind(reinterpret_cast<std::byte*>(numbers));
              kernels::embedding(on(team, rows), table, tokens, Rows<float, D>{out, rows});
            });
}

[[maybe_unused]] const bool registered = [] {
  add<256, 256>("demo", 64);
  add<32000, 1536>("samba421m", 1);
  add<32000, 1536>("samba421m", 512);
  return true;
}();

}  // namespace
