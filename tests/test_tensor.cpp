#include <samba/core/arena.hpp>
#include <samba/core/context.hpp>
#include <samba/core/error.hpp>
#include <samba/core/tensor.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

using namespace samba;
using namespace samba_test;

namespace {

float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
std::uint32_t to_bits(float f) { return std::bit_cast<std::uint32_t>(f); }
bool is_nan(bf16 b) { return (b.bits & 0x7fff) > 0x7f80; }

/// The bfloat16 nearest to a finite float, the even one of two: by looking at both neighbours.
std::uint16_t nearest(float f) {
  const auto below = static_cast<std::uint16_t>(to_bits(f) >> 16),
             above = static_cast<std::uint16_t>(below + 1);
  // Towards infinity the next number would be 2^128.
  const auto value = [](std::uint16_t b) {
    const double sign = b & 0x8000 ? -1 : 1;
    return (b & 0x7fff) == 0x7f80 ? sign * 0x1p128 : double{from_bits(std::uint32_t{b} << 16)};
  };
  const double down = std::abs(double{f} - value(below)), up = std::abs(value(above) - double{f});
  return down < up || (down == up && below % 2 == 0) ? below : above;
}

/// (N, K) values through set_row and get_row, and where they are in memory.
template <class Weight, class Place>
void check_rows(Place place) {
  using T = typename Weight::value_type;
  using R = Real<T>;
  Random rng;
  CAPTURE(rng.seed);
  const Guarded<T> memory(static_cast<std::size_t>(Weight::bytes) / sizeof(T));
  std::fill(memory.data(), memory.data() + Weight::bytes / static_cast<std::int64_t>(sizeof(T)),
            T{});
  Weight w;
  w.bind(reinterpret_cast<std::byte*>(memory.data()));
  constexpr std::int64_t N = Weight::rows, K = Weight::row_size;
  auto values = rng.values<R>(static_cast<std::size_t>(N * K));
  for (std::int64_t n = 0; n < N; ++n) w.set_row(n, values.data() + n * K);
  CHECK(memory.guarded());

  std::vector<R> back(values.size());
  for (std::int64_t n = 0; n < N; ++n) w.get_row(n, back.data() + n * K);
  for (R& x : values) x = static_cast<R>(static_cast<T>(x));
  CHECK(same_bits(back, values));
  int wrong = 0;
  double sum = 0, all = 0;
  for (std::int64_t n = 0; n < N; ++n)
    for (std::int64_t k = 0; k < K; ++k) {
      const R x = values[static_cast<std::size_t>(n * K + k)];
      wrong += static_cast<R>(memory.data()[place(n, k)]) != x;
      sum += std::abs(static_cast<double>(x));
    }
  CHECK(wrong == 0);
  for (std::int64_t i = 0; i < Weight::bytes / static_cast<std::int64_t>(sizeof(T)); ++i)
    all += std::abs(static_cast<double>(memory.data()[i]));
  CHECK(std::abs(all - sum) < 1e-9 * sum);  // padding is zero
}

}  // namespace

TEST_CASE("bf16: every one of its values survives the way through float") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    bf16 b;
    b.bits = static_cast<std::uint16_t>(bits);
    wrong += to_bits(b) != bits << 16;
    const bf16 back{static_cast<float>(b)};
    // A signalling NaN becomes quiet and keeps sign and payload.
    wrong += back.bits != (is_nan(b) ? bits | 0x40 : bits);
  }
  CHECK(wrong == 0);
}

TEST_CASE("bf16: rounds to nearest, ties to even") {
  Random rng;
  CAPTURE(rng.seed);
  int wrong = 0;
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper)
    for (const std::uint32_t lower : {0x0u, 0x1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu,
                                      static_cast<std::uint32_t>(rng.below(0x10000))}) {
      const float f = from_bits(upper << 16 | lower);
      // Numbers that are not normal: under -ffast-math they may count as zero in the comparison.
      if (is_finite(f) && (upper & 0x7f80) != 0) wrong += bf16(f).bits != nearest(f);
    }
  CHECK(wrong == 0);
  CHECK(bf16(from_bits(0x3f808000)).bits == 0x3f80);  // 1 + 2^-8, between 1 and 1 + 2^-7
  CHECK(bf16(from_bits(0x3f818000)).bits == 0x3f82);
  CHECK(bf16(from_bits(0x3f808001)).bits == 0x3f81);
}

TEST_CASE("bf16: NaN stays NaN, infinity stays infinity, the largest floats become it") {
  for (const std::uint32_t nan :
       {0x7fc00000u, 0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffffffffu, 0x7f80ffffu}) {
    const bf16 b(from_bits(nan));
    CHECK(is_nan(b));
    CHECK((b.bits & 0x8000) == (nan >> 16 & 0x8000));
  }
  CHECK(bf16(from_bits(0x7f800000)).bits == 0x7f80);
  CHECK(bf16(from_bits(0xff800000)).bits == 0xff80);
  CHECK(bf16(from_bits(0x7f7fffff)).bits == 0x7f80);
  CHECK(bf16(from_bits(0x7f7f7fff)).bits == 0x7f7f);
  CHECK(bf16(0.f).bits == 0);
  CHECK(bf16(-0.f).bits == 0x8000);
  static_assert(bf16(1.f).bits == 0x3f80);
}

TEST_CASE("halves: every one survives the way through float; the nearest, ties to even") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = f16_to_float(half);
    const bool nan = (half & 0x7fff) > 0x7c00;
    CHECK(f16_from_float(value) == (nan ? (half & 0x8000) | 0x7e00 : half));
    if ((half & 0x7fff) >= 0x7bff) continue;
    // Between this half and the next in magnitude; a double holds the middle, and so does a float.
    const float next = f16_to_float(static_cast<std::uint16_t>(half + 1));
    const float middle = static_cast<float>((double{value} + double{next}) / 2);
    CHECK(f16_from_float(middle) == half + (half & 1));
    CHECK(f16_from_float(std::nextafter(middle, value)) == half);
    CHECK(f16_from_float(std::nextafter(middle, next)) == half + 1);
  }
  CHECK(f16_from_float(std::nextafter(65520.f, 0.f)) == 0x7bff);
  CHECK(f16_from_float(65520.f) == 0x7c00);
  CHECK(f16_from_float(-3e38f) == 0xfc00);
  CHECK(f16_from_float(1e-30f) == 0);
}

TEST_CASE("is_finite: tells NaN and infinity by their bits") {
  for (const std::uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u, 0xffffffffu})
    CHECK_FALSE(is_finite(from_bits(bits)));
  for (const std::uint32_t bits :
       {0u, 0x80000000u, 1u, 0x007fffffu, 0x7f7fffffu, 0xff7fffffu, 0x3f800000u})
    CHECK(is_finite(from_bits(bits)));
}

TEST_CASE("round_up: the next multiple") {
  CHECK(round_up(0, 8) == 0);
  CHECK(round_up(1, 8) == 8);
  CHECK(round_up(8, 8) == 8);
  CHECK(round_up(9, 8) == 16);
}

TEST_CASE("Rows: rows, strides, slices") {
  std::array<float, 24> memory{};
  const Rows<float, 6> all{memory.data(), 3, 8};
  CHECK(all.row(2) == memory.data() + 16);
  const auto middle = slice<2, 3>(all);
  static_assert(decltype(middle)::cols == 3);
  CHECK(middle.row(1) == memory.data() + 10);
  CHECK((middle.rows == 3 && middle.stride == 8));
  CHECK(first<2>(all).row(1) == memory.data() + 8);
  CHECK(last<2>(all).row(1) == memory.data() + 12);
  CHECK(slice<2, 3>(Rows<float, 6>{}).data == nullptr);
  CHECK((Rows<float, 6>{memory.data(), 3}.stride == 6));
}

TEST_CASE("RowsArgument: made of rows or of a pointer, a count and a stride, not of nothing") {
  std::array<float, 24> memory{};
  const Rows<float, 6> all{memory.data(), 3, 8};
  const auto is = [&](auto rows, std::int64_t count, std::int64_t stride) {
    return rows.data == memory.data() && rows.rows == count && rows.stride == stride;
  };
  using Reads = In<Policy<float>, 6>;
  using Writes = Out<Policy<float>, 6>;
  STATIC_REQUIRE(std::is_same_v<Reads, RowsArgument<const float, 6>>);
  STATIC_REQUIRE(std::is_same_v<Writes, RowsArgument<float, 6>>);
  CHECK(is(Reads(all), 3, 8));
  CHECK(is(Writes(all), 3, 8));
  CHECK(is(Reads(Writes(all)), 3, 8));
  CHECK(is(Reads(Rows<const float, 6>{memory.data(), 3, 8}), 3, 8));
  const auto read = [](Reads rows) { return rows; };
  CHECK(is(read({memory.data(), 2}), 2, 6));
  CHECK(is(read({memory.data(), 2, 9}), 2, 9));
  CHECK(Reads(all).row(2) == memory.data() + 16);
  // Slices of what an operation was given.
  CHECK(last<2>(Reads(all)).row(1) == memory.data() + 12);
  STATIC_REQUIRE(std::is_same_v<decltype(first<2>(Reads(all))), Rows<const float, 2>>);

  STATIC_REQUIRE_FALSE(std::is_default_constructible_v<Reads>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Rows<const float, 6>, Writes>);  // only read
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Rows<float, 5>, Reads>);         // other width
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Rows<double, 6>, Reads>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<None, Reads>);
}

TEST_CASE("Optional: rows, or none") {
  std::array<float, 24> memory{};
  using Reads = Optional<In<Policy<float>, 6>>;
  const Rows<float, 6> all{memory.data(), 3, 8};
  struct Arguments {
    In<Policy<float>, 6> x;
    Reads z = {};
  };
  const Arguments without{.x = all}, with{.x = all, .z = all}, with_none{.x = all, .z = none};
  for (const Reads& z : {without.z, with_none.z, Reads()})
    CHECK((z.data == nullptr && z.rows == 0));
  CHECK((with.z.data == memory.data() && with.z.rows == 3 && with.z.stride == 8));
  CHECK(Reads(In<Policy<float>, 6>(all)).row(1) == memory.data() + 8);
  Reads later = none;
  later = all;
  CHECK(later.data == memory.data());
  STATIC_REQUIRE_FALSE(
      std::is_convertible_v<Rows<const float, 6>, Optional<Out<Policy<float>, 6>>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Rows<float, 5>, Reads>);
}

TEST_CASE("Read, Added: weights of one shape, and gradients that may be written") {
  const Arena memory(1000);
  const auto bound = [&]<class Weight>(Weight weight) {
    weight.bind(memory.data());
    return weight;
  };
  const auto* const at = reinterpret_cast<const float*>(memory.data());
  CHECK(ReadVector<float, 7>(bound(Vector<float, 7>{})).data == at);
  CHECK(ReadTable<float, 7, 5>(bound(Table<float, 7, 5>{})).data == at);
  CHECK(ReadFilter<float, 7, 5>(bound(Filter<float, 7, 5>{})).data == at);
  CHECK(ReadFilter<float, 7, 5>(bound(Transposed<float, 7, 5>{})).data == at);
  CHECK(ReadVector<float, 7>(Vector<float, 7>{}).data == nullptr);  // without a place
  auto vector = bound(Vector<float, 7>{});
  auto table = bound(Table<float, 7, 5>{});
  auto filter = bound(Filter<float, 7, 5>{});
  auto master = bound(Matrix<RowMajor<float>, 7, 5>{});
  CHECK(AddedVector<float, 7>(vector).data == at);
  CHECK(AddedTable<float, 7, 5>(table).data == at);
  CHECK(AddedTable<float, 7, 5>(master).data == at);
  CHECK(AddedFilter<float, 7, 5>(filter).data == at);

  STATIC_REQUIRE_FALSE(std::is_default_constructible_v<ReadVector<float, 7>>);
  STATIC_REQUIRE_FALSE(std::is_default_constructible_v<AddedVector<float, 7>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Vector<float, 6>, ReadVector<float, 7>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Vector<double, 7>, ReadVector<float, 7>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Table<float, 5, 7>, ReadTable<float, 7, 5>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Table<float, 7, 5>, ReadFilter<float, 7, 5>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Matrix<float, 7, 5>, ReadTable<float, 7, 5>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<const Vector<float, 7>&, AddedVector<float, 7>>);
}

TEST_CASE("Matrix: packed in panels, padded with zeros") {
  constexpr int N = 2 * panel_width + 3, K = 5;
  // Row n is in panel n / panel_width, there k by k.
  const auto place = [](std::int64_t n, std::int64_t k) {
    return n / panel_width * panel_width * K + k * panel_width + n % panel_width;
  };
  check_rows<Matrix<float, N, K>>(place);
  check_rows<Matrix<double, N, K>>(place);
  // Pairs of k stand together.
  check_rows<Matrix<bf16, N, K>>([](std::int64_t n, std::int64_t k) {
    return n / panel_width * panel_width * (K + 1) + k / 2 * 2 * panel_width + n % panel_width * 2 +
           k % 2;
  });
  CHECK(Matrix<float, N, K>::bytes == 3 * panel_width * K * 4);
  CHECK(Matrix<bf16, panel_width, K>::bytes == panel_width * (K + 1) * 2);
  CHECK(Matrix<int8, panel_width + 1, 33>::bytes == 2 * 2 * panel_width * (32 + 4));
  CHECK(Matrix<q4, panel_width + 1, 33>::bytes == 2 * 2 * panel_width * (16 + 4));
  CHECK(Matrix<float, N, K>::shape == Shape{N, K});
}

TEST_CASE("BlockDiagonal: (blocks, inputs, outputs), every block packed by its outputs") {
  constexpr int width = panel_width + 3, pairs = (width + 1) / 2;
  // Element k of row n is that of an input and an output of block n.
  const auto place = [](std::int64_t n, std::int64_t k) {
    const std::int64_t in = k / width, out = k % width;
    return (2 * n + out / panel_width) * panel_width * width + in * panel_width + out % panel_width;
  };
  check_rows<BlockDiagonal<float, 3, width>>(place);
  check_rows<BlockDiagonal<double, 3, width>>(place);
  check_rows<BlockDiagonal<bf16, 3, width>>([](std::int64_t n, std::int64_t k) {
    const std::int64_t in = k / width, out = k % width;
    return (2 * n + out / panel_width) * panel_width * 2 * pairs + in / 2 * 2 * panel_width +
           out % panel_width * 2 + in % 2;
  });
  // Wider than what is packed at a time.
  check_rows<BlockDiagonal<float, 1, 300>>([](std::int64_t, std::int64_t k) {
    const std::int64_t in = k / 300, out = k % 300;
    return out / panel_width * panel_width * 300 + in * panel_width + out % panel_width;
  });
  check_rows<BlockDiagonal<RowMajor<float>, 3, 5>>(
      [](std::int64_t n, std::int64_t k) { return n * 25 + k; });
  CHECK(BlockDiagonal<bf16, 3, width>::bytes == 3 * 2 * panel_width * 2 * pairs * 2);
  CHECK(BlockDiagonal<int8, 3, width>::bytes == 3 * Matrix<int8, width, width>::bytes);
  CHECK(BlockDiagonal<float, 3, 5>::shape == Shape{3, 5, 5});
}

TEST_CASE("q4: numbers on 15 or 16 levels, both ends used, stay what they are") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int K = 77;  // three groups, the last one partial
  Arena arena(Matrix<q4, 40, K>::bytes);
  Matrix<q4, 40, K> matrix;
  matrix.bind(arena.data());
  std::vector<float> row(K), back(K);
  for (int n = 0; n < 40; ++n) {
    // As Q4_0 and Q4_1 make them.
    for (int group = 0; group < 3; ++group) {
      const bool symmetric = (n + group) % 2 == 0;
      const float most = 0.01f + std::abs(rng.values(1)[0]);
      const float scale = f16_to_float(f16_from_float(most / 8));
      const float minimum = symmetric ? -8 * scale : f16_to_float(f16_from_float(-0.3f * most));
      for (int k = 32 * group; k < std::min(K, 32 * group + 32); ++k) {
        const int q = k % 32 == 0 ? 0 : k % 32 == 1 ? 15 - n % 2 : rng.below(14);
        row[static_cast<std::size_t>(k)] = scale * static_cast<float>(q) + minimum;
      }
    }
    CAPTURE(n);
    matrix.set_row(n, row.data());
    matrix.get_row(n, back.data());
    CHECK(back == row);
  }
}

TEST_CASE("q4: the error of numbers that are not on levels") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int K = 4096;
  Arena arena(Matrix<q4, 1, K>::bytes);
  Matrix<q4, 1, K> matrix;
  matrix.bind(arena.data());
  const auto row = rng.values(K);
  std::vector<float> back(K);
  matrix.set_row(0, row.data());
  matrix.get_row(0, back.data());
  // Beside 15 steps from the smallest to the largest number of a group.
  double squares = 0, plain = 0;
  for (std::size_t k = 0; k < K; k += 32) {
    const auto [low, high] = std::minmax_element(row.data() + k, row.data() + k + 32);
    const float step = (*high - *low) / 15;
    for (std::size_t i = k; i < k + 32; ++i) {
      CHECK(std::abs(back[i] - row[i]) < 1.1f * step);  // at the ends up to a step
      squares += std::pow(double{back[i]} - double{row[i]}, 2);
      plain +=
          std::pow(double{*low + step * std::round((row[i] - *low) / step)} - double{row[i]}, 2);
    }
  }
  CHECK(squares < 0.95 * plain);
  CHECK(squares > 0.5 * plain);
}

TEST_CASE("q4: constant groups, zeros, numbers beyond a half and those that are not finite") {
  Arena arena(Matrix<q4, 1, 32>::bytes);
  Matrix<q4, 1, 32> matrix;
  matrix.bind(arena.data());
  std::vector<float> row(32), back(32);
  const auto round_trip = [&] {
    matrix.set_row(0, row.data());
    matrix.get_row(0, back.data());
  };
  for (const float value : {0.f, -0.75f, 65504.f, 0x1p-24f}) {
    std::fill(row.begin(), row.end(), value);
    round_trip();
    CHECK(back == row);
  }
  for (const float bad :
       {1e6f, std::bit_cast<float>(0x7f800000u), std::bit_cast<float>(0x7fc00000u)}) {
    std::fill(row.begin(), row.end(), 1.f);
    row[7] = bad;
    round_trip();
    CHECK(std::none_of(back.begin(), back.end(), [](float x) { return is_finite(x); }));
  }
}

TEST_CASE("Table, Vector, Transposed, Filter: places of their elements") {
  check_rows<Table<float, 7, 5>>([](std::int64_t n, std::int64_t k) { return n * 5 + k; });
  check_rows<Vector<double, 7>>([](std::int64_t, std::int64_t k) { return k; });
  check_rows<Transposed<float, 7, 5>>([](std::int64_t n, std::int64_t k) { return k * 7 + n; });
  check_rows<Filter<double, 7, 5>>([](std::int64_t n, std::int64_t k) { return k * 7 + n; });
  CHECK(Filter<float, 7, 5>::shape == Shape{7, 1, 5});
  CHECK(Vector<float, 7>::bytes == 28);
}

TEST_CASE("Array and Ring: bytes and slots") {
  CHECK(Array<float, 3, 5>::bytes(99) == 60);
  CHECK(Array<double, 3>::bytes(99) == 24);
  CHECK(Ring<bf16, 3, 7, 2>::bytes(99) == 84);
  CHECK(Ring<float, 2, 0, 3>::bytes(99) == 99 * 24);
  std::array<float, 1> memory{};
  const auto place = reinterpret_cast<std::byte*>(memory.data());
  Ring<float, 1, 7, 6> window;
  window.bind(place, 1000, 99);
  CHECK((window.n_slots == 7 && window.data == memory.data() && window.stride == 1000));
  CHECK(window.size_bytes() == 7 * 24);
  Ring<float, 1, 0, 6> unbounded;
  unbounded.bind(place, 1001, 99);
  CHECK((unbounded.n_slots == 99 && unbounded.stride == 1001));
  CHECK(unbounded.size_bytes() == 99 * 24);
  window.bind_slots(place, 8, 1);  // one slot will do where nothing is read from before
  CHECK((window.n_slots == 1 && window.stride == 8 && window.size_bytes() == 24));
}

TEST_CASE("Array, Ring: the tensors of states that stand one after another") {
  // A state of an array and two rings, 256 bytes; three of them.
  const Arena arena(3 * 256);
  std::byte* const block = arena.data();
  Array<double, 2, 3> array;
  Ring<float, 2, 4, 3> window;
  Ring<bf16, 1, 0, 2> unbounded;
  array.bind(block, 256, 5);
  window.bind(block + 64, 256, 5);
  unbounded.bind(block + 192, 256, 5);
  const ArrayData<double>& data = array;
  const RingData<float>& ring = window;
  for (const std::int64_t state : {0, 1, 2}) {
    std::byte* const at = block + state * 256;
    CHECK(reinterpret_cast<std::byte*>(data.of(state)) == at);
    CHECK(reinterpret_cast<std::byte*>(ring.of(state)) == at + 64);
    CHECK(reinterpret_cast<std::byte*>(unbounded.of(state)) == at + 192);
  }
  CHECK((data.of(0) == array.data && ring.of(0) == window.data));
  // The stride is in bytes, whatever the type, and may go backwards.
  const ArrayData<float> backwards{reinterpret_cast<float*>(block + 512), -256};
  CHECK(reinterpret_cast<std::byte*>(backwards.of(2)) == block);
  // Tensors that have no place have none in any state.
  CHECK(ArrayData<float>{nullptr, 256}.of(2) == nullptr);
  Array<float, 3> nowhere;
  nowhere.bind(nullptr, 256, 5);
  CHECK(nowhere.of(1) == nullptr);
}

TEST_CASE("Arena: aligned, zeroed, one owner") {
  for (const std::int64_t bytes : {1, 63, 64, 1000}) {
    Arena arena(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(arena.data()) % alignment == 0);
    CHECK(arena.bytes() == bytes);
    int wrong = 0;
    for (std::int64_t i = 0; i < bytes; ++i) wrong += arena.data()[i] != std::byte{0};
    CHECK(wrong == 0);
    std::byte* const data = arena.data();
    const Arena moved = std::move(arena);
    CHECK(moved.data() == data);
    CHECK((arena.bytes() == 0 && arena.data() == Arena().data()));
    Arena assigned(5);
    arena = Arena(bytes);
    assigned = std::move(arena);
    CHECK((assigned.bytes() == bytes && arena.bytes() == 0));
  }
  CHECK((Arena(0).data() != nullptr && Arena().data() != nullptr));  // for std::memcpy of 0 bytes
  CHECK(Arena().bytes() == 0);
}

TEST_CASE("sizes that cannot be counted are errors that name them") {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  STATIC_REQUIRE(checked_product("x", 3, 35) == 105);
  STATIC_REQUIRE(checked_product("x", most, 1) == most);
  STATIC_REQUIRE(checked_sum("x", most - 5, 5) == most);
  STATIC_REQUIRE(checked_round_up("x", 65, 64) == 128);
  CHECK_MESSAGE_OF(checked_product("capacity", 2, most), "capacity: 2 x 9223372036854775807");
  CHECK_MESSAGE_OF(checked_sum("all", most, 1), "all: 9223372036854775807 + 1");
  CHECK_MESSAGE_OF(checked_round_up("all", most - 62, 64), "all: 9223372036854775745 + 63");

  using Keys = Ring<float, 2, 0, 16>;
  CHECK(Keys::bytes(100) == 2 * 100 * 16 * 4);
  // 128 bytes a position: these have the low bits of small numbers.
  for (const std::int64_t capacity : {most, (std::int64_t{1} << 57) + 8, std::int64_t{1} << 56})
    CHECK_MESSAGE_OF(Keys::bytes(capacity), "capacity", std::to_string(capacity));
  CHECK(Ring<float, 2, 4, 16>::bytes(most) == 2 * 4 * 16 * 4);  // ignores it

  Placer placer;
  placer.take(most - 64);
  CHECK_MESSAGE_OF(placer.take(1), "9223372036854775745 + 63");
  for (const auto& [rows, threads] :
       {std::pair{most, 1}, {(most >> 6) + 8, 1}, {most >> 8, 1000}}) {
    ScratchPlacer place{{}, rows, threads};
    Rows<float, 64> x;
    PerThreadRows<float, 64> own;
    if (threads == 1) CHECK_MESSAGE_OF(place(x), std::to_string(rows) + " x 256");
    CHECK_MESSAGE_OF(place(own), "tokens");
  }
}

TEST_CASE("memory that the system does not have is an error that says how much") {
  // No processor of today has the addresses for it.
  CHECK_MESSAGE_OF(Arena(std::int64_t{1} << 60, "states"), "states: ", "1152921504606846976 bytes");
  std::vector<double> values(3, 1.5);
  CHECK_MESSAGE_OF(resize(values, std::int64_t{1} << 62, "rank"), "4611686018427387904 x 8");
  if constexpr (!address_sanitizer)
    CHECK_MESSAGE_OF(resize(values, std::int64_t{1} << 58, "rank"),
                     "rank: ", "2305843009213693952");
  CHECK(values == std::vector<double>(3, 1.5));
}

TEST_CASE("Placer: places follow one another, aligned; without a block it counts") {
  const Arena arena(1000);
  Placer placer{arena.data()}, counter;
  CHECK(placer.take(1) == arena.data());
  CHECK(placer.take(64) == arena.data() + 64);
  CHECK(placer.take(0) == arena.data() + 128);
  CHECK(placer.take(65) == arena.data() + 128);
  CHECK(placer.offset == 256);
  for (const std::int64_t bytes : {1, 64, 0, 65}) CHECK(counter.take(bytes) == nullptr);
  CHECK(counter.offset == 256);
}

TEST_CASE("ScratchPlacer: buffers for all rows and all threads, apart") {
  const Arena arena(1 << 16);
  ScratchPlacer place{{arena.data()}, 5, 3};
  Rows<float, 7> rows;
  PerThread<float, 100> threads;
  Rows<double, 2> after;
  place(rows);
  place(threads);
  place(after);
  CHECK((rows.rows == 5 && rows.stride == 7 && after.rows == 5));
  CHECK(reinterpret_cast<std::byte*>(rows.data) == arena.data());
  CHECK(reinterpret_cast<std::byte*>(threads.data) >= reinterpret_cast<std::byte*>(rows.row(5)));
  CHECK(threads.of(0) == threads.data);
  for (int rank = 1; rank < 3; ++rank) {
    CHECK(threads.of(rank) >= threads.of(rank - 1) + 100);
    // A cache line apart, so that no two threads write to one.
    CHECK(reinterpret_cast<std::uintptr_t>(threads.of(rank)) % alignment == 0);
  }
  CHECK(reinterpret_cast<std::byte*>(after.data) >=
        reinterpret_cast<std::byte*>(threads.of(2) + 100));
  CHECK(reinterpret_cast<std::byte*>(after.row(5)) <= arena.data() + place.placer.offset);
}

TEST_CASE("fail: joins text, integers and shapes") {
  std::string message;
  try {
    fail({"tensor ", std::string("x"), ": expected ", Shape{2, 3}, ", found ", Shape{}, " and ",
          std::int64_t{-5}});
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK(message == "tensor x: expected [2, 3], found [] and -5");
}

TEST_CASE("join: numbers as they read back, text from files quoted") {
  using detail::join;
  CHECK(join({true, " ", 0.1f, " ", std::uint64_t{18446744073709551615u}, " ",
              std::numeric_limits<std::int64_t>::min()}) ==
        "true 0.1 18446744073709551615 -9223372036854775808");
  const std::string text("a\"\\\n\0\x7f\xc3\xa9", 8);
  CHECK(join({Quoted{text}}) == "\"a\\\"\\\\\\u000a\\u0000\\u007f\xc3\xa9\"");
}

TEST_CASE("Shape: at most eight extents") {
  Shape shape{2, 3};
  CHECK(shape.size() == 2);
  CHECK((shape[0] == 2 && shape[1] == 3));
  CHECK(shape == Shape(std::span<const std::int64_t>(std::vector<std::int64_t>{2, 3})));
  CHECK_FALSE(shape == Shape{2, 3, 0});
  for (std::int64_t i = 3; i <= 8; ++i) CHECK(shape.push_back(i));
  CHECK_FALSE(shape.push_back(9));
  CHECK(shape.size() == 8);
  CHECK_THROWS_AS(Shape(std::span<const std::int64_t>(std::vector<std::int64_t>(9))), Error);
}
