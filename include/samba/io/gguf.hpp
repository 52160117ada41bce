#pragma once
/// \file
/// The GGUF format, versions 2 and 3, little-endian: a header; metadata, which is keys with typed
/// values; the name, shape, type and place of each tensor; the tensors' bytes, each tensor at a
/// multiple of the alignment. Files are not trusted: everything is checked before it is used, and
/// what the format leaves undefined is an error. Source: docs/gguf.md in ggml.
#include <samba/core/error.hpp>
#include <samba/core/shape.hpp>
#include <samba/io/gguf_blocks.hpp>
#include <samba/io/json.hpp>
#include <samba/io/mapped_file.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

static_assert(std::endian::native == std::endian::little, "GGUF files are read as little-endian");

/// Types of metadata, with their numbers in a file.
enum class GgufType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

namespace detail {
struct GgufTypeRow {
  const char* name;
  int bytes;  // of a value; 0 for strings and arrays, which store their length
};
/// In the order of the enumerators.
inline constexpr std::array gguf_type_table{
    GgufTypeRow{"UINT8", 1},   GgufTypeRow{"INT8", 1},   GgufTypeRow{"UINT16", 2},
    GgufTypeRow{"INT16", 2},   GgufTypeRow{"UINT32", 4}, GgufTypeRow{"INT32", 4},
    GgufTypeRow{"FLOAT32", 4}, GgufTypeRow{"BOOL", 1},   GgufTypeRow{"STRING", 0},
    GgufTypeRow{"ARRAY", 0},   GgufTypeRow{"UINT64", 8}, GgufTypeRow{"INT64", 8},
    GgufTypeRow{"FLOAT64", 8}};

constexpr const GgufTypeRow& gguf_type_row(GgufType type) {
  return gguf_type_table[static_cast<std::size_t>(type)];
}

template <class X>
X load_unaligned(const std::byte* p) {
  X x;
  std::memcpy(&x, p, sizeof(X));
  return x;
}

/// Bytes of a checked value at p: a string's length and text, or a number.
inline std::int64_t gguf_value_bytes(GgufType type, const std::byte* p) {
  return type == GgufType::string ? 8 + load_unaligned<std::int64_t>(p) : gguf_type_row(type).bytes;
}

/// The integer at p; 2^63 and more are negative.
inline std::int64_t gguf_integer(GgufType type, const std::byte* p) {
  switch (type) {
    case GgufType::u8: return load_unaligned<std::uint8_t>(p);
    case GgufType::i8: return load_unaligned<std::int8_t>(p);
    case GgufType::u16: return load_unaligned<std::uint16_t>(p);
    case GgufType::i16: return load_unaligned<std::int16_t>(p);
    case GgufType::u32: return load_unaligned<std::uint32_t>(p);
    case GgufType::i32: return load_unaligned<std::int32_t>(p);
    default: return load_unaligned<std::int64_t>(p);
  }
}

/// A type that metadata is read as: its name in messages, the file's types that it accepts, and the
/// value at p.
template <class T>
struct GgufValue {
  static_assert(sizeof(T) == 0,
                "GGUF metadata is read as bool, std::int64_t, float, double or std::string_view");
};
template <>
struct GgufValue<bool> {
  static constexpr const char *one = "BOOL", *many = "BOOL";
  static constexpr bool takes(GgufType type) { return type == GgufType::boolean; }
  static bool read(GgufType, const std::byte* p) { return *p != std::byte{0}; }
};
template <>
struct GgufValue<std::int64_t> {
  static constexpr const char *one = "an integer", *many = "integers";
  static constexpr bool takes(GgufType type) {
    return type <= GgufType::i32 || type == GgufType::u64 || type == GgufType::i64;
  }
  static std::int64_t read(GgufType type, const std::byte* p) { return gguf_integer(type, p); }
};
template <>
struct GgufValue<float> {
  static constexpr const char *one = "FLOAT32", *many = "FLOAT32";
  static constexpr bool takes(GgufType type) { return type == GgufType::f32; }
  static float read(GgufType, const std::byte* p) { return load_unaligned<float>(p); }
};
template <>
struct GgufValue<double> {
  static constexpr const char *one = "FLOAT32 or FLOAT64", *many = "FLOAT32 or FLOAT64";
  static constexpr bool takes(GgufType type) {
    return type == GgufType::f32 || type == GgufType::f64;
  }
  static double read(GgufType type, const std::byte* p) {
    return type == GgufType::f32 ? double{load_unaligned<float>(p)} : load_unaligned<double>(p);
  }
};
template <>
struct GgufValue<std::string_view> {
  static constexpr const char *one = "STRING", *many = "STRING";
  static constexpr bool takes(GgufType type) { return type == GgufType::string; }
  static std::string_view read(GgufType, const std::byte* p) {
    return {reinterpret_cast<const char*>(p + 8), load_unaligned<std::uint64_t>(p)};
  }
};

}  // namespace detail

/// One entry of the metadata. It and the bytes that it points to are valid as long as the file
/// object, or the one it was moved into, exists.
struct GgufEntry {
  std::string_view key;
  GgufType type = GgufType::array;     ///< of the value; for an array, `array`
  GgufType element = GgufType::array;  ///< of the array's elements; for one value, its type
  std::int64_t count = 0;              ///< of the array's elements; for one value, 1
  const std::byte* data =
      nullptr;  ///< the values, at any alignment; a string is its length and text

  bool is_array() const { return type == GgufType::array; }
  /// For messages: "UINT32" or "an array of UINT32".
  std::string type_text() const {
    return detail::join({is_array() ? "an array of " : "", detail::gguf_type_row(element).name});
  }
};

/// An array in the metadata, read in place without copying. A range; T is bool, std::int64_t (any
/// integer type), float, double (either floating-point type) or std::string_view.
template <class T>
class GgufArray {
 public:
  class Iterator {
   public:
    using iterator_concept = std::forward_iterator_tag;
    using iterator_category = std::input_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using reference = T;
    using pointer = void;

    Iterator() = default;
    T operator*() const { return detail::GgufValue<T>::read(element_, at_); }
    Iterator& operator++() {
      at_ += detail::gguf_value_bytes(element_, at_);
      --left_;
      return *this;
    }
    Iterator operator++(int) {
      const Iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const Iterator& a, const Iterator& b) { return a.left_ == b.left_; }

   private:
    friend GgufArray;
    Iterator(GgufType element, std::int64_t left, const std::byte* at)
        : element_(element), left_(left), at_(at) {}

    GgufType element_ = GgufType::array;
    std::int64_t left_ = 0;
    const std::byte* at_ = nullptr;
  };

  /// The entry's elements must be of a type that T accepts; GgufMetadata checks that.
  explicit GgufArray(const GgufEntry& entry) : entry_(entry) {}

  std::size_t size() const { return static_cast<std::size_t>(entry_.count); }
  bool empty() const { return entry_.count == 0; }
  Iterator begin() const { return {entry_.element, entry_.count, entry_.data}; }
  Iterator end() const { return {entry_.element, 0, nullptr}; }
  /// Element i < size(). Not for strings, which can only be read one after another.
  T operator[](std::size_t i) const
    requires(!std::is_same_v<T, std::string_view>)
  {
    const auto bytes = static_cast<std::size_t>(detail::gguf_type_row(entry_.element).bytes);
    return detail::GgufValue<T>::read(entry_.element, entry_.data + i * bytes);
  }

 private:
  GgufEntry entry_;
};

/// The metadata of a file. Views and arrays that it returns are valid as long as the file object,
/// or the one it was moved into, exists.
class GgufMetadata {
 public:
  GgufMetadata() = default;
  /// Takes entries sorted by key; `file` is the path for messages.
  GgufMetadata(std::vector<GgufEntry> entries, std::string_view file)
      : entries_(std::move(entries)), file_(file) {}

  /// All entries, sorted by key.
  std::size_t size() const { return entries_.size(); }
  const GgufEntry* begin() const { return entries_.data(); }
  const GgufEntry* end() const { return entries_.data() + entries_.size(); }

  bool contains(std::string_view key) const { return find(key) != nullptr; }
  /// The entry of this key, or null.
  const GgufEntry* find(std::string_view key) const {
    GgufEntry wanted;
    wanted.key = key;
    if (entries_.empty()) return nullptr;
    return static_cast<const GgufEntry*>(
        std::bsearch(&wanted, entries_.data(), entries_.size(), sizeof(GgufEntry), by_key));
  }

  /// The value of this key; T is bool, std::int64_t (any integer type), float, double (either
  /// floating-point type) or std::string_view. Throws Error, naming file, key and types, if the key
  /// is missing, has a different type, or is an integer above 2^63 - 1.
  template <class T>
  T get(std::string_view key) const {
    using Value = detail::GgufValue<T>;
    const GgufEntry* const entry = find(key);
    if (!entry) fail_missing(key, "", Value::one);
    return read<T>(*entry);
  }
  /// The same, or `fallback` if the key is missing.
  template <class T>
  T get(std::string_view key, T fallback) const {
    const GgufEntry* const entry = find(key);
    return entry ? read<T>(*entry) : fallback;
  }
  /// The array of this key, under the same rules.
  template <class T>
  GgufArray<T> array(std::string_view key) const {
    using Value = detail::GgufValue<T>;
    const GgufEntry* const entry = find(key);
    if (!entry) fail_missing(key, "an array of ", Value::many);
    if (!entry->is_array() || !Value::takes(entry->element))
      fail_type(*entry, "an array of ", Value::many);
    check_range(*entry);
    return GgufArray<T>(*entry);
  }

  /// For std::qsort.
  static int by_key(const void* a, const void* b) {
    return static_cast<const GgufEntry*>(a)->key.compare(static_cast<const GgufEntry*>(b)->key);
  }

 private:
  template <class T>
  T read(const GgufEntry& entry) const {
    using Value = detail::GgufValue<T>;
    if (entry.is_array() || !Value::takes(entry.type)) fail_type(entry, "", Value::one);
    check_range(entry);
    return Value::read(entry.type, entry.data);
  }

  /// Checks that UINT64 numbers are at most 2^63 - 1.
  void check_range(const GgufEntry& entry) const {
    if (entry.element != GgufType::u64) return;
    for (std::int64_t i = 0; i < entry.count; ++i) {
      const auto x = detail::load_unaligned<std::uint64_t>(entry.data + 8 * i);
      if (x > INT64_MAX)
        fail({file_, ": metadata ", Quoted{entry.key},
              ": expected integers of at most 2^63 - 1, found ", x});
    }
  }

  [[noreturn, gnu::cold]] void fail_missing(std::string_view key, const char* array,
                                            const char* expected) const {
    fail({file_, ": metadata ", Quoted{key}, " is missing; expected ", array, expected});
  }
  [[noreturn, gnu::cold]] void fail_type(const GgufEntry& entry, const char* array,
                                         const char* expected) const {
    fail({file_, ": metadata ", Quoted{entry.key}, ": expected ", array, expected, ", found ",
          entry.type_text()});
  }

  std::vector<GgufEntry> entries_;
  std::string_view file_;
};

/// One tensor in a file. All that it points to is valid as long as the file object, or the one it
/// was moved into, exists.
struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::f32;
  Shape shape;  ///< 1 to 4 extents, none zero, rows first: the reverse of the file's order
  std::span<const std::byte> data;  ///< row after row, each of row_bytes() bytes
  std::string_view file = {};       ///< path it came from, for messages

  /// Elements of a row: the last extent, a multiple of the type's block.
  std::int64_t columns() const { return shape.size() > 0 ? shape[shape.size() - 1] : 1; }
  /// The product of all other extents.
  std::int64_t rows() const {
    std::int64_t n = 1;
    for (std::size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
    return n;
  }
  std::size_t row_bytes() const { return data.size() / static_cast<std::size_t>(rows()); }
  /// The type's name, for example "Q4_K".
  const char* type_text() const {
    const detail::GgmlTypeRow* const row = detail::find_ggml_type(type);
    return row ? row->name : "unknown";
  }
};

/// out = rows [first, first + n) of a tensor of type F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1,
/// Q4_K, Q5_K or Q6_K: (n, columns) floats, the exact values in the file rounded once to float.
/// They may be infinite or NaN, as in the file. Throws Error, naming file and tensor, and writes
/// nothing, for any other type, rows out of range, or a wrong size of `out`.
inline void read_rows(const GgufTensor& tensor, std::int64_t first, std::int64_t n,
                      std::span<float> out) {
  const auto wrong = [&](std::initializer_list<detail::Part> parts) {
    fail({tensor.file, ": tensor ", Quoted{tensor.name}, detail::join(parts)});
  };
  const detail::GgmlTypeRow* const type = detail::find_ggml_type(tensor.type);
  if (!type || !type->to_floats)
    wrong(
        {": expected type F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K, found ",
         tensor.type_text()});
  const std::int64_t rows = tensor.rows(), columns = tensor.columns();
  if (first < 0 || n < 0 || first > rows || n > rows - first)
    wrong({" has ", rows, " rows; asked for ", n, " from ", first});
  if (out.size() != static_cast<std::size_t>(n * columns))
    wrong({": ", n, " rows of ", columns, " need ", n * columns, " floats, found ", out.size()});
  if (n == 0) return;
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(tensor.data.data());
  type->to_floats(bytes + static_cast<std::size_t>(first) * tensor.row_bytes(),
                  n * (columns / type->block), out.data());
}

/// The content of a GGUF file.
struct GgufContent {
  std::uint32_t version = 0;
  std::int64_t alignment = 32;  ///< of the tensors in the file, in bytes
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;    ///< sorted by name
  std::unique_ptr<std::string> path;  ///< what the views of the path point to
};

namespace detail {

/// For std::qsort and std::bsearch.
inline int by_gguf_name(const void* a, const void* b) {
  return static_cast<const GgufTensor*>(a)->name.compare(static_cast<const GgufTensor*>(b)->name);
}

/// Reads the bytes of a GGUF file from front to back. After an error it must not be used any more.
class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, std::string_view path)
      : bytes_(bytes), path_(path) {}

  [[gnu::cold]] GgufContent read() {
    GgufContent content;
    content.path = std::make_unique<std::string>(path_);
    path_ = *content.path;
    content.version = read_version();
    const auto n_tensors = number<std::uint64_t>("the number of tensors");
    const auto n_entries = number<std::uint64_t>("the number of metadata entries");

    // The shortest entry has a length, a key of one character, a type and one byte.
    check_count("metadata entries", n_entries, 8 + 1 + 4 + 1);
    std::vector<GgufEntry> entries;
    for (std::uint64_t i = 0; i < n_entries; ++i) entries.push_back(read_entry(i));
    sort(entries, GgufMetadata::by_key);
    for (std::size_t i = 1; i < entries.size(); ++i)
      if (entries[i].key == entries[i - 1].key)
        fail({path_, ": metadata ", Quoted{entries[i].key}, " appears twice"});
    content.metadata = GgufMetadata(std::move(entries), path_);
    content.alignment = read_alignment(content.metadata);

    // The shortest has a length, a one-character name, one extent and their number, a type, an
    // offset.
    check_count("tensors", n_tensors, 8 + 1 + 4 + 8 + 4 + 8);
    std::vector<Place> places;
    for (std::uint64_t i = 0; i < n_tensors; ++i) content.tensors.push_back(read_tensor(i, places));
    place(content.tensors, places, static_cast<std::uint64_t>(content.alignment));
    sort(content.tensors, by_place);
    check_coverage(content.tensors, static_cast<std::uint64_t>(content.alignment));
    sort(content.tensors, by_gguf_name);
    check_quantization_version(content);
    return content;
  }

 private:
  /// What is being read, for messages: the key or name once it is known, its number before that.
  struct Where {
    const char* kind = "the header";
    std::uint64_t number = 0;
    std::string_view name = {};
    bool numbered = false;
  };
  /// Where a tensor's data is, according to its entry, in bytes from the beginning of all data.
  struct Place {
    std::uint64_t offset = 0, bytes = 0;
  };

  template <class X>
  static void sort(std::vector<X>& xs, int (*order)(const void*, const void*)) {
    if (!xs.empty()) std::qsort(xs.data(), xs.size(), sizeof(X), order);
  }
  static int by_place(const void* a, const void* b) {
    const std::byte *const x = static_cast<const GgufTensor*>(a)->data.data(),
                           *const y = static_cast<const GgufTensor*>(b)->data.data();
    return x < y ? -1 : x > y;
  }

  /// Throws "<path>: <what is being read>: <parts>".
  [[noreturn, gnu::cold]] void error(std::initializer_list<Part> parts) const {
    const std::string name = !where_.name.empty() ? join({" ", Quoted{where_.name}})
                             : where_.numbered    ? join({" ", where_.number})
                                                  : std::string();
    fail({path_, ": ", where_.kind, name, ": ", join(parts)});
  }

  std::uint64_t left() const { return bytes_.size() - at_; }

  /// The next n bytes.
  const std::byte* take(std::uint64_t n, const char* what) {
    if (n > left())
      error({"truncated: ", what, " needs ", n, " bytes at byte ", at_, ", found ", left()});
    const std::byte* const p = bytes_.data() + at_;
    at_ += static_cast<std::size_t>(n);
    return p;
  }
  template <class X>
  X number(const char* what) {
    return load_unaligned<X>(take(sizeof(X), what));
  }
  /// A string, checked to be UTF-8.
  std::string_view string(const char* what) {
    const auto length = number<std::uint64_t>("a length");
    const std::string_view text(reinterpret_cast<const char*>(take(length, what)),
                                static_cast<std::size_t>(length));
    const std::size_t valid = valid_utf8_prefix(text);
    if (valid != text.size())
      error({what, " is not valid UTF-8 at its byte ", valid, " of ", text.size()});
    return text;
  }

  void check_count(const char* what, std::uint64_t n, std::uint64_t least) const {
    if (n > left() / least)
      fail({path_, ": the header declares ", n, " ", what, " of at least ", least,
            " bytes each, found ", left(), " bytes"});
  }

  std::uint32_t read_version() {
    const std::string_view magic(reinterpret_cast<const char*>(bytes_.data()),
                                 (std::min)(bytes_.size(), std::size_t{4}));
    if (magic != "GGUF") fail({path_, ": not a GGUF file: it does not begin with \"GGUF\""});
    at_ = 4;
    const auto version = number<std::uint32_t>("the version");
    if (version != 0 && version << 8 == 0)
      error({"expected a little-endian file, found a big-endian one (of version ", version >> 24,
             ")"});
    if (version != 2 && version != 3) error({"expected version 2 or 3, found ", version});
    return version;
  }

  GgufType type_of(std::uint32_t type, const char* what) const {
    if (type >= gguf_type_table.size()) error({"unknown ", what, " ", type, ", expected 0 to 12"});
    return static_cast<GgufType>(type);
  }

  GgufEntry read_entry(std::uint64_t i) {
    where_ = {"metadata entry", i, {}, true};
    GgufEntry entry;
    entry.key = string("the key");
    // The format also asks for lower_snake_case, which published files violate ("gpt-oss.").
    if (entry.key.empty() || entry.key.size() > 65535)
      error({"expected a key of 1 to 65535 characters, found ", entry.key.size()});
    for (const char c : entry.key)
      if (c <= ' ' || c > '~')
        error({"expected a key of printable ASCII characters, found ", Quoted{entry.key}});
    where_ = {"metadata", i, entry.key, true};
    entry.type = type_of(number<std::uint32_t>("the type"), "type");
    entry.element = entry.type;
    std::uint64_t count = 1;
    if (entry.is_array()) {
      entry.element = type_of(number<std::uint32_t>("the type of elements"), "type of elements");
      if (entry.element == GgufType::array) error({"arrays of arrays are not supported"});
      count = number<std::uint64_t>("the number of elements");
    }
    read_values(entry, count);
    return entry;
  }

  void read_values(GgufEntry& entry, std::uint64_t count) {
    const bool strings = entry.element == GgufType::string;
    const auto least = static_cast<std::uint64_t>(strings ? 8 : gguf_type_row(entry.element).bytes);
    if (count > left() / least)
      error({"truncated: ", count, " x ", gguf_type_row(entry.element).name, " need ",
             strings ? "at least " : "", least, " bytes each, found ", left(), " bytes"});
    entry.count = static_cast<std::int64_t>(count);
    entry.data = bytes_.data() + at_;
    if (strings) {
      for (std::uint64_t i = 0; i < count; ++i) string("a string");
      return;
    }
    take(count * least, "a value");
    if (entry.element != GgufType::boolean) return;
    for (std::uint64_t i = 0; i < count; ++i)
      if (const auto value = static_cast<unsigned>(entry.data[i]); value > 1)
        error({"expected 0 or 1 as a BOOL, found ", value});
  }

  std::int64_t read_alignment(const GgufMetadata& metadata) {
    constexpr const char* key = "general.alignment";
    const GgufEntry* const entry = metadata.find(key);
    if (!entry) return 32;
    where_ = {"metadata", 0, entry->key, false};
    if (entry->type != GgufType::u32) error({"expected UINT32, found ", entry->type_text()});
    const auto alignment = metadata.get<std::int64_t>(key);
    if (alignment < 8 || !std::has_single_bit(static_cast<std::uint64_t>(alignment)))
      error({"expected a power of two of at least 8, found ", alignment});
    return alignment;
  }

  /// Reads a tensor's entry; the place of its data is appended to `places`.
  GgufTensor read_tensor(std::uint64_t i, std::vector<Place>& places) {
    where_ = {"tensor", i, {}, true};
    GgufTensor tensor;
    tensor.file = path_;
    tensor.name = string("the name");
    if (tensor.name.empty() || tensor.name.size() > 64)
      error({"expected a name of 1 to 64 bytes, found ", tensor.name.size()});
    where_.name = tensor.name;
    const auto rank = number<std::uint32_t>("the number of extents");
    if (rank < 1 || rank > 4) error({"expected 1 to 4 extents, found ", rank});
    std::uint64_t extents[4] = {};
    for (std::uint32_t d = 0; d < rank; ++d) {
      extents[d] = number<std::uint64_t>("an extent");
      if (extents[d] == 0 || extents[d] > INT64_MAX)
        error({"expected extents from 1 to 2^63 - 1, found ", extents[d]});
    }
    for (std::uint32_t d = rank; d > 0; --d)
      tensor.shape.push_back(static_cast<std::int64_t>(extents[d - 1]));
    const auto number_of_type = number<std::uint32_t>("the type");
    tensor.type = static_cast<GgmlType>(number_of_type);
    const GgmlTypeRow* const type = find_ggml_type(tensor.type);
    if (!type)
      error({"expected a type of ggml, such as 0 (F32) or 12 (Q4_K), found ", number_of_type});
    if (tensor.columns() % type->block != 0)
      error({"expected rows with a multiple of ", type->block, " elements for ", type->name,
             ", found shape ", tensor.shape});
    std::int64_t bytes = 1;
    for (const std::int64_t extent : tensor.shape)
      if (__builtin_mul_overflow(bytes, extent, &bytes))
        error({"shape ", tensor.shape, " is too large"});
    if (__builtin_mul_overflow(bytes / type->block, std::int64_t{type->bytes}, &bytes))
      error({"shape ", tensor.shape, " is too large"});
    places.push_back({number<std::uint64_t>("the offset"), static_cast<std::uint64_t>(bytes)});
    return tensor;
  }

  /// Rounds n, a place in the file, up to a multiple of the alignment, a power of two below 2^32.
  static std::uint64_t align(std::uint64_t n, std::uint64_t alignment) {
    return (n + alignment - 1) & ~(alignment - 1);
  }

  /// Sets the tensors' data, and checks that their names are distinct.
  void place(std::vector<GgufTensor>& tensors, const std::vector<Place>& places,
             std::uint64_t alignment) {
    const std::uint64_t begin = align(at_, alignment),
                        size = begin < bytes_.size() ? bytes_.size() - begin : 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto [offset, bytes] = places[i];
      where_ = {"tensor", 0, tensors[i].name, false};
      if (offset % alignment != 0)
        error({"expected an offset that is a multiple of ", alignment, ", found ", offset});
      if (offset > size || bytes > size - offset)
        error({"its ", bytes, " bytes at offset ", offset, " end beyond the file's ", size,
               " bytes of data"});
      tensors[i].data =
          bytes_.subspan(static_cast<std::size_t>(begin + offset), static_cast<std::size_t>(bytes));
    }
    sort(tensors, by_gguf_name);
    for (std::size_t i = 1; i < tensors.size(); ++i)
      if (tensors[i].name == tensors[i - 1].name)
        fail({path_, ": tensor ", Quoted{tensors[i].name}, " appears twice"});
  }

  /// Checks that the tensors, sorted with by_place, are separated and followed only by zeros, fewer
  /// than the alignment. Writers may omit them at the end.
  void check_coverage(const std::vector<GgufTensor>& tensors, std::uint64_t alignment) const {
    std::uint64_t covered = at_;
    const GgufTensor* before = nullptr;
    for (const GgufTensor& tensor : tensors) {
      const auto begin = static_cast<std::uint64_t>(tensor.data.data() - bytes_.data());
      if (before && begin < covered)
        fail({path_, ": tensors ", Quoted{before->name}, " and ", Quoted{tensor.name},
              " overlap in the data"});
      if (begin > align(covered, alignment))
        fail({path_, ": ", begin - align(covered, alignment), " bytes of data before tensor ",
              Quoted{tensor.name}, " belong to no tensor"});
      check_zeros(covered, begin);
      covered = begin + tensor.data.size();
      before = &tensor;
    }
    const std::uint64_t end = (std::min)(align(covered, alignment), std::uint64_t{bytes_.size()});
    if (end < bytes_.size())
      fail({path_, ": the last ", bytes_.size() - end, " bytes belong to no tensor"});
    check_zeros(covered, end);
  }
  void check_zeros(std::uint64_t begin, std::uint64_t end) const {
    for (std::uint64_t i = begin; i < end; ++i)
      if (const std::byte b = bytes_[static_cast<std::size_t>(i)]; b != std::byte{0})
        fail({path_, ": expected zeros between tensors, found ", static_cast<unsigned>(b),
              " in byte ", i});
  }

  /// Version 1 had different block layouts. (It predates GGUF; a file without this entry has
  /// version 2.)
  void check_quantization_version(const GgufContent& content) {
    constexpr const char* key = "general.quantization_version";
    if (!content.metadata.contains(key)) return;
    const auto version = content.metadata.get<std::int64_t>(key);
    for (const GgufTensor& tensor : content.tensors)
      if (version != 2 && find_ggml_type(tensor.type)->block > 1)
        fail({path_, ": metadata ", Quoted{key}, ": expected 2 for tensor ", Quoted{tensor.name},
              " of type ", tensor.type_text(), ", found ", version});
  }

  std::span<const std::byte> bytes_;
  std::string_view path_;
  std::size_t at_ = 0;
  Where where_;
};

}  // namespace detail

/// Parses and checks the bytes of a whole GGUF file; the views point into `bytes` and into the
/// result. `path` is for messages only. Throws Error on anything that the format does not allow,
/// and on what is not supported: version 1, big-endian files, arrays of arrays, and types with an
/// unknown block size.
[[gnu::cold]] inline GgufContent parse_gguf(std::span<const std::byte> bytes,
                                            std::string_view path) {
  return detail::GgufReader(bytes, path).read();
}

/// A memory-mapped GGUF file. Metadata and tensors are views into the map, valid as long as the
/// object, or the one it was moved into, exists. Move-only.
class GgufFile {
 public:
  /// Throws Error if the file cannot be read or violates the format.
  explicit GgufFile(std::string path)
      : map_(std::move(path)), content_(parse_gguf(map_.bytes(), map_.path())) {}

  const GgufMetadata& metadata() const { return content_.metadata; }

  /// All tensors, sorted by name.
  const std::vector<GgufTensor>& tensors() const { return content_.tensors; }
  /// The tensor of this name, or null.
  const GgufTensor* find(std::string_view name) const {
    GgufTensor wanted;
    wanted.name = name;
    const auto& all = content_.tensors;
    if (all.empty()) return nullptr;
    return static_cast<const GgufTensor*>(
        std::bsearch(&wanted, all.data(), all.size(), sizeof(GgufTensor), detail::by_gguf_name));
  }
  /// The tensor of this name. Throws Error, naming the file, if there is none.
  const GgufTensor& tensor(std::string_view name) const {
    const GgufTensor* const found = find(name);
    if (!found) fail({path(), ": tensor ", Quoted{name}, " is missing"});
    return *found;
  }

  /// As MappedFile::drop, of this file.
  void drop(std::span<const std::byte> part) const { map_.drop(part); }

  /// 2 or 3.
  std::uint32_t version() const { return content_.version; }
  const std::string& path() const { return map_.path(); }

 private:
  MappedFile map_;
  GgufContent content_;
};

}  // namespace samba::inline SAMBA_TARGET
