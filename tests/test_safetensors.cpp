// The safetensors reader and writer, the JSON reader under them, and checkpoints in shards.
#include <samba/io/folder.hpp>
#include <samba/io/safetensors.hpp>
#include <samba/io/shards.hpp>

#include "catch.hpp"
#include "support.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <random>
#include <span>
#include <string>
#include <vector>

using namespace samba;
using namespace samba_test;

namespace {

std::span<const std::byte> as_bytes(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

std::string length_prefix(std::uint64_t n) {
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &n, 8);
  return prefix;
}

/// A file with this header, unpadded, and `data` zero bytes behind it.
std::string file_of(const std::string& header, std::size_t data = 0) {
  return length_prefix(header.size()) + header + std::string(data, '\0');
}

/// The header's text for one tensor.
std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

constexpr Dtype all_dtypes[] = {Dtype::f64,     Dtype::f32,     Dtype::f16,    Dtype::bf16,
                                Dtype::f8_e4m3, Dtype::f8_e5m2, Dtype::i64,    Dtype::i32,
                                Dtype::i16,     Dtype::i8,      Dtype::u64,    Dtype::u32,
                                Dtype::u16,     Dtype::u8,      Dtype::boolean};

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("safetensors: dtype names and sizes") {
  const std::map<Dtype, std::pair<std::string, int>> expected{
      {Dtype::f64, {"F64", 8}},         {Dtype::f32, {"F32", 4}},
      {Dtype::f16, {"F16", 2}},         {Dtype::bf16, {"BF16", 2}},
      {Dtype::f8_e4m3, {"F8_E4M3", 1}}, {Dtype::f8_e5m2, {"F8_E5M2", 1}},
      {Dtype::i64, {"I64", 8}},         {Dtype::i32, {"I32", 4}},
      {Dtype::i16, {"I16", 2}},         {Dtype::i8, {"I8", 1}},
      {Dtype::u64, {"U64", 8}},         {Dtype::u32, {"U32", 4}},
      {Dtype::u16, {"U16", 2}},         {Dtype::u8, {"U8", 1}},
      {Dtype::boolean, {"BOOL", 1}}};
  REQUIRE(expected.size() == std::size(all_dtypes));
  for (const auto& [dtype, row] : expected) {
    CHECK(dtype_name(dtype) == row.first);
    CHECK(dtype_bytes(dtype) == row.second);
  }
}

TEST_CASE("safetensors: every dtype survives a round trip through a file") {
  const TempDir dir;
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::vector<TensorView> tensors;
  std::vector<std::vector<std::byte>> storage;
  std::deque<std::string> names;
  int count = 0;
  for (const Dtype dtype : all_dtypes) {
    for (const Shape& shape : {Shape{}, {3}, {2, 0, 5}, {1, 2, 3}}) {
      std::int64_t elements = 1;
      for (const auto extent : shape) elements *= extent;
      storage.emplace_back(static_cast<std::size_t>(elements * dtype_bytes(dtype)));
      for (std::byte& b : storage.back()) b = static_cast<std::byte>(random() & 255);
      names.push_back(std::to_string(count++) + "." + dtype_name(dtype));
      tensors.push_back({names.back(), dtype, shape, storage.back()});
    }
  }
  const std::string path = dir.file("all.safetensors");
  const std::map<std::string, std::string> metadata{{"format", "pt"},
                                                    {"a \"quoted\"\n\x01 key", "\\ \xc3\xa9"}};
  write_safetensors(path, tensors, metadata);

  CHECK(dir.files() == std::vector<std::string>{"all.safetensors"});
  std::uint64_t header = 0;
  std::memcpy(&header, read_file(path).data(), 8);
  CHECK(header % 8 == 0);

  auto opened = SafetensorsFile::open(path);
  const TensorView* const before = opened.find("0.F64");
  const SafetensorsFile file = std::move(opened);  // views outlive the move
  CHECK(file.find("0.F64") == before);
  CHECK(file.path() == path);
  CHECK(file.metadata() == metadata);
  REQUIRE(file.tensors().size() == tensors.size());
  CHECK(std::is_sorted(file.tensors().begin(), file.tensors().end(),
                       [](const auto& a, const auto& b) { return a.name < b.name; }));
  for (const TensorView& expected : tensors) {
    CAPTURE(expected.name);
    const TensorView* const found = file.find(expected.name);
    REQUIRE(found);
    CHECK(found->name == expected.name);
    CHECK(found->dtype == expected.dtype);
    CHECK(found->shape == expected.shape);
    CHECK(found->file == path);
    CHECK(found->size() ==
          static_cast<std::int64_t>(expected.data.size()) / dtype_bytes(expected.dtype));
    CHECK(found->dtype_text() == dtype_name(expected.dtype));
    CHECK(std::ranges::equal(found->data, expected.data));
  }
  CHECK(file.find("0.F32") == nullptr);
  CHECK(file.find("") == nullptr);
  CHECK(file.find("zzz") == nullptr);
}

TEST_CASE("safetensors: what the format allows is read") {
  SECTION("no tensors") {
    CHECK(parse_safetensors(as_bytes(file_of("{}")), "f").tensors.empty());
    for (const std::string empty : {"{}", " null "}) {
      const std::string bytes = file_of("{\"__metadata__\":" + empty + "}");
      CHECK(parse_safetensors(as_bytes(bytes), "f").metadata.size() == 0);
    }
  }
  SECTION("white space inside, spaces behind") {
    const std::string bytes = file_of(
        "{ \"a\" :\n{\t\"shape\":[ 1 , 2 ],\r\"data_offsets\":[0, 2],\"dtype\":\"U8\"} }    ", 2);
    const auto content = parse_safetensors(as_bytes(bytes), "f");
    REQUIRE(content.tensors.size() == 1);
    CHECK(content.tensors[0].shape == Shape{1, 2});
    CHECK(content.tensors[0].data.data() == as_bytes(bytes).data() + bytes.size() - 2);
  }
  SECTION("data in another order than the header") {
    const std::string bytes = file_of(
        "{" + entry("b", "U8", "[1]", "[3,4]") + "," + entry("a", "U8", "[3]", "[0,3]") + "}", 4);
    const auto content = parse_safetensors(as_bytes(bytes), "f");
    REQUIRE(content.tensors.size() == 2);
    CHECK(content.tensors[0].name == "a");
    CHECK(content.tensors[1].data.data() == content.tensors[0].data.data() + 3);
  }
  SECTION("empty tensors at the edges of others, and with vast other extents") {
    const std::string bytes =
        file_of("{" + entry("a", "F32", "[0]", "[0,0]") + "," + entry("b", "F32", "[1]", "[0,4]") +
                    "," + entry("c", "F32", "[0,1000000000000]", "[4,4]") + "}",
                4);
    const auto content = parse_safetensors(as_bytes(bytes), "f");
    REQUIRE(content.tensors.size() == 3);
    CHECK(content.tensors[0].size() == 0);
    CHECK(content.tensors[1].size() == 1);
    CHECK(content.tensors[2].size() == 0);
  }
  SECTION("dtypes of later versions of the format: of any size, between others") {
    // 4 and 6 bits an element, scales, complex numbers, and what is yet to come.
    const std::string bytes = file_of(
        "{" + entry("a", "F4", "[3,4]", "[0,6]") + "," + entry("b", "F32", "[1]", "[6,10]") + "," +
            entry("c", "F6_E2M3", "[4]", "[10,13]") + "," +
            entry("d", "F8_E8M0", "[2]", "[13,15]") + "," +
            entry("e", "F8_E4M3FNUZ", "[1]", "[15,16]") + "," +
            entry("f", "C64", "[1]", "[16,24]") + "," + entry("g", "f32", "[0,3]", "[24,24]") +
            "," + entry("h", "X\u00e9", "[1000000000000]", "[24,25]") + "}",
        25);
    const auto content = parse_safetensors(as_bytes(bytes), "f");
    REQUIRE(content.tensors.size() == 8);
    const std::pair<std::string, std::int64_t> expected[] = {
        {"F4", 12},         {"F32", 1}, {"F6_E2M3", 4}, {"F8_E8M0", 2},
        {"F8_E4M3FNUZ", 1}, {"C64", 1}, {"f32", 0},     {"X\xc3\xa9", 1'000'000'000'000}};
    for (std::size_t i = 0; i < 8; ++i) {
      const TensorView& tensor = content.tensors[i];
      CAPTURE(tensor.name);
      CHECK(tensor.dtype_text() == expected[i].first);
      CHECK(tensor.size() == expected[i].second);
      CHECK((tensor.dtype == Dtype::other) == (i != 1));
      std::vector<float> value(i == 6 ? 0 : 1);
      const std::string found = "found " + expected[i].first;
      if (i == 1) {
        read_floats(tensor, 0, value);
        CHECK(value[0] == 0);
      } else {
        CHECK_MESSAGE_OF(read_floats(tensor, 0, value), "tensor \"", "expected dtype", found);
        std::vector<std::int64_t> integers(value.size());
        CHECK_MESSAGE_OF(read_integers(tensor, 0, integers), "expected dtype I64 or I32", found);
      }
    }
  }
  SECTION("escapes in names") {
    const std::string bytes =
        file_of("{" + entry("\\u00e9\\ud83d\\ude00\\n\\/\\\"", "U8", "[]", "[0,1]") + "}", 1);
    const auto content = parse_safetensors(as_bytes(bytes), "f");
    REQUIRE(content.tensors.size() == 1);
    CHECK(content.tensors[0].name == "\xc3\xa9\xf0\x9f\x98\x80\n/\"");
  }
}

TEST_CASE("safetensors: malformed files are refused with a sentence") {
  struct Case {
    const char* what;
    std::string bytes;
    const char* message;
  };
  const auto one = [](const std::string& fields, std::size_t data = 4) {
    return file_of("{\"t\":{" + fields + "}}", data);
  };
  const auto meta = [](const std::string& value) {
    return file_of("{\"__metadata__\":" + value + "}");
  };
  const auto f32 = [](const std::string& name, const std::string& shape,
                      const std::string& offsets) { return entry(name, "F32", shape, offsets); };
  const std::string good = f32("t", "[1]", "[0,4]");
  std::string deep = "{\"__metadata__\":";
  for (int i = 0; i < 100; ++i) deep += "{\"a\":";

  const Case cases[] = {
      {"empty", "", "not a safetensors file: it has 0 bytes"},
      {"seven bytes", "1234567", "not a safetensors file: it has 7 bytes"},
      {"length beyond the file", length_prefix(9) + "{}",
       "truncated: the header takes 9 bytes, found 2"},
      {"length one beyond the file", length_prefix(3) + "{}",
       "truncated: the header takes 3 bytes, found 2"},
      {"length over the limit", length_prefix(100'000'001) + "{}",
       "a header of 100000001 bytes, at most 100000000"},
      {"length 2^64 - 1", std::string(8, '\xff') + "{}", "a header of 18446744073709551615 bytes"},
      {"length with the sign bit", length_prefix(1ull << 63) + "{}",
       "a header of 9223372036854775808 bytes"},
      {"header of no bytes", file_of(""), "byte 0: expected '{' as the first character"},
      {"header of spaces", file_of("   "), "expected '{' as the first character"},
      {"array", file_of("[]"), "expected '{' as the first character"},
      {"space before", file_of(" {}"), "expected '{' as the first character"},
      {"byte order mark", file_of("\xef\xbb\xbf{}"), "expected '{' as the first character"},
      {"number", file_of("1"), "expected '{' as the first character"},
      {"newline behind", file_of("{}\n"), "expected only spaces after the header's last '}'"},
      {"letters behind", file_of("{}x"), "byte 2: expected only spaces"},
      {"NUL behind", file_of(std::string("{}\0", 3)), "expected only spaces"},
      {"second object behind", file_of("{}{}"), "byte 2: expected the end, found an object"},
      {"bare continuation byte", file_of("{\"\x80\":{}}"), "byte 2: invalid UTF-8"},
      {"overlong code", file_of("{\"\xc0\xaf\":{}}"), "byte 2: invalid UTF-8"},
      {"overlong code of three bytes", file_of("{\"\xe0\x80\xaf\":{}}"), "byte 2: invalid UTF-8"},
      {"overlong code of four bytes", file_of("{\"\xf0\x80\x80\xaf\":{}}"),
       "byte 2: invalid UTF-8"},
      {"surrogate in UTF-8", file_of("{\"\xed\xa0\x80\":{}}"), "byte 2: invalid UTF-8"},
      {"code past U+10FFFF", file_of("{\"\xf4\x90\x80\x80\":{}}"), "byte 2: invalid UTF-8"},
      {"lead byte past F4", file_of("{\"\xf5\x80\x80\x80\":{}}"), "byte 2: invalid UTF-8"},
      {"code cut short", file_of("{\"a\xc3"), "byte 3: invalid UTF-8"},
      {"object without end", file_of("{"), "byte 1: expected a string, found the end"},
      {"key without quotes", file_of("{a:1}"), "byte 1: expected a string, found \"a\""},
      {"key without value", file_of("{\"t\"}"), "in \"t\": expected ':', found \"}\""},
      {"comma behind the last", file_of("{" + good + ",}", 4), "expected a string, found \"}\""},
      {"no comma", file_of("{" + good + f32("u", "[]", "[4,8]") + "}", 8),
       "expected ',' or '}', found a string"},
      {"object closed by a bracket", file_of("{" + good + "]", 4),
       "expected ',' or '}', found \"]\""},
      {"string without end", file_of("{\"abc"), "the string does not end"},
      {"control character", file_of("{\"a\nb\":{}}"), "byte 3: control character in a string"},
      {"NUL in a string", file_of(std::string("{\"\0\":{}}", 8)),
       "byte 2: control character in a string"},
      {"unknown escape", file_of("{\"\\x41\":{}}"), "unknown escape in a string"},
      {"escape cut short", file_of("{\"\\"), "unknown escape in a string"},
      {"bad hexadecimal digits", file_of("{\"\\u12g4\":{}}"), "\\u needs four hexadecimal digits"},
      {"hexadecimal digits cut short", file_of("{\"\\u12"), "\\u needs four hexadecimal digits"},
      {"high surrogate alone", file_of("{\"\\ud800\":{}}"), "half a surrogate pair"},
      {"high surrogate, then another", file_of("{\"\\ud800\\ud800\":{}}"), "half a surrogate pair"},
      {"low surrogate alone", file_of("{\"\\udc00\":{}}"), "half a surrogate pair"},
      {"high surrogate, then the end", file_of("{\"\\ud800"), "half a surrogate pair"},
      {"tensor twice", file_of("{" + good + "," + good + "}", 4), "duplicate key \"t\""},
      {"tensor twice, one escaped",
       file_of("{" + good + "," + f32("\\u0074", "[1]", "[0,4]") + "}", 4), "duplicate key \"t\""},
      {"nine extents", file_of("{" + f32("t", "[1,1,1,1,1,1,1,1,1]", "[0,4]") + "}", 4),
       "in \"t\".\"shape\": expected at most 8 numbers"},
      {"field twice", one(R"("dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4])"),
       "in \"t\": duplicate key \"dtype\""},
      {"metadata twice", file_of("{\"__metadata__\":{},\"__metadata__\":{}}"),
       "duplicate key \"__metadata__\""},
      {"metadata key twice", meta("{\"a\":\"1\",\"a\":\"2\"}"),
       "in \"__metadata__\": duplicate key \"a\""},
      {"metadata no object", meta("[]"), "in \"__metadata__\": expected an object, found an array"},
      {"metadata nothing", meta("nul"), "in \"__metadata__\": expected an object, found \"n\""},
      {"metadata null and more", meta("nullo"), "expected ',' or '}', found \"o\""},
      {"metadata number", meta("{\"a\":1}"),
       "in \"__metadata__\".\"a\": expected a string, found a number"},
      {"metadata nested", meta("{\"a\":{}}"),
       "in \"__metadata__\".\"a\": expected a string, found an object"},
      {"metadata deep", file_of(deep), "expected a string, found an object"},
      {"tensor no object", file_of("{\"t\":3}"), "in \"t\": expected an object, found a number"},
      {"tensor null", file_of("{\"t\":null}"), "in \"t\": expected an object, found \"n\""},
      {"unknown field", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1)"),
       "in \"t\".\"x\": unknown field"},
      {"no fields", file_of("{\"t\":{}}"), "tensor \"t\" has no dtype"},
      {"no dtype", one(R"("shape":[1],"data_offsets":[0,4])"), "tensor \"t\" has no dtype"},
      {"no shape", one(R"("dtype":"F32","data_offsets":[0,4])"), "tensor \"t\" has no shape"},
      {"no data_offsets", one(R"("dtype":"F32","shape":[1])"), "tensor \"t\" has no data_offsets"},
      {"unknown dtype beyond the data", file_of("{" + entry("t", "F99", "[1]", "[0,5]") + "}", 4),
       "tensor \"t\": data_offsets [0, 5] end beyond"},
      {"unknown dtype of too many elements",
       file_of("{" + entry("t", "F99", "[4611686018427387904,4]", "[0,4]") + "}", 4), "too large"},
      {"dtype empty", file_of("{" + entry("t", "", "[1]", "[0,4]") + "}", 4), "empty dtype"},
      {"dtype number", one(R"("dtype":32,"shape":[1],"data_offsets":[0,4])"),
       "in \"t\".\"dtype\": expected a string, found a number"},
      {"shape number", file_of("{" + f32("t", "1", "[0,4]") + "}", 4),
       "in \"t\".\"shape\": expected an array, found a number"},
      {"shape string", file_of("{" + f32("t", "[\"1\"]", "[0,4]") + "}", 4),
       "in \"t\".\"shape\": expected a number, found a string"},
      {"shape nested", file_of("{" + f32("t", "[[1]]", "[0,4]") + "}", 4),
       "expected a number, found an array"},
      {"shape negative", file_of("{" + f32("t", "[-1]", "[0,4]") + "}", 4),
       "expected an integer from 0 to 2^63 - 1, found -1"},
      {"shape minus zero", file_of("{" + f32("t", "[-0]", "[0,0]") + "}"),
       "expected an integer from 0 to 2^63 - 1, found -0"},
      {"shape fraction", file_of("{" + f32("t", "[1.0]", "[0,4]") + "}", 4),
       "expected an integer from 0 to 2^63 - 1, found 1.0"},
      {"shape exponent", file_of("{" + f32("t", "[1e0]", "[0,4]") + "}", 4),
       "expected an integer from 0 to 2^63 - 1, found 1e0"},
      {"shape with leading zero", file_of("{" + f32("t", "[01]", "[0,4]") + "}", 4),
       "expected ',' or ']', found a number"},
      {"shape of 2^63", file_of("{" + f32("t", "[9223372036854775808]", "[0,4]") + "}", 4),
       "found 9223372036854775808"},
      {"shape of 2^64 + 1", file_of("{" + f32("t", "[18446744073709551617]", "[0,4]") + "}", 4),
       "found 18446744073709551617"},
      {"shape product overflows", file_of("{" + f32("t", "[4294967296,4294967296]", "[0,0]") + "}"),
       "shape [4294967296, 4294967296] is too large"},
      {"shape times dtype overflows",
       file_of("{" + f32("t", "[4611686018427387904]", "[0,0]") + "}"),
       "shape [4611686018427387904] is too large"},
      {"empty shape overflows", file_of("{" + f32("t", "[0,4294967296,4294967296]", "[0,0]") + "}"),
       "is too large"},
      {"one offset", file_of("{" + f32("t", "[1]", "[4]") + "}", 4),
       "in \"t\".\"data_offsets\": expected 2 numbers, found 1"},
      {"three offsets", file_of("{" + f32("t", "[1]", "[0,4,4]") + "}", 4),
       "expected 2 numbers, found 3"},
      {"no offsets", file_of("{" + f32("t", "[1]", "[]") + "}", 4), "expected 2 numbers, found 0"},
      {"offsets object", file_of("{" + f32("t", "[1]", "{}") + "}", 4),
       "in \"t\".\"data_offsets\": expected an array, found an object"},
      {"offset negative", file_of("{" + f32("t", "[1]", "[-4,0]") + "}", 4), "found -4"},
      {"offset bool", file_of("{" + f32("t", "[1]", "[true,4]") + "}", 4),
       "expected a number, found \"t\""},
      {"offset of 2^64", file_of("{" + f32("t", "[1]", "[0,18446744073709551616]") + "}", 4),
       "found 18446744073709551616"},
      {"end before begin", file_of("{" + f32("t", "[1]", "[4,0]") + "}", 4),
       "tensor \"t\": data_offsets [4, 0] end before they begin"},
      {"end beyond the data", file_of("{" + f32("t", "[2]", "[0,8]") + "}", 7),
       "tensor \"t\": data_offsets [0, 8] end beyond the file's 7 bytes"},
      {"both beyond the data", file_of("{" + f32("t", "[0]", "[8,8]") + "}"),
       "tensor \"t\": data_offsets [8, 8] end beyond the file's 0 bytes"},
      {"end of 2^63 - 1", file_of("{" + f32("t", "[1]", "[0,9223372036854775807]") + "}", 4),
       "end beyond the file's 4 bytes"},
      {"too few bytes for the shape", file_of("{" + f32("t", "[2]", "[0,4]") + "}", 4),
       "tensor \"t\": expected 8 bytes for F32 [2], found 4"},
      {"too many bytes for the shape", file_of("{" + f32("t", "[]", "[0,8]") + "}", 8),
       "tensor \"t\": expected 4 bytes for F32 [], found 8"},
      {"bytes for an empty shape", file_of("{" + f32("t", "[0]", "[0,4]") + "}", 4),
       "tensor \"t\": expected 0 bytes for F32 [0], found 4"},
      {"overlap",
       file_of("{" + f32("a", "[2]", "[0,8]") + "," + f32("b", "[2]", "[4,12]") + "}", 12),
       "tensors \"a\" and \"b\" overlap"},
      {"same bytes twice",
       file_of("{" + f32("a", "[1]", "[0,4]") + "," + f32("b", "[1]", "[0,4]") + "}", 4),
       "tensors \"a\" and \"b\" overlap"},
      {"empty within another",
       file_of("{" + f32("a", "[2]", "[0,8]") + "," + f32("b", "[0]", "[4,4]") + "}", 8),
       "tensors \"a\" and \"b\" overlap"},
      {"hole at the front", file_of("{" + f32("t", "[1]", "[4,8]") + "}", 8),
       "4 bytes of data before tensor \"t\" belong to no tensor"},
      {"hole in between",
       file_of("{" + f32("a", "[1]", "[0,4]") + "," + f32("b", "[1]", "[6,10]") + "}", 10),
       "2 bytes of data before tensor \"b\""},
      {"hole at the end", file_of("{" + good + "}", 5),
       "the last 1 bytes of data belong to no tensor"},
      {"data without tensors", file_of("{}", 3), "the last 3 bytes of data belong to no tensor"},
  };
  STATIC_REQUIRE(std::size(cases) >= 35);

  const TempDir dir;
  for (const Case& c : cases) {
    CAPTURE(c.what, c.message);
    const std::string message =
        message_of([&] { parse_safetensors(as_bytes(c.bytes), "hostile.bin"); });
    CAPTURE(message);
    CHECK(contains(message, c.message));
    CHECK(message.starts_with("hostile.bin: "));

    const std::string path = dir.file("hostile.safetensors");
    write_file(path, c.bytes);
    const std::string from_file = message_of([&] { SafetensorsFile::open(path); });
    CHECK(contains(from_file, c.message));
    CHECK(from_file.starts_with(path));
  }
}

TEST_CASE(
    "safetensors: every truncation and every changed byte is refused or read within the file") {
  const std::string good = file_of(
      "{" + entry("a", "F32", "[2,1]", "[0,8]") + "," + entry("b", "U8", "[]", "[8,9]") + "} ", 9);
  REQUIRE(parse_safetensors(as_bytes(good), "f").tensors.size() == 2);
  for (std::size_t length = 0; length < good.size(); ++length) {
    const std::string cut = good.substr(0, length);
    CAPTURE(length);
    CHECK_THROWS_AS(parse_safetensors(as_bytes(cut), "f"), Error);
  }
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = good;
      changed[at] = static_cast<char>(value);
      try {
        const auto content = parse_safetensors(as_bytes(changed), "f");
        for (const TensorView& tensor : content.tensors) {
          REQUIRE(tensor.data.data() >= as_bytes(changed).data());
          REQUIRE(tensor.data.data() + tensor.data.size() <=
                  as_bytes(changed).data() + changed.size());
        }
      } catch (const Error&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 20'000);
}

TEST_CASE("safetensors: paths that are no readable file are named with the reason") {
  const TempDir dir;
  CHECK(message_of([&] { SafetensorsFile::open(dir.file("none")); }) ==
        dir.file("none") + ": cannot open for reading: No such file or directory");
  CHECK(message_of([&] { SafetensorsFile::open(dir.path()); }) ==
        dir.path() + ": expected a file, found a directory");
  CHECK(
      contains(message_of([&] { SafetensorsFile::open("/dev/null"); }), "expected a regular file"));
  REQUIRE(::mkfifo((dir.file("pipe")).c_str(), 0600) == 0);
  CHECK(contains(message_of([&] { SafetensorsFile::open(dir.file("pipe")); }),
                 "expected a regular file"));
  write_file(dir.file("empty"), "");
  CHECK(MappedFile(dir.file("empty")).bytes().empty());
  CHECK(contains(message_of([&] { SafetensorsFile::open(dir.file("empty")); }), "it has 0 bytes"));

  write_file(dir.file("abc"), "abc");
  MappedFile a(dir.file("abc")), b(dir.file("empty"));
  const std::byte* const data = a.bytes().data();
  b = std::move(a);
  CHECK(b.bytes().data() == data);
  CHECK(b.bytes().size() == 3);
  CHECK(b.path() == (dir.file("abc")));
}

TEST_CASE("mapped files: pages that are dropped are read again, and others are left alone") {
  const TempDir dir;
  Random rng;
  CAPTURE(rng.seed);
  std::string bytes(1 << 20, '\0');
  for (char& byte : bytes) byte = static_cast<char>(rng.bits());
  write_file(dir.file("a"), bytes);
  const std::vector<std::byte> above(1 << 20,
                                     std::byte{1});  // the system gives addresses from above
  struct {                                           // for part_in_memory
    struct Tensor {
      std::span<const std::byte> data;
    };
    MappedFile map;
    std::vector<Tensor> tensors() const { return {{map.bytes()}}; }
  } const file{MappedFile(dir.file("a"))};
  const MappedFile& map = file.map;
  const auto same = [&] {
    return std::memcmp(map.bytes().data(), bytes.data(), bytes.size()) == 0;
  };
  CHECK(same());
  const bool known = part_in_memory(file) == 1;  // false where the system does not say
  map.drop(map.bytes().subspan(1, bytes.size() - 2));
  CHECK(part_in_memory(file) == 0);
  CHECK(same());
  map.drop(map.bytes().subspan(bytes.size() / 2));
  CHECK(part_in_memory(file) == (known ? 0.5 : 0));
  CHECK(same());
  // Nothing, the bytes of another file, and memory that is not of a file.
  write_file(dir.file("b"), "b");
  map.drop({});
  map.drop(map.bytes().first(0));
  map.drop(MappedFile(dir.file("b")).bytes());
  MappedFile(dir.file("b")).drop(map.bytes());
  const std::vector<std::byte> below(1 << 20, std::byte{1});
  for (const auto* own : {&above, &below}) {
    map.drop(*own);
    CHECK(std::count(own->begin(), own->end(), std::byte{1}) == std::ssize(*own));
  }
  CHECK(part_in_memory(file) == (known ? 1 : 0));
}

TEST_CASE("json: values that are skipped are checked too") {
  const auto skip = [](const std::string& text) {
    return message_of([&] {
      JsonReader json(text, "j");
      json.skip();
      json.end();
    });
  };
  const std::string accepted = "<nothing was thrown>";
  for (const char* text :
       {"null", "true", "false", "0", "-0", "10", "1.5", "-1.25e+10", "1E5", "2e-3", "\"\"", "[]",
        "{}", " [1, [], {\"a\": {\"b\": [null]}}] ", "\"\\b\\f\\t\\r\\u0000\""}) {
    CAPTURE(text);
    CHECK(skip(text) == accepted);
  }
  const std::pair<const char*, const char*> refused[] = {
      {"", "byte 0: expected a value, found the end"},
      {"nul", "expected a value, found \"n\""},
      {"True", "expected a value, found \"T\""},
      {"nullx", "byte 4: expected the end, found \"x\""},
      {"NaN", "expected a value"},
      {"+1", "expected a value, found \"+\""},
      {"-", "byte 1: expected a digit, found the end"},
      {"01", "byte 1: expected the end, found a number"},
      {"1.", "byte 2: expected a digit"},
      {".5", "expected a value"},
      {"1e", "expected a digit"},
      {"1e+", "expected a digit"},
      {"0x10", "expected the end"},
      {"[1,]", "byte 3: expected a value, found \"]\""},
      {"[1 2]", "byte 3: expected ',' or ']', found a number"},
      {"{\"a\":1,\"b\":{\"c\":1,\"c\":2}}", "in \"b\": duplicate key \"c\""},
      {"{\"a\":[1,{\"b\":x}]}", "in \"a\".\"b\": expected a value, found \"x\""},
      {"'a'", "expected a value, found \"'\""},
      {"// c\n1", "expected a value"},
      {"\xc3\xa9", "expected a value, found a character beyond ASCII"},
  };
  for (const auto& [text, message] : refused) {
    CAPTURE(text, message, skip(text));
    CHECK(contains(skip(text), message));
    CHECK(skip(text).starts_with("j, byte "));
  }
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']');
  };
  CHECK(skip(nested(JsonReader::max_depth)) == accepted);
  CHECK(contains(skip(nested(JsonReader::max_depth + 1)), "nested deeper than 32 levels"));
  CHECK(contains(skip(std::string(1'000'000, '[')), "nested deeper than 32 levels"));
  CHECK(contains(skip(std::string(1'000'000, '{')), "expected a string"));
}

TEST_CASE("json: the largest whole number is read, the next is not") {
  const auto read = [](const std::string& text) { return JsonReader(text, "j").whole_number(); };
  CHECK(read("0") == 0);
  CHECK(read("9223372036854775807") == std::numeric_limits<std::int64_t>::max());
  CHECK_THROWS_AS(read("9223372036854775808"), Error);
  CHECK_THROWS_AS(read("99999999999999999999999"), Error);
}

TEST_CASE("safetensors: all 65536 halves have the value of the formula") {
  // Values as sums of powers of two by ldexp, apart from infinities and NaN, which are bit
  // patterns.
  int wrong = 0;
  for (int bits = 0; bits < 65536; ++bits) {
    const int exponent = bits / 1024 % 32, fraction = bits % 1024;
    const bool negative = bits >= 32768;
    const auto found = std::bit_cast<std::uint32_t>(f16_to_float(static_cast<std::uint16_t>(bits)));
    std::uint32_t expected = 0;
    if (exponent == 31) {
      expected =
          (negative ? 0xff800000u : 0x7f800000u) + static_cast<std::uint32_t>(fraction) * 8192u;
    } else {
      const double magnitude =
          exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
      expected = std::bit_cast<std::uint32_t>(static_cast<float>(magnitude)) |
                 (negative ? 0x80000000u : 0u);
    }
    if (found != expected) ++wrong;
  }
  CHECK(wrong == 0);
  CHECK(f16_to_float(0x3c00) == 1.0f);
  CHECK(f16_to_float(0xc000) == -2.0f);
  CHECK(f16_to_float(0x7bff) == 65504.0f);
  CHECK(f16_to_float(0x0001) == 0x1p-24f);
  CHECK(f16_to_float(0x03ff) == 0x1.ff8p-15f);
  CHECK(std::bit_cast<std::uint32_t>(f16_to_float(0x8000)) == 0x80000000u);
}

TEST_CASE("safetensors: elements are read from every alignment") {
  const std::vector<double> f64{0, -1.5, 0.1, 1e30, 3};
  const std::vector<float> f32{0, -1.5f, 0.1f, 1e30f, 3};
  const std::vector<std::uint16_t> f16{0, 0xbe00, 0x2e66, 0x7bff, 0x4200};
  const std::vector<std::uint16_t> b16{0, 0xbfc0, 0x3dcd, 0x7149, 0x4040};
  const std::vector<std::int64_t> i64{0, -1, std::numeric_limits<std::int64_t>::min(), 7,
                                      std::numeric_limits<std::int64_t>::max()};
  const std::vector<std::int32_t> i32{0, -1, std::numeric_limits<std::int32_t>::min(), 7,
                                      std::numeric_limits<std::int32_t>::max()};

  std::vector<std::byte> buffer(64);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    CAPTURE(shift);
    const auto place = [&](Dtype dtype, const auto& values) {
      const auto bytes = bytes_of(values);
      std::copy(bytes.begin(), bytes.end(), buffer.begin() + static_cast<std::ptrdiff_t>(shift));
      return TensorView{"t", dtype, {5}, std::span(buffer).subspan(shift, bytes.size()), "f"};
    };
    const auto check = [&](Dtype dtype, const auto& values, const std::vector<double>& expected) {
      CAPTURE(dtype_name(dtype));
      const TensorView view = place(dtype, values);
      for (std::int64_t first = 0; first <= 5; ++first) {
        for (std::int64_t count = 0; first + count <= 5; ++count) {
          std::vector<float> floats(static_cast<std::size_t>(count), -7);
          std::vector<double> doubles(static_cast<std::size_t>(count), -7);
          read_floats(view, first, std::span(floats));
          read_floats(view, first, std::span(doubles));
          for (std::size_t i = 0; i < floats.size(); ++i) {
            const double value = expected[static_cast<std::size_t>(first) + i];
            CHECK(doubles[i] == value);
            CHECK(floats[i] == static_cast<float>(value));
          }
        }
      }
    };
    check(Dtype::f64, f64, f64);
    check(Dtype::f32, f32, {f32.begin(), f32.end()});
    check(Dtype::f16, f16, {0, -1.5, 0x1.998p-4, 65504, 3});
    check(Dtype::bf16, b16, {0, -1.5, 0x1.9ap-4, 0x1.92p+99, 3});

    std::vector<std::int64_t> found(5), middle(2);
    read_integers(place(Dtype::i64, i64), 0, found);
    CHECK(found == i64);
    const TensorView narrow = place(Dtype::i32, i32);
    read_integers(narrow, 0, found);
    CHECK(found == std::vector<std::int64_t>(i32.begin(), i32.end()));
    read_integers(narrow, 2, middle);
    CHECK(middle == std::vector<std::int64_t>{i32[2], i32[3]});
  }
}

TEST_CASE("safetensors: reading another dtype or beyond the end is an error with the names") {
  const std::vector<std::byte> buffer(24);
  std::vector<float> floats(1);
  std::vector<double> doubles(1);
  std::vector<std::int64_t> integers(1);
  for (const Dtype dtype : all_dtypes) {
    const TensorView view{"x.y",
                          dtype,
                          {3},
                          std::span(buffer).first(static_cast<std::size_t>(3 * dtype_bytes(dtype))),
                          "a.st"};
    CAPTURE(dtype_name(dtype));
    const std::string as_floats = message_of([&] { read_floats(view, 0, std::span(floats)); });
    const std::string as_doubles = message_of([&] { read_floats(view, 0, std::span(doubles)); });
    const std::string as_integers = message_of([&] { read_integers(view, 0, integers); });
    const bool real =
        dtype == Dtype::f64 || dtype == Dtype::f32 || dtype == Dtype::f16 || dtype == Dtype::bf16;
    const bool integer = dtype == Dtype::i64 || dtype == Dtype::i32;
    const std::string nothing = "<nothing was thrown>", name = dtype_name(dtype);
    CHECK(as_floats ==
          (real ? nothing
                : "a.st: tensor \"x.y\": expected dtype F64, F32, F16 or BF16, found " + name));
    CHECK(as_doubles == as_floats);
    CHECK(as_integers ==
          (integer ? nothing : "a.st: tensor \"x.y\": expected dtype I64 or I32, found " + name));
  }
  const TensorView view{"x", Dtype::f32, {3}, std::span(buffer).first(12), "a.st"};
  std::vector<float> two(2, 5.0f);
  for (const std::int64_t first :
       {std::int64_t{2}, std::int64_t{3}, std::int64_t{4}, std::int64_t{-1},
        std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()}) {
    CHECK(message_of([&] { read_floats(view, first, std::span(two)); }) ==
          "a.st: tensor \"x\" has 3 elements; asked for 2 from " + std::to_string(first));
  }
  CHECK(two == std::vector<float>{5, 5});
}

TEST_CASE("safetensors: a file written in pieces reads back") {
  const TempDir dir;
  const std::string path = dir.file("pieces.safetensors");
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const auto bytes = bytes_of(values);
  {
    SafetensorsWriter writer(path, {{"k", "v"}});
    writer.declare("first", Dtype::u8, {});
    writer.declare("nothing", Dtype::f32, {0, 4});
    writer.declare("unaligned", Dtype::f32, {2, 3});
    writer.declare("nothing at the end", Dtype::f64, {0});
    writer.write("first", std::span(bytes).first(1));
    writer.write("unaligned", std::span(bytes).first(5));
    writer.write("unaligned", {});
    writer.write("unaligned", std::span(bytes).subspan(5));
    CHECK_FALSE(std::filesystem::exists(path));
    writer.finish();
  }
  CHECK(dir.files() == std::vector<std::string>{"pieces.safetensors"});
  const auto file = SafetensorsFile::open(path);
  CHECK(file.tensors().size() == 4);
  REQUIRE(file.find("unaligned"));
  std::vector<float> found(6);
  read_floats(*file.find("unaligned"), 0, std::span(found));
  CHECK(found == values);
  CHECK(file.metadata() == std::map<std::string, std::string>{{"k", "v"}});
}

TEST_CASE("safetensors: what a writer refuses, and what is left behind") {
  const TempDir dir;
  const std::string path = dir.file("target.safetensors");
  write_file(path, "precious");
  const std::vector<std::byte> bytes(16);
  const auto data = [&](std::size_t n) { return std::span(bytes).first(n); };
  const auto with = [&](auto&& f) {
    return message_of([&] {
      SafetensorsWriter writer(path);
      writer.declare("a", Dtype::f32, {2});
      writer.declare("b", Dtype::u8, {3});
      f(writer);
    });
  };
  using W = SafetensorsWriter;
  CHECK(
      contains(with([&](W& w) { w.declare("a", Dtype::u8, {}); }), "tensor \"a\": declared twice"));
  CHECK(contains(with([&](W& w) { w.declare("__metadata__", Dtype::u8, {}); }),
                 "this name is reserved"));
  CHECK(contains(with([&](W& w) { w.declare("c", Dtype::other, {}); }),
                 "this dtype cannot be written"));
  CHECK(contains(with([&](W& w) { w.declare("\xff", Dtype::u8, {}); }), "not valid UTF-8"));
  CHECK(contains(with([&](W& w) { w.declare("c", Dtype::u8, {2, -1}); }),
                 "shape [2, -1] has a negative extent"));
  CHECK(contains(with([&](W& w) { w.declare("c", Dtype::u8, {1ll << 62, 4}); }),
                 "makes the file too large"));
  CHECK(contains(with([&](W& w) {
                   w.declare("c", Dtype::u8, {1ll << 62});
                   w.declare("d", Dtype::u8, {1ll << 62});
                 }),
                 "tensor \"d\": shape [4611686018427387904] makes the file too large"));
  CHECK(contains(with([&](W& w) {
                   w.write("a", data(8));
                   w.declare("c", Dtype::u8, {});
                 }),
                 "tensor \"c\": declared after data was written"));
  CHECK(contains(with([&](W& w) { w.write("b", data(3)); }),
                 "tensor \"b\" is not the next one to be written; expected \"a\""));
  CHECK(contains(with([&](W& w) { w.write("c", data(1)); }),
                 "tensor \"c\" is not the next one to be written"));
  CHECK(contains(with([&](W& w) { w.write("a", data(9)); }),
                 "tensor \"a\": expected 8 more bytes, found 9"));
  CHECK(contains(with([&](W& w) {
                   w.write("a", data(6));
                   w.write("a", data(3));
                 }),
                 "tensor \"a\": expected 2 more bytes, found 3"));
  CHECK(contains(with([&](W& w) {
                   w.write("a", data(8));
                   w.finish();
                 }),
                 "tensor \"b\": 3 bytes were not written"));
  CHECK(contains(message_of([&] { W(path, {{"\xff", "v"}}); }), "not valid UTF-8"));
  CHECK(contains(message_of([&] { W(path, {{"k", "\xc3"}}); }), "not valid UTF-8"));
  CHECK(contains(with([&](W& w) {
                   w.declare(std::string(100'000'000, 'x'), Dtype::u8, {0});
                   w.finish();
                 }),
                 "the header takes"));

  {  // an error is final, even if what follows would be right
    W writer(path);
    writer.declare("a", Dtype::u8, {1});
    CHECK_THROWS_AS(writer.write("a", data(2)), Error);
    CHECK(contains(message_of([&] { writer.write("a", data(1)); }), "has failed"));
    CHECK(contains(message_of([&] { writer.finish(); }), "has failed"));
  }
  {  // abandoned
    W writer(path);
    writer.declare("a", Dtype::u8, {1});
    writer.write("a", data(1));
    CHECK(dir.files().size() == 2);
  }
  CHECK(dir.files() == std::vector<std::string>{"target.safetensors"});
  CHECK(read_file(path) == "precious");

  W finished(path);
  finished.finish();
  CHECK(contains(message_of([&] { finished.finish(); }), "this writer is finished"));
  CHECK(contains(message_of([&] { finished.declare("a", Dtype::u8, {}); }),
                 "this writer is finished"));
  CHECK(SafetensorsFile::open(path).tensors().empty());
}

TEST_CASE("safetensors: two writers of one path do not disturb each other") {
  const TempDir dir;
  const std::string path = dir.file("shared.safetensors");
  const std::byte byte{7};
  SafetensorsWriter one(path), two(path);
  one.declare("one", Dtype::u8, {});
  two.declare("two", Dtype::u8, {});
  one.write("one", std::span(&byte, 1));
  two.write("two", std::span(&byte, 1));
  one.finish();
  CHECK(SafetensorsFile::open(path).find("one"));
  two.finish();
  CHECK(SafetensorsFile::open(path).find("two"));
  CHECK(dir.files() == std::vector<std::string>{"shared.safetensors"});
}

TEST_CASE("safetensors: writing where it is impossible leaves nothing") {
  const TempDir dir;
  const std::string missing = dir.file("missing/x.safetensors");
  const std::string message = message_of([&] { SafetensorsWriter writer(missing); });
  CHECK(message == missing + ": cannot create: No such file or directory");
  CHECK(contains(message_of([&] { SafetensorsWriter writer(dir.path()); }), "found a directory"));
  CHECK(dir.files().empty());
}

TEST_CASE("safetensors: a disk that fills up leaves the existing file as it was") {
  const TempDir dir;
  const std::string path = dir.file("target.safetensors");
  write_file(path, "precious");
  const std::vector<std::byte> bytes(50'000);
  const std::string message = message_of([&] {
    const FileSizeLimit full(10'000);
    SafetensorsWriter writer(path);
    writer.declare("a", Dtype::u8, {50'000});
    writer.write("a", bytes);
    writer.finish();
  });
  CHECK(message == path + ": cannot write: File too large");
  CHECK(dir.files() == std::vector<std::string>{"target.safetensors"});
  CHECK(read_file(path) == "precious");
}

namespace {

// What fsync answers for files and for folders; 0: it syncs. (This definition stands in for that of
// the system.)
int fsync_of_files = 0, fsync_of_folders = 0;

/// The kind and mode, owner, and number of what is at a path; of a link, not of its target.
struct ::stat status_of(const std::string& path) {
  struct ::stat status{};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status;
}

void write_text(const std::string& path, const std::string& text) {
  FileWriter file(path);
  file.write(as_bytes(text));
  file.finish();
}

}  // namespace

extern "C" int fsync(int file) {
  struct ::stat status{};
  ::fstat(file, &status);
  errno = S_ISDIR(status.st_mode) ? fsync_of_folders : fsync_of_files;
  return errno ? -1 : ::fdatasync(file);
}

TEST_CASE("file writer: what a link leads to is replaced, not the link") {
  const TempDir dir;
  std::filesystem::create_directories(dir.file("a/b"));
  write_file(dir.file("a/target"), "old");
  using std::filesystem::create_symlink;
  create_symlink("../a/b/link", dir.file("a/chain"));
  create_symlink("../target", dir.file("a/b/link"));
  create_symlink(dir.file("a/b/new"), dir.file("dangling"));
  create_symlink("loop", dir.file("loop"));
  write_text(dir.file("a/chain"), "new");
  CHECK(read_file(dir.file("a/target")) == "new");
  write_text(dir.file("dangling"), "made");
  CHECK(read_file(dir.file("a/b/new")) == "made");
  for (const char* link : {"a/chain", "a/b/link", "dangling"})
    CHECK(S_ISLNK(status_of(dir.file(link)).st_mode));
  CHECK(files_in(dir.file("a")) == std::vector<std::string>{"b", "chain", "target"});
  CHECK(files_in(dir.file("a/b")) == std::vector<std::string>{"link", "new"});
  CHECK(message_of([&] {
          FileWriter(dir.file("loop"));
        }).starts_with(dir.file("loop") + ": cannot create: "));
}

TEST_CASE("file writer: devices, pipes and open files are written straight into") {
  const TempDir dir;
  std::filesystem::create_symlink("/dev/null",
                                  dir.file("null"));  // which this test may not replace
  write_text(dir.file("null"), "gone");
  CHECK(S_ISLNK(status_of(dir.file("null")).st_mode));
  CHECK(S_ISCHR(status_of("/dev/null").st_mode));

  const std::string pipe = dir.file("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const FileDescriptor reader(::open(pipe.c_str(), O_RDWR | O_NONBLOCK));
  write_text(pipe, "through");
  char text[16] = {};
  CHECK(::read(reader.get(), text, sizeof text) == 7);
  CHECK(std::string(text) == "through");
  CHECK(S_ISFIFO(status_of(pipe).st_mode));
  CHECK(contains(message_of([&] { FileWriter(pipe).seek(0); }), pipe + ": cannot move back"));

  // As /dev/stdout, where that is a file.
  const std::string redirected = dir.file("redirected"), out = dir.file("out");
  const FileDescriptor file(::open(redirected.c_str(), O_RDWR | O_CREAT, 0600));
  const auto before = status_of(redirected).st_ino;
  std::filesystem::create_symlink("/proc/self/fd/" + std::to_string(file.get()), out);
  for (const std::string& path : {out, "/dev/fd/" + std::to_string(file.get())}) {
    // It stands behind what this process wrote; another has written more.
    write_file(redirected, "before... rest");
    REQUIRE(::lseek(file.get(), 6, SEEK_SET) == 6);
    write_text(path, " it");
    REQUIRE(::write(file.get(), ",", 1) == 1);
    CHECK(read_file(redirected) == "before it,rest");
    CHECK(status_of(redirected).st_ino == before);
    CHECK(contains(message_of([&] { FileWriter(path).seek(0); }), path + ": cannot move back"));
  }
  // As with >>.
  const FileDescriptor log(::open(redirected.c_str(), O_WRONLY | O_APPEND));
  const std::string others = "/proc/" + std::to_string(::getpid()) + "/fd/";
  for (const std::string& folder : {std::string("/proc/self/fd/"), others}) {
    write_file(redirected, "old, ");
    write_text(folder + std::to_string(log.get()), "new");
    CHECK(read_file(redirected) == "old, new");
  }
  const FileDescriptor only_read(::open(redirected.c_str(), O_RDONLY));
  const std::string number = std::to_string(only_read.get());
  CHECK(message_of([&] { FileWriter("/dev/fd/" + number); }) ==
        "/dev/fd/" + number + ": cannot open for writing: Bad file descriptor");
  CHECK(read_file(redirected) == "old, new");
  CHECK(dir.files() == std::vector<std::string>{"null", "out", "pipe", "redirected"});
}

TEST_CASE("file writer: a file that is replaced passes on its mode and owner") {
  const TempDir dir;
  const ::mode_t mask = ::umask(027);
  write_text(dir.file("new"), "x");
  ::umask(mask);
  CHECK((status_of(dir.file("new")).st_mode & 07777) == 0640);
  const std::string path = dir.file("old");
  for (const ::mode_t mode : {0600u, 0640u, 0666u, 0755u, 0444u}) {
    write_file(path, "old");
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    // Others' files for the system's owner, who may write what nobody may.
    static_cast<void>(::chown(path.c_str(), 12345, 12346) == 0);
    const auto before = status_of(path);
    const bool allowed = ::access(path.c_str(), W_OK) == 0;
    const std::string message = message_of([&] { write_text(path, "new"); });
    CAPTURE(mode, message);
    CHECK(contains(message, "cannot write: Permission denied") == !allowed);
    CHECK(read_file(path) == (allowed ? "new" : "old"));
    CHECK(status_of(path).st_mode == before.st_mode);
    CHECK(status_of(path).st_uid == before.st_uid);
    CHECK(status_of(path).st_gid == before.st_gid);
    REQUIRE(::unlink(path.c_str()) == 0);
  }
  CHECK(dir.files() == std::vector<std::string>{"new"});
}

TEST_CASE("file writer: names up to the limit, two at once") {
  const TempDir dir;
  for (const std::size_t length : {1u, 240u, 254u, 255u}) {
    CAPTURE(length);
    const std::string path = dir.file(std::string(length, 'x'));
    FileWriter one(path), two(path);
    one.write(as_bytes("one"));
    one.finish();
    CHECK(read_file(path) == "one");
    two.write(as_bytes("two"));
    two.finish();
    CHECK(read_file(path) == "two");
  }
  CHECK(dir.files().size() == 4);
  const std::string path = dir.file(std::string(256, 'x'));
  CHECK(message_of([&] { FileWriter{path}; }) == path + ": cannot create: File name too long");
  CHECK(contains(message_of([] { FileWriter{""}; }), "expected the path of a file"));
  CHECK(dir.files().size() == 4);
}

TEST_CASE("file writer: file systems that cannot sync, and disks that fail to") {
  const TempDir dir;
  const std::string path = dir.file("x");
  for (const int code : {EINVAL, ENOTSUP, 0}) {
    fsync_of_files = fsync_of_folders = code;
    write_text(path, std::to_string(code));
    CHECK(read_file(path) == std::to_string(code));
  }
  fsync_of_files = EIO;
  CHECK(contains(message_of([&] { write_text(path, "new"); }), path + ": cannot write: "));
  CHECK(read_file(path) == "0");
  fsync_of_files = 0;
  fsync_of_folders = EIO;
  CHECK(contains(message_of([&] { write_text(path, "new"); }), path + ": written, but its name"));
  CHECK(read_file(path) == "new");
  fsync_of_folders = 0;
  CHECK(dir.files() == std::vector<std::string>{"x"});
}

TEST_CASE("file writer: the program may go to another folder meanwhile") {
  const TempDir dir, other;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  {
    const FileWriter abandoned("abandoned");
    FileWriter finished("finished");
    finished.write(as_bytes("all"));
    CHECK(dir.files().size() == 2);
    std::filesystem::current_path(other.path());
    finished.finish();
  }
  std::filesystem::current_path(before);
  CHECK(dir.files() == std::vector<std::string>{"finished"});
  CHECK(read_file(dir.file("finished")) == "all");
  CHECK(other.files().empty());
}

TEST_CASE("folders: what the system says is in the error") {
  const TempDir dir;
  std::filesystem::create_symlink(dir.file("nowhere"), dir.file("link"));
  CHECK(message_of([&] { make_folders(dir.file("link/x")); }) ==
        dir.file("link") + ": cannot create the folder: File exists");
  make_folders(dir.file("a/b"));
  CHECK(names_in_folder(dir.file("a")) == std::vector<std::string>{"b"});
  CHECK(names_in_folder(dir.file("none")).empty());

  // A folder that was opened and can no longer be read.
  const detail::OpenFolder folder(::opendir(dir.path().c_str()));
  write_file(dir.file("file"), "");
  const FileDescriptor file(::open(dir.file("file").c_str(), O_RDONLY));
  REQUIRE(::dup2(file.get(), ::dirfd(folder.get())) >= 0);
  std::vector<std::string> names;
  CHECK_FALSE(detail::read_names(folder.get(), names));
  CHECK(errno == ENOTDIR);
}

TEST_CASE("safetensors: a million tensors") {
  // Linear in their number: otherwise this takes hours.
  const TempDir dir;
  const std::string path = dir.file("x.safetensors");
  constexpr int n = 1'000'000;
  SafetensorsWriter writer(path);
  for (int i = 0; i < n; ++i) writer.declare(std::to_string(i), Dtype::u8, {1});
  for (int i = 0; i < n; ++i) {
    const auto byte = static_cast<std::byte>(i);
    writer.write(std::to_string(i), std::span(&byte, 1));
  }
  writer.finish();
  const auto file = SafetensorsFile::open(path);
  CHECK(file.tensors().size() == n);
  for (const int i : {0, 1, 77'777, n - 1}) {
    const TensorView* const tensor = file.find(std::to_string(i));
    REQUIRE(tensor);
    CHECK(tensor->data[0] == static_cast<std::byte>(i));
  }
}

namespace {

/// One shard with U8 scalars of these names; the value of each is its first letter.
void write_shard(const std::string& path, const std::vector<std::string>& names) {
  SafetensorsWriter writer(path);
  for (const std::string& name : names) writer.declare(name, Dtype::u8, {});
  for (const std::string& name : names) writer.write(name, std::as_bytes(std::span(name).first(1)));
  writer.finish();
}

}  // namespace

TEST_CASE("checkpoint: one file, an index, or a folder of either") {
  const TempDir dir;
  write_shard(dir.file("model-1.safetensors"), {"c", "a"});
  write_shard(dir.file("model-2.safetensors"), {"b"});
  const std::string index = dir.file("model.safetensors.index.json");
  write_file(index, R"({"metadata":{"total_size":3,"more":[1.5,null]},"weight_map":
    {"c":"model-1.safetensors","b":"model-2.safetensors","a":"model-1.safetensors"}})");

  for (const std::string& path : {index, dir.path(), dir.path() + "/"}) {
    auto opened = Checkpoint::open(path);
    const TensorView* const b = opened.find("b");
    const Checkpoint checkpoint = std::move(opened);
    CHECK(names_of(checkpoint) == std::vector<std::string>{"a", "b", "c"});
    REQUIRE(b);
    CHECK(checkpoint.find("b") == b);
    CHECK(contains(b->file, "model-2.safetensors"));
    for (const std::string& name : names_of(checkpoint)) {
      CHECK(static_cast<char>(checkpoint.find(name)->data[0]) == name[0]);
    }
    CHECK(checkpoint.find("d") == nullptr);
    CHECK(contains(checkpoint.path(), "model.safetensors.index.json"));
  }

  const auto single = Checkpoint::open(dir.file("model-1.safetensors"));
  CHECK(names_of(single) == std::vector<std::string>{"a", "c"});
  CHECK(single.path() == (dir.file("model-1.safetensors")));

  write_shard(dir.file("model.safetensors"), {"only"});
  CHECK(names_of(Checkpoint::open(dir.path())) == std::vector<std::string>{"only"});

  const TempDir empty;
  CHECK(message_of([&] { Checkpoint::open(empty.path()); }) ==
        empty.path() +
            ": expected model.safetensors or model.safetensors.index.json in this folder");
  CHECK(
      contains(message_of([&] { Checkpoint::open(empty.file("x.safetensors")); }), "No such file"));
  CHECK(
      contains(message_of([&] { Checkpoint::open(empty.file("x.index.json")); }), "No such file"));
}

TEST_CASE("checkpoint: an index in the working folder finds its shards there") {
  const TempDir dir;
  write_shard(dir.file("s.safetensors"), {"a"});
  write_file(dir.file("i.json"), R"({"weight_map":{"a":"s.safetensors"}})");
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  const std::string message = message_of([] { CHECK(Checkpoint::open("i.json").find("a")); });
  std::filesystem::current_path(before);
  CHECK(message == "<nothing was thrown>");
}

TEST_CASE("checkpoint: an index that does not fit its shards is refused with both names") {
  const TempDir dir;
  write_shard(dir.file("one"), {"a", "b"});
  write_shard(dir.file("two"), {"b", "c"});
  write_shard(dir.file("three"), {"c"});
  write_file(dir.file("broken"), "12345678");
  const std::string path = dir.file("index.json");
  const std::pair<const char*, const char*> cases[] = {
      {R"({"weight_map":{"a":"one","b":"one","x":"one"}})", "tensor \"x\" is not in shard \"one\""},
      {R"({"weight_map":{"a":"one"}})", "tensor \"b\" in shard \"one\" is not in the index"},
      {R"({"weight_map":{"a":"one","b":"one","c":"two"}})",
       "tensor \"b\" is in two shards, \"one\" and \"two\""},
      {R"({"weight_map":{"c":"gone"}})", "shard \"gone\", listed for tensor \"c\", does not exist"},
      {R"({"weight_map":{"c":"broken"}})", "/broken: not a safetensors file"},
      {R"({"weight_map":{"c":"../three"}})",
       "in \"weight_map\".\"c\": expected the name of a file in the index's own folder, found "
       "\"../three\""},
      {R"({"weight_map":{"c":"sub/three"}})", "found \"sub/three\""},
      {R"({"weight_map":{"c":"/etc/passwd"}})", "found \"/etc/passwd\""},
      {R"({"weight_map":{"c":".."}})", "found \"..\""},
      {R"({"weight_map":{"c":"."}})", "found \".\""},
      {R"({"weight_map":{"c":""}})", "found \"\""},
      {R"({"weight_map":{"c":"three\u0000x"}})", "found \"three\\u0000x\""},
      {R"({"weight_map":{"c":3}})", "in \"weight_map\".\"c\": expected a string, found a number"},
      {R"({"weight_map":["c"]})", "expected an object, found an array"},
      {R"({"weight_map":{"c":"three","c":"three"}})", "duplicate key \"c\""},
      {R"({"weight_map":{},"weight_map":{}})", "duplicate key \"weight_map\""},
      {R"({"weight_map":{"c":"three"},"extra":1})", "in \"extra\": unknown field"},
      {R"({"metadata":null})", "needs the field \"weight_map\""},
      {R"({"metadata":{}})", "needs the field \"weight_map\""},
      {R"({"metadata":{"a":{"b":1,"b":2}},"weight_map":{"c":"three"}})",
       "in \"metadata\".\"a\": duplicate key \"b\""},
      {R"({"metadata":3,"weight_map":{"c":"three"}})",
       "in \"metadata\": expected an object, found a number"},
      {R"({"weight_map":{"c":"three"}} x)", "expected the end, found \"x\""},
      {R"({"weight_map":{"c":"three"})", "expected ',' or '}', found the end"},
      {"", "expected an object, found the end"},
      {"\xff", "byte 0: invalid UTF-8"},
  };
  for (const auto& [text, expected] : cases) {
    write_file(path, text);
    const std::string message = message_of([&] { Checkpoint::open(path); });
    CAPTURE(text, expected, message);
    CHECK(contains(message, expected));
    CHECK(message.starts_with(dir.path()));
  }
  write_file(path, R"({"weight_map":{"a":"one","b":"one","c":"three"}})");
  CHECK(names_of(Checkpoint::open(path)).size() == 3);
}
