// The products of block-diagonal matrices: those of each block by itself, of which test_matmul says
// that they are right.
#include <samba/kernels/cpu/matmul.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

/// A tensor with its memory, of rows of values.
template <class Tensor>
struct Filled : Tensor {
  Arena memory{Tensor::bytes};

  explicit Filled(const std::vector<Real<typename Tensor::value_type>>& values) {
    this->bind(memory.data());
    for (std::int64_t r = 0; r < Tensor::rows; ++r)
      this->set_row(r, values.data() + r * Tensor::row_size);
  }
  std::vector<Real<typename Tensor::value_type>> values() const {
    std::vector<Real<typename Tensor::value_type>> all(
        static_cast<std::size_t>(Tensor::rows * Tensor::row_size));
    for (std::int64_t r = 0; r < Tensor::rows; ++r)
      this->get_row(r, all.data() + r * Tensor::row_size);
    return all;
  }
};

/// Block `b` of a (blocks, in, out) tensor, as a matrix has it: (out, in).
template <class R>
std::vector<R> block_of(const std::vector<R>& w, std::size_t b, std::size_t width) {
  std::vector<R> block(width * width);
  for (std::size_t n = 0; n < width; ++n)
    for (std::size_t k = 0; k < width; ++k) block[n * width + k] = w[(b * width + k) * width + n];
  return block;
}

/// Calls f(rows) for one row, a few and many.
void for_each_count(auto&& f) {
  for (const std::int64_t rows : {1, 5, 70}) f(rows);
}

template <class T, int Blocks, int Width>
void check(Random& rng) {
  using R = Real<T>;
  using P = Policy<T>;
  constexpr int columns = Blocks * Width;
  CAPTURE(rng.seed, sizeof(T), Blocks, Width);
  const auto w = rng.values<R>(std::size_t{columns} * Width);
  const Filled<BlockDiagonal<T, Blocks, Width>> blocks(w);
  for_each_count([&](std::int64_t rows) {
    CAPTURE(rows);
    constexpr std::int64_t gap = 3;
    const auto x = rng.values<R>(static_cast<std::size_t>(rows * (columns + gap)));
    std::vector<R> expected(static_cast<std::size_t>(rows * columns));
    for (int b = 0; b < Blocks; ++b) {
      const Filled<Matrix<T, Width, Width>> one(block_of(w, static_cast<std::size_t>(b), Width));
      matmul(Context<P>{{{}, rows}, {}}, one, {x.data() + b * Width, rows, columns + gap},
             {expected.data() + b * Width, rows, columns});
    }
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      std::vector<R> out(expected.size());
      parallel(threads, [&](Team team) {
        block_matmul(Context<P>{{{}, rows}, {team}}, blocks, {x.data(), rows, columns + gap},
                     {out.data(), rows});
      });
      CHECK(same_result(out, expected));
    }
  });
}

template <class T, int Blocks, int Width>
void check_backward(Random& rng) {
  using R = Real<T>;
  using P = Policy<T>;
  constexpr int columns = Blocks * Width;
  CAPTURE(rng.seed, sizeof(T), Blocks, Width);
  const auto w = rng.values<R>(std::size_t{columns} * Width), old = rng.values<R>(w.size());
  const Filled<BlockDiagonal<T, Blocks, Width>> blocks(w);
  for_each_count([&](std::int64_t rows) {
    for (const bool adds : {false, true}) {
      CAPTURE(rows, adds);
      const auto n = static_cast<std::size_t>(rows * columns);
      const auto x = rng.values<R>(n), dout = rng.values<R>(n), dx0 = rng.values<R>(n);
      std::vector<R> expected = dx0, expected_dw = old;
      for (int b = 0; b < Blocks; ++b) {
        const auto at = static_cast<std::size_t>(b);
        const Filled<Matrix<T, Width, Width>> one(block_of(w, at, Width));
        Filled<Matrix<Master<R>, Width, Width>> dw(block_of(old, at, Width));
        const Rows<R, Width> dx{expected.data() + b * Width, rows, columns};
        WrittenOrAdded<R, Width> to = dx;
        if (adds) to = add_to(dx);
        matmul_backward(Context<P>{{{}, rows}, {}}, one,
                        {.x = {x.data() + b * Width, rows, columns},
                         .dout = {dout.data() + b * Width, rows, columns},
                         .dw = dw,
                         .dx = to});
        const auto turned = block_of(dw.values(), 0, Width);
        std::copy(turned.begin(), turned.end(),
                  expected_dw.begin() + std::int64_t{b} * Width * Width);
      }
      std::vector<R> first_dw;
      for (int threads = 1; threads <= 4; ++threads) {
        CAPTURE(threads);
        std::vector<R> found = dx0;
        Filled<BlockDiagonal<Master<R>, Blocks, Width>> dw(old);
        const Rows<R, columns> dx{found.data(), rows};
        WrittenOrAdded<R, columns> to = dx;
        if (adds) to = add_to(dx);
        parallel(threads, [&](Team team) {
          block_matmul_backward(
              Context<P>{{{}, rows}, {team}}, blocks,
              {.x = {x.data(), rows}, .dout = {dout.data(), rows}, .dw = dw, .dx = to});
        });
        CHECK(same_result(found, expected));
        // The same products in another order.
        CHECK(relative_error(dw.values(), expected_dw) <=
              (std::is_same_v<R, double> ? 1e-15 : 4 * unit_roundoff));
        if (threads == 1) first_dw = dw.values();
        CHECK(same_result(dw.values(), first_dw));
      }
    }
  });
}

}  // namespace

TEMPLATE_TEST_CASE("block_matmul: every block as a product of its own, for any threads", "", float,
                   bf16, int8, double) {
  Random rng;
  check<TestType, 1, 1>(rng);
  check<TestType, 3, 7>(rng);
  check<TestType, 2, 32>(rng);
  check<TestType, 1, 45>(rng);
  check<TestType, 3, 70>(rng);
}

TEMPLATE_TEST_CASE("block_matmul: gradients, written or added, for any threads", "", float, bf16,
                   double) {
  Random rng;
  check_backward<TestType, 1, 1>(rng);
  check_backward<TestType, 3, 7>(rng);
  check_backward<TestType, 2, 32>(rng);
  check_backward<TestType, 3, 70>(rng);
}
