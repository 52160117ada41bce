#pragma once
/// \file
/// The safetensors format: 8 bytes with the length of a JSON header, the header (name, dtype, shape
/// and place of each tensor), then the tensors' bytes, little-endian, row major. Files are not
/// trusted: everything is checked before it is used, and what the format leaves undefined is an
/// error.
#include <samba/core/error.hpp>
#include <samba/core/scalar.hpp>
#include <samba/core/shape.hpp>
#include <samba/io/file_writer.hpp>
#include <samba/io/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

/// Element types in a file. f8 is only stored; arithmetic on it is up to the caller. other: any
/// type not listed here; a file may contain such tensors, but they are neither read nor written.
enum class Dtype {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  other
};

namespace detail {
struct DtypeRow {
  Dtype dtype;
  const char* name;
  int bytes;
};
/// In the order of the enumerators.
inline constexpr std::array dtype_table{
    DtypeRow{Dtype::f64, "F64", 8},         DtypeRow{Dtype::f32, "F32", 4},
    DtypeRow{Dtype::f16, "F16", 2},         DtypeRow{Dtype::bf16, "BF16", 2},
    DtypeRow{Dtype::f8_e4m3, "F8_E4M3", 1}, DtypeRow{Dtype::f8_e5m2, "F8_E5M2", 1},
    DtypeRow{Dtype::i64, "I64", 8},         DtypeRow{Dtype::i32, "I32", 4},
    DtypeRow{Dtype::i16, "I16", 2},         DtypeRow{Dtype::i8, "I8", 1},
    DtypeRow{Dtype::u64, "U64", 8},         DtypeRow{Dtype::u32, "U32", 4},
    DtypeRow{Dtype::u16, "U16", 2},         DtypeRow{Dtype::u8, "U8", 1},
    DtypeRow{Dtype::boolean, "BOOL", 1},    DtypeRow{Dtype::other, "other", 0}};
}  // namespace detail

/// The dtype's name in a file, for example "F32".
constexpr const char* dtype_name(Dtype dtype) {
  return detail::dtype_table[static_cast<std::size_t>(dtype)].name;
}

/// The dtype of elements of a type: double, bf16, else float.
template <class R>
inline constexpr Dtype dtype_of = std::is_same_v<R, double> ? Dtype::f64
                                  : std::is_same_v<R, bf16> ? Dtype::bf16
                                                            : Dtype::f32;

/// Bytes of one element; 0 for `other`.
constexpr int dtype_bytes(Dtype dtype) {
  return detail::dtype_table[static_cast<std::size_t>(dtype)].bytes;
}

/// One tensor in a file. Its bytes, its name and the path are valid as long as the file object
/// exists. `data` is exactly shape x dtype bytes, at any alignment. (For dtype `other`, as many as
/// the file says.)
struct TensorView {
  std::string_view name;
  Dtype dtype = Dtype::f32;
  Shape shape;
  std::span<const std::byte> data;
  std::string_view file = {};         ///< path it came from, for messages
  std::string_view other_dtype = {};  ///< the name in the file of a dtype that is `other`

  /// Number of elements.
  std::int64_t size() const {
    std::int64_t n = 1;
    for (const std::int64_t extent : shape) n *= extent;
    return n;
  }
  /// The dtype's name in its file.
  std::string_view dtype_text() const {
    return dtype == Dtype::other ? other_dtype : dtype_name(dtype);
  }
};

/// The longest JSON header or index that is read or written, in bytes.
inline constexpr std::int64_t max_header_bytes = 100'000'000;

namespace detail {

/// Bytes of a tensor of this shape and dtype, or -1 if they, or the product of the nonzero extents,
/// exceed 2^63 - 1 (so that any partial product of extents is safe). For dtype `other`, the number
/// of elements.
[[gnu::cold]] inline std::int64_t tensor_bytes(const Shape& shape, Dtype dtype) {
  std::int64_t bytes = (std::max)(dtype_bytes(dtype), 1);
  bool empty = false;
  for (const std::int64_t extent : shape) {
    empty = empty || extent == 0;
    if (__builtin_mul_overflow(bytes, std::max<std::int64_t>(extent, 1), &bytes)) return -1;
  }
  return empty ? 0 : bytes;
}

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Sorting and searching with the C library, which costs nothing to compile.
[[gnu::cold]] inline int by_name(const void* a, const void* b) {
  return static_cast<const TensorView*>(a)->name.compare(static_cast<const TensorView*>(b)->name);
}
/// Orders tensors by the position of their data in the file.
[[gnu::cold]] inline int by_data(const void* a, const void* b) {
  const auto &x = static_cast<const TensorView*>(a)->data,
             &y = static_cast<const TensorView*>(b)->data;
  if (x.data() != y.data()) return x.data() < y.data() ? -1 : 1;
  return x.size() != y.size() ? x.size() < y.size() ? -1 : 1 : 0;
}
[[gnu::cold]] inline void sort(std::vector<TensorView>& tensors,
                               int (*order)(const void*, const void*)) {
  if (!tensors.empty()) std::qsort(tensors.data(), tensors.size(), sizeof(TensorView), order);
}
/// The tensor of this name among tensors sorted by name, or null.
[[gnu::cold, gnu::noinline]] inline const TensorView* find_tensor(
    const std::vector<TensorView>& sorted, std::string_view name) {
  TensorView key;
  key.name = name;
  if (sorted.empty()) return nullptr;
  return static_cast<const TensorView*>(
      std::bsearch(&key, sorted.data(), sorted.size(), sizeof(TensorView), by_name));
}

/// Reads the header's entry for one tensor.
[[gnu::cold]] inline TensorView read_entry(JsonReader& json, std::string_view name,
                                           std::span<const std::byte> data, std::string_view path,
                                           Callback<std::string_view, std::string_view&> keep) {
  TensorView tensor;
  tensor.name = name;
  tensor.file = path;
  Shape offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
  const auto read = [&json](Shape& extents) {
    json.array([&] {
      if (!extents.push_back(json.whole_number()))
        json.error({"expected at most ", Shape::max_rank, " numbers"});
    });
  };
  json.object([&](const std::string& field) {
    if (field == "dtype") {
      const std::string text = json.string();
      if (text.empty()) json.error({"tensor ", Quoted{name}, " has an empty dtype"});
      tensor.dtype = Dtype::other;
      for (const DtypeRow& row : dtype_table)
        if (text == row.name) tensor.dtype = row.dtype;
      if (tensor.dtype == Dtype::other) keep(text, tensor.other_dtype);
      has_dtype = true;
    } else if (field == "shape") {
      read(tensor.shape);
      has_shape = true;
    } else if (field == "data_offsets") {
      read(offsets);
      if (offsets.size() != 2) json.error({"expected 2 numbers, found ", offsets.size()});
      has_offsets = true;
    } else {
      json.error({"unknown field; a tensor has dtype, shape and data_offsets"});
    }
  });
  const char* missing = !has_dtype     ? "dtype"
                        : !has_shape   ? "shape"
                        : !has_offsets ? "data_offsets"
                                       : nullptr;
  if (missing) json.error({"tensor ", Quoted{name}, " has no ", missing});

  const auto wrong = [&](std::initializer_list<Part> parts) {
    fail({path, ": tensor ", Quoted{name}, ": ", join(parts)});
  };
  const std::int64_t begin = offsets[0], end = offsets[1];
  const std::int64_t bytes = tensor_bytes(tensor.shape, tensor.dtype);
  const bool known = tensor.dtype != Dtype::other;
  if (begin > end) wrong({"data_offsets ", offsets, " end before they begin"});
  if (end > static_cast<std::int64_t>(data.size()))
    wrong({"data_offsets ", offsets, " end beyond the file's ", data.size(), " bytes of data"});
  if (bytes < 0) wrong({"shape ", tensor.shape, " is too large"});
  if (known && bytes != end - begin)
    wrong({"expected ", bytes, " bytes for ", dtype_name(tensor.dtype), " ", tensor.shape,
           ", found ", end - begin, " in data_offsets ", offsets});
  tensor.data =
      data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  return tensor;
}

/// Checks that the tensors, sorted with by_data, cover every byte of the data exactly once.
[[gnu::cold]] inline void check_coverage(const std::vector<TensorView>& tensors,
                                         std::span<const std::byte> data, std::string_view path) {
  std::int64_t covered = 0;
  const TensorView* before = nullptr;
  for (const TensorView& tensor : tensors) {
    const std::int64_t begin = tensor.data.data() - data.data();
    if (begin < covered)
      fail({path, ": tensors ", Quoted{before->name}, " and ", Quoted{tensor.name},
            " overlap in the data"});
    if (begin > covered)
      fail({path, ": ", begin - covered, " bytes of data before tensor ", Quoted{tensor.name},
            " belong to no tensor"});
    covered = begin + static_cast<std::int64_t>(tensor.data.size());
    before = &tensor;
  }
  const std::int64_t left = static_cast<std::int64_t>(data.size()) - covered;
  if (left != 0) fail({path, ": the last ", left, " bytes of data belong to no tensor"});
}

}  // namespace detail

/// Pairs of strings from one JSON text, as views into one buffer: a cheaper to compile
/// std::map<std::string, std::string>.
class TextPairs {
 public:
  struct Pair {
    std::string_view key, value;
  };

  TextPairs() = default;
  /// Reserves `bytes` bytes of text, which never move.
  [[gnu::cold]] explicit TextPairs(std::size_t bytes) {
    text_.reserve(bytes + sizeof text_);  // more than a string holds in place
  }
  TextPairs(TextPairs&&) = default;
  TextPairs& operator=(TextPairs&&) = default;

  /// Returns a copy of the text that is valid as long as this object, or the one it was moved into,
  /// exists.
  [[gnu::cold]] std::string_view keep(std::string_view text) {
    const std::size_t begin = text_.size();
    text_.append(text.data(), text.size());
    return {text_.data() + begin, text.size()};
  }
  [[gnu::cold]] void add(std::string_view key, std::string_view value) {
    const Pair pair{keep(key), keep(value)};
    pairs_.push_back(pair);
  }
  [[gnu::cold]] void sort() {
    if (!pairs_.empty()) std::qsort(pairs_.data(), pairs_.size(), sizeof(Pair), by_key);
  }

  /// The value of a key, or null. Call sort() first.
  [[gnu::cold, gnu::noinline]] const std::string_view* find(std::string_view key) const {
    const Pair wanted{key, {}};
    if (pairs_.empty()) return nullptr;
    const void* const found =
        std::bsearch(&wanted, pairs_.data(), pairs_.size(), sizeof(Pair), by_key);
    return found ? &static_cast<const Pair*>(found)->value : nullptr;
  }
  std::size_t size() const { return pairs_.size(); }
  const Pair* begin() const { return pairs_.data(); }
  const Pair* end() const { return pairs_.data() + pairs_.size(); }

 private:
  static int by_key(const void* a, const void* b) {
    return static_cast<const Pair*>(a)->key.compare(static_cast<const Pair*>(b)->key);
  }

  std::vector<Pair> pairs_;
  std::string text_;
};

/// The content of a safetensors file.
struct SafetensorsContent {
  std::vector<TensorView> tensors;  ///< sorted by name
  TextPairs metadata;               ///< `__metadata__`; also stores the path and the names
};

/// Parses and checks the bytes of a whole safetensors file; the views point into `bytes` and into
/// the result. `path` is for messages only. Throws Error on anything that the format does not
/// allow.
[[gnu::cold]] inline SafetensorsContent parse_safetensors(std::span<const std::byte> bytes,
                                                          std::string_view path) {
  if (bytes.size() < 8)
    fail({path, ": not a safetensors file: it has ", bytes.size(),
          " bytes, and the length of the header alone takes 8"});
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > static_cast<std::uint64_t>(max_header_bytes))
    fail({path, ": not a safetensors file: its first 8 bytes declare a header of ", length,
          " bytes, at most ", max_header_bytes, " are allowed"});
  if (length > bytes.size() - 8)
    fail({path, ": truncated: the header takes ", length, " bytes, found ", bytes.size() - 8});
  std::string_view header = detail::as_text(bytes.subspan(8, static_cast<std::size_t>(length)));
  const auto data = bytes.subspan(8 + static_cast<std::size_t>(length));
  header = header.substr(0, header.find_last_not_of(' ') + 1);  // the format pads with spaces

  SafetensorsContent content;
  // No decoded text is longer than its JSON form in the header.
  content.metadata = TextPairs(path.size() + header.size());
  path = content.metadata.keep(path);
  const auto keep = [&](std::string_view text, std::string_view& kept) {
    kept = content.metadata.keep(text);
  };
  JsonReader json(header, detail::join({path, ": header"}));
  if (!header.starts_with('{')) json.error({"expected '{' as the first character"});
  json.object([&](const std::string& name) {
    if (name != "__metadata__") {
      const TensorView tensor =
          detail::read_entry(json, content.metadata.keep(name), data, path, keep);
      content.tensors.push_back(tensor);
    } else if (!json.null()) {  // which some writers use for no metadata
      json.object([&](const std::string& key) { content.metadata.add(key, json.string()); });
    }
  });
  content.metadata.sort();
  if (!header.ends_with('}')) json.error({"expected only spaces after the header's last '}'"});
  json.end();

  detail::sort(content.tensors, detail::by_data);
  detail::check_coverage(content.tensors, data, path);
  detail::sort(content.tensors, detail::by_name);
  return content;
}

/// A memory-mapped safetensors file. Its tensors are views into the map, valid as long as the
/// object, or the one it was moved into, exists. Move-only.
class SafetensorsFile {
 public:
  /// Throws Error if the file cannot be read or violates the format.
  static SafetensorsFile open(std::string path) { return SafetensorsFile(std::move(path)); }
  [[gnu::cold]] explicit SafetensorsFile(std::string path)
      : map_(std::move(path)), content_(parse_safetensors(map_.bytes(), map_.path())) {}

  /// All tensors, sorted by name.
  const std::vector<TensorView>& tensors() const { return content_.tensors; }

  /// The tensor of this name, or null.
  const TensorView* find(std::string_view name) const {
    return detail::find_tensor(content_.tensors, name);
  }

  /// `__metadata__`.
  template <int = 0>
  std::map<std::string, std::string> metadata() const {
    std::map<std::string, std::string> all;
    for (const auto& [key, value] : content_.metadata) all.emplace(key, value);
    return all;
  }
  /// One entry of `__metadata__`, or null.
  const std::string_view* metadata(std::string_view key) const {
    return content_.metadata.find(key);
  }
  const std::string& path() const { return map_.path(); }
  /// As MappedFile::drop, of this file.
  void drop(std::span<const std::byte> part) const { map_.drop(part); }
  /// Releases the map, which contains the tensors' data.
  MappedFile release() && { return std::move(map_); }

 private:
  MappedFile map_;
  SafetensorsContent content_;
};

namespace detail {

/// Throws unless elements [first, first + count) are in the tensor.
[[gnu::cold]] inline void check_elements(const TensorView& tensor, std::int64_t first,
                                         std::size_t count) {
  const std::int64_t size = tensor.size();
  if (first < 0 || first > size || count > static_cast<std::size_t>(size - first)) {
    fail({tensor.file, ": tensor ", Quoted{tensor.name}, " has ", size, " elements; asked for ",
          count, " from ", first});
  }
}

/// out[i] = convert(element first + i), elements of type Stored at any alignment.
template <class Stored, class Out, class Convert>
void read_elements(const TensorView& tensor, std::int64_t first, std::span<Out> out,
                   Convert convert) {
  const std::byte* const data = tensor.data.data() + first * std::int64_t{sizeof(Stored)};
  if constexpr (std::is_same_v<Stored, Out>) {
    if (!out.empty()) std::memcpy(out.data(), data, out.size_bytes());
  } else {
    for (std::size_t i = 0; i < out.size(); ++i) {
      Stored stored;
      std::memcpy(&stored, data + i * sizeof(Stored), sizeof(Stored));
      out[i] = static_cast<Out>(convert(stored));
    }
  }
}

[[noreturn, gnu::cold]] inline void fail_dtype(const TensorView& tensor, const char* expected) {
  fail({tensor.file, ": tensor ", Quoted{tensor.name}, ": expected dtype ", expected, ", found ",
        tensor.dtype_text()});
}

template <class Real>
void read_reals(const TensorView& tensor, std::int64_t first, std::span<Real> out) {
  constexpr auto same = [](auto x) { return x; };
  check_elements(tensor, first, out.size());
  switch (tensor.dtype) {
    case Dtype::f64: return read_elements<double>(tensor, first, out, same);
    case Dtype::f32: return read_elements<float>(tensor, first, out, same);
    case Dtype::f16: return read_elements<std::uint16_t>(tensor, first, out, f16_to_float);
    case Dtype::bf16:
      return read_elements<bf16>(tensor, first, out, [](bf16 x) { return float(x); });
    default: fail_dtype(tensor, "F64, F32, F16 or BF16");
  }
}

}  // namespace detail

/// out[i] = element first + i, row major, for i in [0, out.size()). F64 is rounded to float; F32,
/// F16 and BF16 are exact. Throws Error, naming the tensor, for any other dtype or elements out of
/// range.
inline void read_floats(const TensorView& tensor, std::int64_t first, std::span<float> out) {
  detail::read_reals(tensor, first, out);
}

/// The same in double, which is exact for all four.
inline void read_floats(const TensorView& tensor, std::int64_t first, std::span<double> out) {
  detail::read_reals(tensor, first, out);
}

/// out[i] = element first + i of an I64 or I32 tensor. Throws Error as read_floats does.
template <int = 0>
void read_integers(const TensorView& tensor, std::int64_t first, std::span<std::int64_t> out) {
  constexpr auto same = [](auto x) { return x; };
  detail::check_elements(tensor, first, out.size());
  switch (tensor.dtype) {
    case Dtype::i64: return detail::read_elements<std::int64_t>(tensor, first, out, same);
    case Dtype::i32: return detail::read_elements<std::int32_t>(tensor, first, out, same);
    default: detail::fail_dtype(tensor, "I64 or I32");
  }
}

/// Writes a safetensors file piece by piece, so that the tensors never need to be in memory at
/// once: declare() every tensor, write() their bytes in the same order, finish(). The file appears
/// complete, or not at all; see FileWriter. Errors are Error and name the path. After one, as after
/// finish(), every call is an error. (A template only so that programs that do not use it need not
/// compile it.)
template <class = void>
class BasicSafetensorsWriter {
 public:
  explicit BasicSafetensorsWriter(std::string path,
                                  const std::map<std::string, std::string>& metadata = {})
      : file_(std::move(path)) {
    for (const auto& [key, value] : metadata) {
      header_ += header_.empty() ? "{\"__metadata__\":{" : ",";
      header_ += quoted(key);
      header_ += ':';
      header_ += quoted(value);
    }
    header_ += header_.empty() ? "{" : "}";
  }

  /// Declares the next tensor. Must not be called after the first write().
  void declare(std::string_view name, Dtype dtype, const Shape& shape) {
    enter();
    const std::string key = quoted(name),
                      which = detail::join({file_.path(), ": tensor ", key, ": "});
    if (header_written_) fail({which, "declared after data was written"});
    if (name == "__metadata__") fail({which, "this name is reserved"});
    if (dtype == Dtype::other) fail({which, "this dtype cannot be written"});
    if (!names_.emplace(name, true).second) fail({which, "declared twice"});
    for (const std::int64_t extent : shape)
      if (extent < 0) fail({which, "shape ", shape, " has a negative extent"});
    const std::int64_t bytes = detail::tensor_bytes(shape, dtype), begin = total_;
    if (bytes < 0 || __builtin_add_overflow(begin, bytes, &total_))
      fail({which, "shape ", shape, " makes the file too large"});
    header_ +=
        detail::join({header_.size() > 1 ? "," : "", key, ":{\"dtype\":\"", dtype_name(dtype),
                      "\",\"shape\":", shape, ",\"data_offsets\":", Shape{begin, total_}, "}"});
    tensors_.push_back({std::string(name), bytes});
    closed_ = false;
  }

  /// Appends bytes to a tensor: all of it, or the next piece. Tensors must come in the order of
  /// their declaration; those without elements may be left out.
  void write(std::string_view name, std::span<const std::byte> bytes) {
    enter();
    write_header();
    while (current_ < tensors_.size() && tensors_[current_].missing == 0 &&
           tensors_[current_].name != name) {
      ++current_;
    }
    if (current_ == tensors_.size() || tensors_[current_].name != name) {
      fail({file_.path(), ": tensor ", quoted(name),
            " is not the next one to be written; expected ",
            current_ == tensors_.size() ? "none" : quoted(tensors_[current_].name)});
    }
    std::int64_t& missing = tensors_[current_].missing;
    if (bytes.size() > static_cast<std::size_t>(missing)) {
      fail({file_.path(), ": tensor ", quoted(name), ": expected ", missing, " more bytes, found ",
            bytes.size()});
    }
    file_.write(bytes);
    missing -= static_cast<std::int64_t>(bytes.size());
    closed_ = false;
  }

  /// Completes the file, waits until it is on the disk, and replaces what was at `path`.
  void finish() {
    enter();
    write_header();
    for (const Declared& tensor : tensors_) {
      if (tensor.missing != 0) {
        fail({file_.path(), ": tensor ", quoted(tensor.name), ": ", tensor.missing,
              " bytes were not written"});
      }
    }
    file_.finish();
  }

 private:
  struct Declared {
    std::string name;
    std::int64_t missing;  // bytes still to be written
  };

  /// Closes the writer for the duration of a call. After an exception it stays closed, because the
  /// file may end in the middle of a piece.
  void enter() {
    if (closed_) fail({file_.path(), ": this writer is finished or has failed"});
    closed_ = true;
  }

  /// Quotes a text as a JSON string. A header must be valid UTF-8.
  std::string quoted(std::string_view text) const {
    if (valid_utf8_prefix(text) != text.size())
      fail({file_.path(), ": a name or metadata is not valid UTF-8"});
    return detail::join({Quoted{text}});
  }

  void write_header() {
    if (header_written_) return;
    header_written_ = true;
    header_ += '}';
    // Not required by the format: aligns the data of a mapped file as in an arena.
    header_.resize(static_cast<std::size_t>(round_up(std::ssize(header_) + 8, alignment)) - 8, ' ');
    if (header_.size() > static_cast<std::size_t>(max_header_bytes)) {
      fail({file_.path(), ": the header takes ", header_.size(), " bytes, at most ",
            max_header_bytes, " are allowed"});
    }
    const std::uint64_t length = header_.size();
    file_.write({reinterpret_cast<const std::byte*>(&length), sizeof length});
    file_.write({reinterpret_cast<const std::byte*>(header_.data()), header_.size()});
  }

  FileWriter file_;
  std::string header_;
  std::vector<Declared> tensors_;
  std::map<std::string, bool> names_;  // of tensors_
  std::int64_t total_ = 0;             // declared bytes of data
  std::size_t current_ = 0;            // the tensor being written
  bool header_written_ = false, closed_ = false;
};

using SafetensorsWriter = BasicSafetensorsWriter<>;

/// Writes the tensors, in their order, as a safetensors file; their `file` is not used. What is at
/// `path` is replaced only once everything is on the disk.
template <int = 0>
void write_safetensors(std::string path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata = {}) {
  SafetensorsWriter writer(std::move(path), metadata);
  for (const TensorView& tensor : tensors) writer.declare(tensor.name, tensor.dtype, tensor.shape);
  for (const TensorView& tensor : tensors) writer.write(tensor.name, tensor.data);
  writer.finish();
}

}  // namespace samba::inline SAMBA_TARGET
