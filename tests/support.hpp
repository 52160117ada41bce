#pragma once
// What the tests share: random numbers, errors, guarded buffers, golden tensors, a temporary
// folder.
#include <samba/core/arena.hpp>
#include <samba/core/context.hpp>
#include <samba/core/error.hpp>
#include <samba/io/shards.hpp>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace samba_test {

/// Whether AddressSanitizer is in the program: its operator new ends it where there is no memory, and
/// it needs ever more memory itself.
#if defined(__clang__)
constexpr bool address_sanitizer = __has_feature(address_sanitizer);
#elif defined(__SANITIZE_ADDRESS__)
constexpr bool address_sanitizer = true;
#else
constexpr bool address_sanitizer = false;
#endif

/// The seed of the random tests: SAMBA_TEST_SEED of the environment, else 1. Print it with
/// CAPTURE(rng.seed).
inline std::uint64_t test_seed() {
  const char* text = std::getenv("SAMBA_TEST_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

/// SplitMix64: small, and the same numbers with every standard library.
struct Random {
  std::uint64_t seed = test_seed(), state = seed;

  std::uint64_t bits() {
    std::uint64_t x = state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  }
  /// In [0, n).
  int below(int n) { return static_cast<int>(bits() % static_cast<std::uint64_t>(n)); }
  double uniform(double low = -1, double high = 1) {
    return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53;
  }
  /// Fills with numbers that float represents, so that float and double tests can have the same.
  template <class R>
  void fill(std::span<R> values, double low = -1, double high = 1) {
    for (R& x : values) x = static_cast<R>(static_cast<float>(uniform(low, high)));
  }
  template <class R = float>
  std::vector<R> values(std::size_t n, double low = -1, double high = 1) {
    std::vector<R> result(n);
    fill(std::span(result), low, high);
    return result;
  }
};

/// The values in another type, for example of floats in double.
template <class To, class From>
std::vector<To> convert(const std::vector<From>& from) {
  std::vector<To> to;
  for (const From& x : from) to.push_back(static_cast<To>(x));
  return to;
}

/// Rounding error of one float operation, relative to its result: 2^-24.
inline constexpr double unit_roundoff = 0x1p-24;

/// ||actual - expected|| / ||magnitude||, in L2. 1e300 if the lengths differ or a value is not
/// finite (tested on bits, so that it holds under -ffast-math).
template <class A, class B, class C>
double error_to(const A& actual, const B& expected, const C& magnitude) {
  constexpr double failed = 1e300;
  if (std::size(actual) != std::size(expected)) return failed;
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < std::size(actual); ++i) {
    const auto a = static_cast<double>(actual[i]), e = static_cast<double>(expected[i]);
    if ((std::bit_cast<std::uint64_t>(a) >> 52 & 0x7ff) == 0x7ff) return failed;
    difference += (a - e) * (a - e);
  }
  for (const auto m : magnitude) norm += static_cast<double>(m) * static_cast<double>(m);
  if (difference > 0) return norm > 0 ? std::sqrt(difference) / std::sqrt(norm) : failed;
  return 0;
}

/// Relative L2 error ||actual - expected|| / ||expected||.
template <class A, class B>
double relative_error(const A& actual, const B& expected) {
  return error_to(actual, expected, expected);
}

/// True if both hold the same bits.
template <class A, class B>
bool same_bits(const A& a, const B& b) {
  static_assert(sizeof(*std::data(a)) == sizeof(*std::data(b)));
  return std::size(a) == std::size(b) &&
         (std::size(a) == 0 ||
          std::memcmp(std::data(a), std::data(b), std::size(a) * sizeof(*std::data(a))) == 0);
}

/// What is promised of two ways to the same result: the same bits, and under -ffast-math, where the
/// compiler may add in another order in each, the same up to rounding.
template <class A, class B>
bool same_result(const A& a, const B& b) {
#ifdef __FAST_MATH__
  return relative_error(a, b) < 1e-5;
#else
  return same_bits(a, b);
#endif
}

/// Calls check(c) for a case with rows that have gaps, whose places (offsets of its buffers from a
/// 64-byte boundary) take every value that a vector has, one by one and then all together.
template <class Case>
void every_misalignment(const Case& c, std::initializer_list<std::size_t Case::*> places,
                        auto&& check) {
  for (std::size_t offset = 0; offset < samba::vector_floats; ++offset) {
    Case one = c;
    one.gap = offset % 3;
    Case together = one;
    for (const auto place : places) {
      Case moved = one;
      moved.*place = together.*place = offset;
      check(moved);
    }
    check(together);
  }
}

/// A (rows, cols) buffer whose rows stand `stride` elements apart, `offset` elements behind a
/// 64-byte boundary, between guards. All is NaN at first: an input that is read outside its values
/// shows in the result, an output written outside them in guarded().
template <class R>
class Guarded {
 public:
  Guarded(std::size_t rows, std::size_t cols, std::size_t stride, std::size_t offset)
      : rows_(rows),
        cols_(cols),
        stride_(stride),
        first_(guard + offset),
        arena_(static_cast<std::int64_t>((2 * guard + offset + rows * stride) * sizeof(R))) {
    std::memset(arena_.data(), pattern, static_cast<std::size_t>(arena_.bytes()));
  }
  /// With the values of a (rows, cols) matrix.
  Guarded(const std::vector<R>& values, std::size_t rows, std::size_t gap, std::size_t offset)
      : Guarded(rows, values.size() / rows, values.size() / rows + gap, offset) {
    for (std::size_t i = 0; i < values.size(); ++i)
      data()[i / cols_ * stride_ + i % cols_] = values[i];
  }
  explicit Guarded(std::size_t n, std::size_t offset = 0) : Guarded(1, n, n, offset) {}
  explicit Guarded(const std::vector<R>& values, std::size_t offset = 0)
      : Guarded(values, 1, 0, offset) {}

  R* data() const { return reinterpret_cast<R*>(arena_.data()) + first_; }
  std::int64_t stride() const { return static_cast<std::int64_t>(stride_); }

  /// The (rows, cols) values without gaps.
  std::vector<R> values() const {
    std::vector<R> result(rows_ * cols_);
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] = data()[i / cols_ * stride_ + i % cols_];
    return result;
  }

  /// True if everything outside the values is as at first.
  bool guarded() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(arena_.data());
    for (std::size_t i = 0; i < static_cast<std::size_t>(arena_.bytes()); ++i) {
      const std::size_t at = i / sizeof(R) - first_;  // wraps where i is before the values
      const bool inside = at < rows_ * stride_ && at % stride_ < cols_;
      if (!inside && bytes[i] != pattern) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t guard = 64;
  static constexpr unsigned char pattern = 0xff;  // a NaN in every type
  std::size_t rows_, cols_, stride_, first_;
  samba::Arena arena_;
};

/// The states of a chunk's segments in one block, as kernels see them: that of each segment in the
/// place of its number, with a gap behind it.
template <class R>
class SegmentStates {
 public:
  /// states: one for each segment, all of one size. Numbers are below their count.
  SegmentStates(const std::vector<samba::Segment>& segments, std::vector<std::vector<R>*> states)
      : states_(std::move(states)),
        block_(states_.size(), states_[0]->size(), states_[0]->size() + 3, 0) {
    for (const samba::Segment& s : segments) numbers_.push_back(s.state);
    for (std::size_t i = 0; i < states_.size(); ++i)
      std::copy(states_[i]->begin(), states_[i]->end(), data().of(numbers_[i]));
  }
  SegmentStates(const std::vector<samba::Segment>& segments, std::vector<std::vector<R>>& states)
      : SegmentStates(segments, pointers_to(states)) {}

  samba::ArrayData<R> data() const {
    return {block_.data(), block_.stride() * static_cast<std::int64_t>(sizeof(R))};
  }
  /// Takes the states over into those it was made of; false if anything between them has changed.
  bool take_over() {
    for (std::size_t i = 0; i < states_.size(); ++i)
      std::copy_n(data().of(numbers_[i]), states_[i]->size(), states_[i]->begin());
    return block_.guarded();
  }

 private:
  static std::vector<std::vector<R>*> pointers_to(std::vector<std::vector<R>>& states) {
    std::vector<std::vector<R>*> pointers;
    for (auto& state : states) pointers.push_back(&state);
    return pointers;
  }

  std::vector<std::vector<R>*> states_;
  std::vector<std::int64_t> numbers_;
  Guarded<R> block_;
};

/// All elements of a tensor.
template <class R>
std::vector<R> read_tensor(const samba::SafetensorsFile& file, const std::string& name) {
  const samba::TensorView* tensor = file.find(name);
  if (!tensor) samba::fail({file.path(), ": no tensor ", name});
  std::vector<R> values(static_cast<std::size_t>(tensor->size()));
  if constexpr (std::is_floating_point_v<R>)
    samba::read_floats(*tensor, 0, std::span(values));
  else
    samba::read_integers(*tensor, 0, std::span(values));
  return values;
}

/// A file under tests/data.
inline std::string data_path(const std::string& name) {
  return std::string(SAMBA_TEST_DATA "/") + name;
}

/// The message of the Error that f throws, or a text that no message contains.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const samba::Error& error) {
    return error.what();
  }
  return "<nothing was thrown>";
}

/// "" if the text contains all parts in their order, else the first that is not there.
inline std::string first_missing(const std::string& text,
                                 std::initializer_list<std::string> parts) {
  std::size_t at = 0;
  for (const std::string& part : parts) {
    at = text.find(part, at);
    if (at == text.npos) return part;
    at += part.size();
  }
  return "";
}

/// The names of all tensors of a checkpoint, sorted.
inline std::vector<std::string> names_of(const samba::Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const samba::TensorView& tensor : checkpoint.tensors()) names.emplace_back(tensor.name);
  return names;
}

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}
inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The names of what is in a folder, sorted.
inline std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// A folder of its own, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "samba-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) samba::fail({"cannot make a temporary folder ", name});
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  /// The names of the files in it, sorted.
  std::vector<std::string> files() const { return files_in(path_); }

 private:
  std::string path_;
};

/// The part of the pages of a mapped file's tensors that is in this process's memory, from 0 to 1. (Linux
/// tells; 0 on other systems.)
template <class File>
double part_in_memory(const File& file) {
  const samba::FileDescriptor table(::open("/proc/self/pagemap", O_RDONLY));
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  double pages = 0, present = 0;
  for (const auto& tensor : file.tensors()) {
    const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data.data());
    for (std::uintptr_t at = begin / page; at * page < begin + tensor.data.size(); ++at) {
      std::uint64_t entry = 0;
      if (::pread(table.get(), &entry, 8, static_cast<::off_t>(8 * at)) != 8) return 0;
      present += static_cast<double>(entry >> 63);
      ++pages;
    }
  }
  return present / pages;
}

/// While it lives, write() fails half way at this size of a file, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(::rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_limit_);
    const ::rlimit limit{bytes, old_limit_.rlim_max};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) samba::fail({"cannot limit the size of files"});
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_limit_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  void (*old_handler_)(int);
  ::rlimit old_limit_{};
};

}  // namespace samba_test

/// That f throws an Error whose message contains these parts in their order.
#define CHECK_MESSAGE_OF(f, ...)                                          \
  do {                                                                    \
    const std::string samba_message = samba_test::message_of([&] { f; }); \
    CAPTURE(samba_message);                                               \
    CHECK_FALSE(samba_message.empty());                                   \
    CHECK(samba_test::first_missing(samba_message, {__VA_ARGS__}) == ""); \
  } while (false)
