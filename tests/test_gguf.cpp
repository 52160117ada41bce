// The GGUF reader: files written byte by byte here, and one written by the Python package gguf, with
// the values that this package says its tensors have (tests/gguf/make_data.py).
#include <samba/io/gguf.hpp>

#include "catch.hpp"
#include "gguf_bytes.hpp"
#include "support.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace samba;
using namespace samba_test;
using namespace samba_test::gguf_bytes;

namespace {

std::span<const std::byte> as_bytes(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

GgufContent parse(const std::string& bytes) { return parse_gguf(as_bytes(bytes), "f.gguf"); }

/// Reads all that a file holds; what lies outside of it is found by the sanitizers, or by the checks.
void read_everything(const std::string& bytes) {
  const GgufContent content = parse(bytes);
  const std::byte *const begin = as_bytes(bytes).data(), *const end = begin + bytes.size();
  std::size_t sum = 0;
  for (const GgufEntry& e : content.metadata) {
    REQUIRE(content.metadata.find(e.key) == &e);
    const auto read = [&](auto x) {
      using X = decltype(x);
      try {
        if (!e.is_array()) return void(sum += content.metadata.get<X>(e.key) != X{});
        for (const X value : content.metadata.array<X>(e.key)) sum += value != X{};
      } catch (const Error&) {}
    };
    read(bool{}), read(std::int64_t{}), read(float{}), read(double{}), read(std::string_view{});
  }
  for (const GgufTensor& t : content.tensors) {
    REQUIRE(t.data.data() > begin);
    REQUIRE(t.data.data() + t.data.size() <= end);
    if (!detail::find_ggml_type(t.type)->to_floats) continue;
    std::vector<float> floats(static_cast<std::size_t>(t.rows() * t.columns()));
    read_rows(t, 0, t.rows(), floats);
    for (const float x : floats) sum += is_finite(x);
  }
  REQUIRE(sum <= 1 << 20);
}

/// The same bits; under -ffast-math zeros may have another sign.
bool same_value(float a, float b) {
#ifdef __FAST_MATH__
  if (a == b) return true;
#endif
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

template <class T>
std::vector<T> values_of(const GgufArray<T>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

TEST_CASE("gguf: types have the numbers, names and sizes of the package gguf") {
  std::ifstream types(data_path("gguf/types.txt"));
  std::uint32_t number = 0;
  std::string name;
  int block = 0, bytes = 0;
  std::size_t count = 0;
  while (types >> number >> name >> block >> bytes) {
    CAPTURE(name);
    const detail::GgmlTypeRow* const row = detail::find_ggml_type(static_cast<GgmlType>(number));
    REQUIRE(row);
    CHECK(row->name == name);
    CHECK(row->block == block);
    // ggml's block is two halves and 32 bytes; the package, in 0.19.0, counts two floats.
    CHECK(row->bytes == (name == "Q8_1" ? 36 : bytes));
    ++count;
  }
  CHECK(count == detail::ggml_type_table.size());
  for (const std::uint32_t removed : {4u, 5u, 31u, 36u, 99u})
    CHECK_FALSE(detail::find_ggml_type(static_cast<GgmlType>(removed)));
}

TEST_CASE("gguf: rows of every type have the bits of the package gguf") {
  const GgufFile file(data_path("gguf/types.gguf"));
  const auto expected = SafetensorsFile::open(data_path("gguf/expected.safetensors"));
  CHECK(file.version() == 3);
  REQUIRE(file.tensors().size() == expected.tensors().size());
  std::vector<std::string> read;
  for (const GgufTensor& tensor : file.tensors()) {
    CAPTURE(tensor.name);
    const std::vector<float> all = read_tensor<float>(expected, std::string(tensor.name));
    CHECK(tensor.shape == expected.find(tensor.name)->shape);
    CHECK(&file.tensor(tensor.name) == &tensor);
    CHECK(file.find(tensor.name) == &tensor);
    const std::int64_t rows = tensor.rows(), columns = tensor.columns();
    REQUIRE(rows * columns == static_cast<std::int64_t>(all.size()));
    CHECK(tensor.row_bytes() * static_cast<std::size_t>(rows) == tensor.data.size());
    for (std::int64_t first = 0; first <= rows; ++first) {
      for (std::int64_t n = 0; n <= rows - first; ++n) {
        // Between guards, which stay as they are.
        std::vector<float> out(static_cast<std::size_t>(n * columns) + 2, 77.0f);
        read_rows(tensor, first, n, std::span(out).subspan(1, out.size() - 2));
        CHECK(out.front() == 77.0f);
        CHECK(out.back() == 77.0f);
        bool same = true;
        for (std::int64_t i = 0; i < n * columns; ++i)
          same = same && same_value(out[static_cast<std::size_t>(1 + i)],
                                    all[static_cast<std::size_t>(first * columns + i)]);
        CHECK(same);
      }
    }
    read.push_back(tensor.type_text());
  }
  std::sort(read.begin(), read.end());
  CHECK(read == std::vector<std::string>{"BF16", "F16", "F32", "F32", "Q4_0", "Q4_1", "Q4_K",
                                         "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"});
  CHECK(file.tensor("f16").shape == Shape{2, 3, 4, 5});
  CHECK(file.tensor("vector").shape == Shape{7});
}

TEST_CASE("gguf: scales that are not finite show in the values") {
  // Of each type a block of ones (nibbles 1, scales 1) whose first scale is a NaN or infinity.
  struct Case {
    GgmlType type;
    std::size_t scale;
  };
  for (const auto& [type, scale] :
       {Case{GgmlType::q8_0, 0}, Case{GgmlType::q4_0, 0}, Case{GgmlType::q4_1, 0},
        Case{GgmlType::q5_0, 0}, Case{GgmlType::q5_1, 0}, Case{GgmlType::q4_k, 0},
        Case{GgmlType::q5_k, 0}, Case{GgmlType::q6_k, 208}}) {
    const detail::GgmlTypeRow& row = *detail::find_ggml_type(type);
    CAPTURE(row.name);
    for (const std::uint16_t half :
         {std::uint16_t{0x7c00}, std::uint16_t{0xfc00}, std::uint16_t{0x7e00}}) {
      std::vector<std::uint8_t> block(static_cast<std::size_t>(row.bytes), 0x11);
      std::memcpy(block.data() + scale, &half, 2);
      std::vector<float> out(static_cast<std::size_t>(row.block));
      row.to_floats(block.data(), 1, out.data());
      CHECK(std::none_of(out.begin(), out.end(), [](float x) { return is_finite(x); }));
    }
  }
}

TEST_CASE("gguf: metadata of every type") {
  const std::string path = data_path("gguf/types.gguf");
  GgufFile opened(path);
  const GgufFile file = std::move(opened);  // views outlive the move
  const GgufMetadata& m = file.metadata();
  CHECK(m.size() == 22);
  CHECK(std::is_sorted(m.begin(), m.end(),
                       [](const auto& a, const auto& b) { return a.key < b.key; }));
  CHECK(m.get<std::string_view>("general.architecture") == "test");
  CHECK(m.get<std::int64_t>("test.uint8") == 200);
  CHECK(m.get<std::int64_t>("test.int8") == -100);
  CHECK(m.get<std::int64_t>("test.uint16") == 60000);
  CHECK(m.get<std::int64_t>("test.int16") == -30000);
  CHECK(m.get<std::int64_t>("test.uint32") == 4000000000);
  CHECK(m.get<std::int64_t>("test.int32") == -2000000000);
  CHECK(m.get<std::int64_t>("test.uint64") == INT64_MAX);
  CHECK(m.get<std::int64_t>("test.int64") == INT64_MIN);
  CHECK(m.get<float>("test.float32") == 0.1f);
  CHECK(m.get<double>("test.float32") == double{0.1f});
  CHECK(m.get<double>("test.float64") == 0.1);
  CHECK(m.get<bool>("test.true"));
  CHECK_FALSE(m.get<bool>("test.false"));
  CHECK(m.get<std::string_view>("test.string") == "\xc3\xa9\n\xf0\x9f\x98\x80");
  CHECK(m.get<std::string_view>("test.empty").empty());

  CHECK(values_of(m.array<std::string_view>("test.strings")) ==
        std::vector<std::string_view>{"<s>", "",
                                      "\xe2\x96\x81"
                                      "a"});
  CHECK(values_of(m.array<float>("test.floats")) == std::vector{-1.5f, 0.1f, 2.0f});
  CHECK(values_of(m.array<double>("test.floats")) == std::vector{-1.5, double{0.1f}, 2.0});
  CHECK(values_of(m.array<bool>("test.bools")) == std::vector{true, false, true});
  CHECK(values_of(m.array<std::int64_t>("test.ints")) == std::vector<std::int64_t>{1, -2, 3});
  CHECK(values_of(m.array<std::int64_t>("test.bytes")) == std::vector<std::int64_t>{0, 127, 255});
  const auto ints = m.array<std::int64_t>("test.ints");
  CHECK(ints.size() == 3);
  CHECK_FALSE(ints.empty());
  CHECK((ints[0] == 1 && ints[1] == -2 && ints[2] == 3));
  static_assert(std::forward_iterator<GgufArray<std::string_view>::Iterator>);

  CHECK(m.contains("test.true"));
  CHECK_FALSE(m.contains("test.tru"));
  CHECK_FALSE(m.contains(""));
  CHECK(m.find("test.strings")->type_text() == "an array of STRING");
  CHECK(m.find("test.uint8")->type_text() == "UINT8");
  CHECK(m.get<std::int64_t>("test.none", 5) == 5);
  CHECK(m.get<std::int64_t>("test.uint8", 5) == 200);
  CHECK(m.get<double>("test.none", 2.5) == 2.5);
  CHECK(m.get<std::string_view>("test.none", "x") == "x");

  const auto message = [&](auto&& f) { return message_of(f); };
  CHECK(message([&] { m.get<std::int64_t>("test.none"); }) ==
        path + ": metadata \"test.none\" is missing; expected an integer");
  CHECK(message([&] { m.array<std::string_view>("test.none"); }) ==
        path + ": metadata \"test.none\" is missing; expected an array of STRING");
  CHECK(message([&] { m.get<std::int64_t>("test.string"); }) ==
        path + ": metadata \"test.string\": expected an integer, found STRING");
  CHECK(message([&] { m.get<std::int64_t>("test.string", 5); }) ==
        path + ": metadata \"test.string\": expected an integer, found STRING");
  CHECK(message([&] { m.get<std::int64_t>("test.float64"); }) ==
        path + ": metadata \"test.float64\": expected an integer, found FLOAT64");
  CHECK(message([&] { m.get<std::int64_t>("test.true"); }) ==
        path + ": metadata \"test.true\": expected an integer, found BOOL");
  CHECK(message([&] { m.get<double>("test.uint8"); }) ==
        path + ": metadata \"test.uint8\": expected FLOAT32 or FLOAT64, found UINT8");
  CHECK(message([&] { m.get<float>("test.float64"); }) ==
        path + ": metadata \"test.float64\": expected FLOAT32, found FLOAT64");
  CHECK(message([&] { m.get<bool>("test.uint8"); }) ==
        path + ": metadata \"test.uint8\": expected BOOL, found UINT8");
  CHECK(message([&] { m.get<std::string_view>("test.strings"); }) ==
        path + ": metadata \"test.strings\": expected STRING, found an array of STRING");
  CHECK(message([&] { m.array<std::string_view>("test.string"); }) ==
        path + ": metadata \"test.string\": expected an array of STRING, found STRING");
  CHECK(message([&] { m.array<std::int64_t>("test.floats"); }) ==
        path +
            ": metadata \"test.floats\": expected an array of integers, found an array of FLOAT32");
  CHECK(message([&] { m.get<std::int64_t>("test.too_large"); }) ==
        path +
            ": metadata \"test.too_large\": expected integers of at most 2^63 - 1, "
            "found 9223372036854775808");
}

TEST_CASE("gguf: arrays of integers of every type, with those that are too large") {
  const std::string bytes =
      header(0, 3) + entry("u8", t_array, array(t_u8, 2, "\x01\xff")) +
      entry("u64", t_array, array(t_u64, 2, u64(7) + u64(INT64_MAX))) +
      entry("large", t_array, array(t_u64, 2, u64(7) + u64(std::uint64_t{1} << 63)));
  const GgufContent content = parse(bytes);
  CHECK(values_of(content.metadata.array<std::int64_t>("u8")) == std::vector<std::int64_t>{1, 255});
  CHECK(values_of(content.metadata.array<std::int64_t>("u64")) ==
        std::vector<std::int64_t>{7, INT64_MAX});
  CHECK_MESSAGE_OF(content.metadata.array<std::int64_t>("large"), "f.gguf", "\"large\"",
                   "at most 2^63 - 1", "9223372036854775808");
}

TEST_CASE("gguf: what the format allows is read") {
  SECTION("nothing at all, in versions 2 and 3") {
    for (const std::uint32_t version : {2u, 3u}) {
      CHECK(parse(header(0, 0, version)).version == version);
      CHECK(parse(padded(header(0, 0, version))).tensors.empty());
    }
    CHECK(parse(header(0, 0)).metadata.size() == 0);
    CHECK(parse(header(0, 0)).metadata.begin() == parse(header(0, 0)).metadata.end());
  }
  SECTION("the alignment is 32, or what the metadata say") {
    CHECK(parse(header(0, 0)).alignment == 32);
    for (const std::uint32_t unit : {8u, 64u, 4096u}) {
      const std::string bytes = padded(header(2, 1) + entry("general.alignment", t_u32, u32(unit)) +
                                           tensor("a", {1}, 0, 0) + tensor("b", {1}, 0, unit),
                                       unit) +
                                padded(raw(1.5f), unit) + raw(2.5f);
      const GgufContent content = parse(bytes);
      CHECK(content.alignment == unit);
      float a = 0, b = 0;
      read_rows(content.tensors[0], 0, 1, std::span(&a, 1));
      read_rows(content.tensors[1], 0, 1, std::span(&b, 1));
      CHECK((a == 1.5f && b == 2.5f));
      CHECK((content.tensors[1].data.data() - as_bytes(bytes).data()) % unit == 0);
    }
  }
  SECTION("data in another order than the names, names in any order") {
    const std::string bytes = padded(header(3, 0) + tensor("c", {1}, 0, 32) +
                                     tensor("a", {1}, 0, 64) + tensor("b", {1}, 0, 0)) +
                              padded(raw(2.0f)) + padded(raw(3.0f)) + raw(1.0f);
    const GgufContent content = parse(bytes);
    const float expected[] = {1, 2, 3};
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(content.tensors[i].name == std::string(1, static_cast<char>('a' + i)));
      CHECK(content.tensors[i].file == "f.gguf");
      float x = 0;
      read_rows(content.tensors[i], 0, 1, std::span(&x, 1));
      CHECK(x == expected[i]);
    }
  }
  SECTION("zeros behind the last tensor, up to the alignment, or fewer, or none") {
    const std::string bytes = padded(header(1, 0) + tensor("a", {1}, 0, 0)) + raw(1.0f);
    for (std::size_t zeros = 0; zeros <= 28; ++zeros)
      CHECK(parse(bytes + std::string(zeros, '\0')).tensors.size() == 1);
  }
  SECTION("types that are stored only have their bytes") {
    const std::string bytes =
        padded(header(1, 0) + tensor("a", {3, 2}, 26, 0)) + std::string(24, 'x');
    const GgufContent content = parse(bytes);
    CHECK(content.tensors[0].type == GgmlType::i32);
    CHECK(content.tensors[0].data.size() == 24);
    CHECK(content.tensors[0].row_bytes() == 12);
    std::vector<float> out(6, 7.0f);
    CHECK_MESSAGE_OF(read_rows(content.tensors[0], 0, 2, out), "f.gguf: tensor \"a\"",
                     "expected type F32, F16", "Q6_K, found I32");
    CHECK(out == std::vector<float>(6, 7.0f));
  }
  SECTION("blocks of a type that is stored only lie one after the other") {
    const std::string bytes =
        padded(header(2, 0) + tensor("a", {32 * 8}, 9, 0) + tensor("b", {1}, 0, 36 * 8)) +
        std::string(36 * 8, 'x') + raw(1.5f);
    const GgufContent content = parse(bytes);
    CHECK(content.tensors[0].type_text() == std::string("Q8_1"));
    CHECK(content.tensors[0].data.size() == 36 * 8);
    float b = 0;
    read_rows(content.tensors[1], 0, 1, std::span(&b, 1));
    CHECK(b == 1.5f);
  }
  SECTION("a name of 64 bytes, a key of 65535, an empty array") {
    const std::string name(64, 'n'), key(65535, 'k');
    const std::string bytes =
        padded(header(1, 2) + entry(key, t_u8, "\x01") +
               entry("none", t_array, array(t_string, 0, "")) + tensor(name, {1}, 0, 0)) +
        raw(1.0f);
    const GgufContent content = parse(bytes);
    CHECK(content.tensors[0].name == name);
    CHECK(content.metadata.get<std::int64_t>(key) == 1);
    CHECK(content.metadata.array<std::string_view>("none").empty());
    CHECK(values_of(content.metadata.array<std::string_view>("none")).empty());
  }
  SECTION("keys with hyphens, as published files have") {
    CHECK(parse(header(0, 1) + entry("gpt-oss.block_count", t_u32, u32(24)))
              .metadata.get<std::int64_t>("gpt-oss.block_count") == 24);
  }
  SECTION("a version of quantisation beside tensors that have none") {
    const std::string bytes =
        padded(header(1, 1) + entry("general.quantization_version", t_u32, u32(1)) +
               tensor("a", {1}, 0, 0)) +
        raw(1.0f);
    CHECK(parse(bytes).tensors.size() == 1);
  }
}

TEST_CASE("gguf: malformed files are refused with a sentence") {
  struct Case {
    std::string bytes, message;
  };
  const std::uint64_t huge = std::numeric_limits<std::uint64_t>::max(), half = huge / 2 + 1;
  const auto one = [](const std::string& info, const std::string& data = std::string(4, '\0')) {
    return padded(header(1, 0) + info) + data;
  };
  const auto two = [](const std::string& a, const std::string& b, std::size_t data) {
    return padded(header(2, 0) + a + b) + std::string(data, '\0');
  };
  const std::string a = tensor("a", {1}, 0, 0);
  std::string dirty = one(a);
  dirty[dirty.size() - 5] = 'x';  // before the data
  const Case cases[] = {
      {"", "f.gguf: not a GGUF file: it does not begin with \"GGUF\""},
      {"GGU", "not a GGUF file"},
      {"GGML" + header(0, 0).substr(4), "not a GGUF file"},
      {"GGUF\3", "the header: truncated: the version needs 4 bytes at byte 4, found 1"},
      {header(0, 0, 1), "f.gguf: the header: expected version 2 or 3, found 1"},
      {header(0, 0, 0), "expected version 2 or 3, found 0"},
      {header(0, 0, 4), "expected version 2 or 3, found 4"},
      {header(0, 0, 0x00030000), "expected version 2 or 3, found 196608"},
      {header(0, 0, 0x03000000),
       "expected a little-endian file, found a big-endian one (of version 3)"},
      {header(0, 0).substr(0, 20),
       "the number of metadata entries needs 8 bytes at byte 16, found 4"},
      {header(0, huge),
       "f.gguf: the header declares 18446744073709551615 metadata entries of at least "
       "14 bytes each, found 0 bytes"},
      {header(huge, 0),
       "f.gguf: the header declares 18446744073709551615 tensors of at least 33 "
       "bytes each, found 0 bytes"},
      {one(tensor("", {1}, 0, 0)), "tensor 0: expected a name of 1 to 64 bytes, found 0"},

      // Metadata.
      {header(0, 1) + u64(huge) + std::string(20, 'a'),
       "f.gguf: metadata entry 0: truncated: the key needs 18446744073709551615 bytes at byte "
       "32, found 20"},
      {header(0, 1) + u64(0) + u32(t_u8) + "abcd",
       "expected a key of 1 to 65535 characters, found 0"},
      {header(0, 1) + entry(std::string(65536, 'k'), t_u8, "a"),
       "expected a key of 1 to 65535 characters, found 65536"},
      {header(0, 1) + entry("a b", t_u8, "a"),
       "expected a key of printable ASCII characters, found \"a b\""},
      {header(0, 1) + entry("a\x7f", t_u8, "a"), "printable ASCII characters, found \"a\\u007f\""},
      {header(0, 1) + entry("\xc3\xa9", t_u8, "a"), "expected a key of printable ASCII"},
      {header(0, 1) + entry("a\xff", t_u8, "a"), "the key is not valid UTF-8 at its byte 1 of 2"},
      {header(0, 1) + entry("key", 13, "aaaa"),
       "f.gguf: metadata \"key\": unknown type 13, expected 0 to 12"},
      {header(0, 1) + entry("key", huge & 0xffffffff, "aaaa"), "unknown type 4294967295"},
      {header(0, 1) + entry("key", t_u64, "1234567"),
       "metadata \"key\": truncated: 1 x UINT64 need 8 bytes each, found 7 bytes"},
      {header(0, 1) + entry("key", t_bool, "\2"),
       "metadata \"key\": expected 0 or 1 as a BOOL, found 2"},
      {header(0, 1) + entry("key", t_array, array(t_bool, 2, "\1\xff")),
       "metadata \"key\": expected 0 or 1 as a BOOL, found 255"},
      {header(0, 1) + entry("key", t_string, u64(5) + "abcd"),
       "metadata \"key\": truncated: a string needs 5 bytes at byte 47, found 4"},
      {header(0, 1) + entry("key", t_string, u64(huge)),
       "a string needs 18446744073709551615 bytes at byte 47, found 0"},
      {header(0, 1) + entry("key", t_string, text("a\xc0\x80")),
       "metadata \"key\": a string is not valid UTF-8 at its byte 1 of 3"},
      {header(0, 1) + entry("key", t_array, array(t_array, 1, array(t_u8, 1, "a"))),
       "metadata \"key\": arrays of arrays are not supported"},
      {header(0, 1) + entry("key", t_array, array(99, 0, "")), "unknown type of elements 99"},
      {header(0, 1) + entry("key", t_array, array(t_u32, half / 2, u32(0))),
       "truncated: 4611686018427387904 x UINT32 need 4 bytes each, found 4 bytes"},
      {header(0, 1) + entry("key", t_array, array(t_string, huge, text("a"))),
       "truncated: 18446744073709551615 x STRING need at least 8 bytes each, found 9 bytes"},
      {header(0, 1) + entry("key", t_array, array(t_string, 2, text("a") + u64(1) + "")),
       "truncated: a string needs 1 bytes"},
      {header(0, 2) + entry("same", t_u8, "a") + entry("same", t_f32, u32(0)),
       "f.gguf: metadata \"same\" appears twice"},
      {header(0, 3) + entry("b", t_u8, "a") + entry("a", t_u8, "a") + entry("b", t_u8, "a"),
       "metadata \"b\" appears twice"},
      {header(0, 2) + entry("key", t_u8, "a"),
       "f.gguf: the header declares 2 metadata entries "
       "of at least 14 bytes each, found 16 bytes"},
      {header(0, 1) + entry("general.alignment", t_u64, u64(32)),
       "metadata \"general.alignment\": expected UINT32, found UINT64"},
      {header(0, 1) + entry("general.alignment", t_array, array(t_u32, 1, u32(32))),
       "expected UINT32, found an array of UINT32"},
      {header(0, 1) + entry("general.alignment", t_u32, u32(0)),
       "metadata \"general.alignment\": expected a power of two of at least 8, found 0"},
      {header(0, 1) + entry("general.alignment", t_u32, u32(4)), "at least 8, found 4"},
      {header(0, 1) + entry("general.alignment", t_u32, u32(24)),
       "a power of two of at least 8, "
       "found 24"},

      // Tensors.
      {header(1, 0) + u64(huge) + std::string(33, 'a'),
       "f.gguf: tensor 0: truncated: the name needs 18446744073709551615 bytes"},
      {one(tensor(std::string(65, 'n'), {1}, 0, 0)),
       "tensor 0: expected a name of 1 to 64 bytes, "
       "found 65"},
      {one(tensor("\x80", {1}, 0, 0)), "tensor 0: the name is not valid UTF-8 at its byte 0 of 1"},
      {one(tensor("a", {}, 0, 0)), "f.gguf: tensor \"a\": expected 1 to 4 extents, found 0"},
      {one(tensor("a", {1, 1, 1, 1, 1}, 0, 0)), "tensor \"a\": expected 1 to 4 extents, found 5"},
      {header(1, 0) + text("a") + u32(0xffffffff) + std::string(40, '\1'),
       "expected 1 to 4 extents, found 4294967295"},
      {one(tensor("a", {4, 0}, 0, 0)),
       "tensor \"a\": expected extents from 1 to 2^63 - 1, found 0"},
      {one(tensor("a", {half}, 0, 0)),
       "expected extents from 1 to 2^63 - 1, found "
       "9223372036854775808"},
      {one(tensor("a", {half / 2, 2}, 24, 0)),
       "tensor \"a\": shape [2, 4611686018427387904] is too large"},
      {one(tensor("a", {half / 4}, 0, 0)), "shape [2305843009213693952] is too large"},
      {one(tensor("a", {1u << 31, 1u << 31, 1u << 31}, 8, 0)), "is too large"},
      {one(tensor("a", {1}, 4, 0)),
       "tensor \"a\": expected a type of ggml, such as 0 (F32) or 12 (Q4_K), found 4"},
      {one(tensor("a", {1}, 0xffffffff, 0)), "12 (Q4_K), found 4294967295"},
      {one(tensor("a", {48, 2}, 2, 0)),
       "tensor \"a\": expected rows with a multiple of 32 elements for Q4_0, found shape [2, 48]"},
      {one(tensor("a", {128, 2}, 14, 0)),
       "expected rows with a multiple of 256 elements for Q6_K, found shape [2, 128]"},
      {one(tensor("a", {1}, 0, 4)),
       "f.gguf: tensor \"a\": expected an offset that is a multiple of 32, found 4"},
      {one(tensor("a", {2}, 0, 0)),
       "tensor \"a\": its 8 bytes at offset 0 end beyond the file's 4 bytes of data"},
      {one(tensor("a", {1}, 0, 32)),
       "tensor \"a\": its 4 bytes at offset 32 end beyond the file's 4 bytes of data"},
      {one(tensor("a", {1}, 0, huge - 31)),
       "its 4 bytes at offset 18446744073709551584 end beyond the file's 4 bytes of data"},
      {header(1, 0) + a, "its 4 bytes at offset 0 end beyond the file's 0 bytes of data"},
      {two(a, a, 4), "f.gguf: tensor \"a\" appears twice"},
      {
          two(a, tensor("b", {1}, 0, 0), 4),
          "f.gguf: tensors \"",
      },
      {two(tensor("a", {9}, 0, 0), tensor("b", {1}, 0, 32), 36),
       "f.gguf: tensors \"a\" and \"b\" overlap in the data"},
      {two(a, tensor("b", {1}, 0, 64), 68),
       "f.gguf: 32 bytes of data before tensor \"b\" belong to "
       "no tensor"},
      {one(tensor("a", {1}, 0, 32), std::string(36, '\0')),
       "32 bytes of data before tensor \"a\" belong to no tensor"},
      {one(a, std::string(33, '\0')), "f.gguf: the last 1 bytes belong to no tensor"},
      {padded(header(0, 0)) + "x", "f.gguf: the last 1 bytes belong to no tensor"},
      {one(a, raw(1.0f) + '\1'), "f.gguf: expected zeros between tensors, found 1 in byte "},
      {dirty, "expected zeros between tensors, found 120 in byte 63"},
      {header(0, 0) + "x", "expected zeros between tensors, found 120 in byte 24"},
      {padded(header(1, 1) + entry("general.quantization_version", t_i32, u32(1)) +
              tensor("a", {32}, 2, 0)) +
           std::string(18, '\0'),
       "f.gguf: metadata \"general.quantization_version\": expected 2 for tensor \"a\" of type "
       "Q4_0, found 1"},
      {padded(header(1, 1) + entry("general.quantization_version", t_string, text("2")) +
              tensor("a", {32}, 2, 0)) +
           std::string(18, '\0'),
       "metadata \"general.quantization_version\": expected an integer, found STRING"},
  };
  const TempDir dir;
  const std::string path = dir.file("x.gguf");
  for (const Case& c : cases) {
    CAPTURE(c.message);
    const std::string message = message_of([&] { parse(c.bytes); });
    CHECK(message.starts_with("f.gguf: "));
    CHECK(first_missing(message, {c.message}) == "");
    write_file(path, c.bytes);
    const std::string from_file = message_of([&] { const GgufFile file(path); });
    CHECK(from_file.starts_with(path + ": "));
  }
}

namespace {

/// A small file with an entry of each kind and a tensor of every type that is read.
std::string sound_file() {
  std::string values(18, '\0'), infos, data;
  std::uint64_t tensors = 0;
  for (const detail::GgmlTypeRow& row : detail::ggml_type_table) {
    if (!row.to_floats || row.block > 32) continue;
    infos += tensor(row.name, {static_cast<std::uint64_t>(row.block)},
                    static_cast<std::uint32_t>(row.type), data.size());
    data = padded(data + std::string(static_cast<std::size_t>(row.bytes), '\x21'));
    ++tensors;
  }
  return padded(header(tensors, 5) + entry("a", t_u32, u32(7)) + entry("b", t_string, text("t")) +
                entry("c", t_array, array(t_string, 2, text("") + text("z"))) +
                entry("d", t_array, array(t_f32, 2, raw(1.5f) + raw(2.5f))) +
                entry("e", t_bool, "\1") + infos) +
         data;
}

}  // namespace

TEST_CASE("gguf: every truncation and every changed byte is refused or read within the file") {
  const std::string good = sound_file();
  REQUIRE_NOTHROW(read_everything(good));
  REQUIRE(parse(good).tensors.size() == 8);
  // The last tensor is BF16: of its 32 bytes of data 30 are padding, which may be missing.
  for (std::size_t length = 0; length < good.size() - 30; ++length) {
    const std::string cut = good.substr(0, length);
    CAPTURE(length);
    CHECK_THROWS_AS(parse(cut), Error);
  }
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = good;
      changed[at] = static_cast<char>(value);
      try {
        read_everything(changed);
      } catch (const Error&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 100'000);
}

TEST_CASE("gguf: rows out of range and outputs of another size are errors with the names") {
  const std::string bytes =
      padded(header(1, 0) + tensor("w", {32, 3}, 2, 0)) + std::string(54, '\0');
  const GgufContent content = parse(bytes);
  const GgufTensor& w = content.tensors[0];
  std::vector<float> out(96, 7.0f);
  const auto message = [&](std::int64_t first, std::int64_t n, std::size_t size) {
    return message_of([&] { read_rows(w, first, n, std::span(out).first(size)); });
  };
  CHECK(message(0, 4, 96) == "f.gguf: tensor \"w\" has 3 rows; asked for 4 from 0");
  CHECK(message(3, 1, 32) == "f.gguf: tensor \"w\" has 3 rows; asked for 1 from 3");
  CHECK(message(-1, 1, 32) == "f.gguf: tensor \"w\" has 3 rows; asked for 1 from -1");
  CHECK(message(1, -1, 32) == "f.gguf: tensor \"w\" has 3 rows; asked for -1 from 1");
  CHECK(message(1, INT64_MAX, 32) ==
        "f.gguf: tensor \"w\" has 3 rows; asked for 9223372036854775807 from 1");
  CHECK(message(1, 2, 63) == "f.gguf: tensor \"w\": 2 rows of 32 need 64 floats, found 63");
  CHECK(message(1, 2, 65) == "f.gguf: tensor \"w\": 2 rows of 32 need 64 floats, found 65");
  CHECK(out == std::vector<float>(96, 7.0f));
  read_rows(w, 3, 0, {});
  read_rows(w, 0, 3, out);
  CHECK(out == std::vector<float>(96, 0.0f));
}

TEST_CASE("gguf: files that are missing or no files, and tensors that are missing, are named") {
  const TempDir dir;
  CHECK(message_of([&] { const GgufFile file(dir.file("none")); }) ==
        dir.file("none") + ": cannot open for reading: No such file or directory");
  CHECK(message_of([&] { const GgufFile file(dir.path()); }) ==
        dir.path() + ": expected a file, found a directory");
  write_file(dir.file("empty"), "");
  CHECK(message_of([&] { const GgufFile file(dir.file("empty")); }) ==
        dir.file("empty") + ": not a GGUF file: it does not begin with \"GGUF\"");
  const std::string path = dir.file("x");
  write_file(path, sound_file());
  GgufFile opened(path);
  const GgufTensor* const before = opened.find("Q4_0");
  const GgufFile file = std::move(opened);
  CHECK(file.find("Q4_0") == before);
  CHECK(file.tensor("Q4_0").file == path);
  CHECK(file.path() == path);
  CHECK(file.find("Q4") == nullptr);
  CHECK(message_of([&] { file.tensor("Q4"); }) == path + ": tensor \"Q4\" is missing");
}
