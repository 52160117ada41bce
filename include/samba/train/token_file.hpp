#pragma once
/// \file
/// Token ids of texts in a file, for training: memory-mapped, so that a file of any size costs no
/// memory and opens at once. A header of 48 bytes, then the ids in 1, 2 or 4 bytes each, the least
/// that the vocabulary fits in, little-endian.
#include <samba/core/error.hpp>
#include <samba/core/hash.hpp>
#include <samba/io/file_writer.hpp>
#include <samba/io/mapped_file.hpp>
#include <samba/io/tokenizer.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

namespace detail {

/// What a token file begins with.
struct TokenFileHeader {
  char magic[8] = {'s', 'a', 'm', 'b', 'a', 't', 'o', 'k'};
  std::uint32_t version = 1;
  std::uint32_t bytes_per_id = 0;
  std::int64_t vocab_size = 0, separator = -1, size = 0;
  std::uint64_t hash = 0;
};
static_assert(sizeof(TokenFileHeader) == 48);

inline constexpr std::int64_t max_vocab_size = std::int64_t{1} << 31;  // ids are int32

constexpr std::uint32_t bytes_per_id(std::int64_t vocab_size) {
  return vocab_size <= 1 << 8 ? 1 : vocab_size <= 1 << 16 ? 2 : 4;
}

/// Calls f with a value of the unsigned type of that many bytes.
template <class F>
decltype(auto) with_id_type(std::uint32_t bytes, F&& f) {
  if (bytes == 1) return f(std::uint8_t{});
  if (bytes == 2) return f(std::uint16_t{});
  return f(std::uint32_t{});
}

inline std::string_view as_text(const std::byte* bytes, std::size_t n) {
  return {reinterpret_cast<const char*>(bytes), n};
}

}  // namespace detail

/// The token ids of a file of TokenFileWriter, mapped and read-only. Opening checks the header and
/// that the file is as long as it says, and reads no more; read() checks the ids it reads; verify()
/// reads and checks all. Every error is an Error and names the file. Move-only.
class TokenFile {
 public:
  explicit TokenFile(std::string path) : map_(std::move(path)) {
    const std::int64_t bytes = std::ssize(map_.bytes()), least = sizeof header_;
    const detail::TokenFileHeader expected;
    if (bytes >= least) std::memcpy(&header_, map_.bytes().data(), sizeof header_);
    if (bytes < least || std::memcmp(header_.magic, expected.magic, sizeof header_.magic) != 0)
      fail({this->path(), ": not a token file (of TokenFileWriter)"});
    if (header_.version != expected.version)
      fail({this->path(), ": token file: expected version ", expected.version, ", found ",
            header_.version});
    const auto& [magic, version, width, vocab_size, separator, size, hash] = header_;
    if (vocab_size < 1 || vocab_size > detail::max_vocab_size || separator < -1 ||
        separator >= vocab_size || width != detail::bytes_per_id(vocab_size) || size < 1)
      fail({this->path(), ": token file with a damaged header: vocab_size ", vocab_size,
            ", separator ", separator, ", ", width, " bytes per id, ", size, " tokens"});
    // Not size * width, which may overflow.
    if ((bytes - least) % width != 0 || (bytes - least) / width != size)
      fail({this->path(), ": token file: expected ", size, " ids of ", width, " bytes behind ",
            least, " of header, found ", bytes - least, " bytes"});
  }

  /// Whether a file begins as token files do.
  static bool is_token_file(const std::string& path) {
    const MappedFile file(path);
    const detail::TokenFileHeader expected;
    return file.bytes().size() >= sizeof expected.magic &&
           std::memcmp(file.bytes().data(), expected.magic, sizeof expected.magic) == 0;
  }

  const std::string& path() const { return map_.path(); }
  /// Tokens; at least 1.
  std::int64_t size() const { return header_.size; }
  /// Ids are below it.
  std::int64_t vocab_size() const { return header_.vocab_size; }
  /// The id that ends a document, -1: none.
  std::int32_t separator() const { return static_cast<std::int32_t>(header_.separator); }
  /// FNV-1a of the ids as they are stored, computed when they were written.
  std::uint64_t hash() const { return header_.hash; }

  /// into[i] = token begin + i.
  void read(std::int64_t begin, std::span<std::int32_t> into) const {
    const std::int64_t n = std::ssize(into);
    if (begin < 0 || begin > size() || n > size() - begin)
      fail({path(), ": holds ", size(), " tokens; asked for ", n, " from ", begin});
    detail::with_id_type(header_.bytes_per_id, [&]<class Id>(Id) {
      const std::byte* const ids = data() + begin * std::int64_t{sizeof(Id)};
      std::uint32_t largest = 0;
      for (std::size_t i = 0; i < into.size(); ++i) {
        Id id;
        std::memcpy(&id, ids + i * sizeof(Id), sizeof(Id));
        largest = std::max<std::uint32_t>(largest, id);
        into[i] = static_cast<std::int32_t>(id);
      }
      if (largest >= static_cast<std::uint64_t>(vocab_size()))
        fail({path(), ": damaged: an id among tokens ", begin, " to ", begin + n - 1, " is ",
              largest, ", outside the vocabulary [0, ", vocab_size(), ")"});
    });
  }

  /// Reads all: throws where an id is outside the vocabulary or the ids are not those written.
  void verify() const {
    std::vector<std::int32_t> ids(static_cast<std::size_t>((std::min)(size(), piece)));
    for (std::int64_t i = 0; i < size(); i += piece)
      read(i, std::span(ids).first(static_cast<std::size_t>((std::min)(piece, size() - i))));
    const auto bytes = static_cast<std::size_t>(size()) * header_.bytes_per_id;
    if (fnv1a(detail::as_text(data(), bytes)) != hash())
      fail(
          {path(), ": damaged: the ids are not those that the hash in its header was computed of"});
  }

 private:
  static constexpr std::int64_t piece = 1 << 16;

  const std::byte* data() const { return map_.bytes().data() + sizeof header_; }

  MappedFile map_;
  detail::TokenFileHeader header_;
};

/// Writes a token file piece by piece. The file is there whole, after close(), or not at all, as
/// FileWriter writes it; what was at `path` stays until then. Errors are Error and name the file.
class TokenFileWriter {
 public:
  /// Ids are to be in [0, vocab_size); separator: the id that ends a document, -1: none.
  TokenFileWriter(std::string path, std::int64_t vocab_size, std::int32_t separator = -1)
      : file_(std::move(path)) {
    if (vocab_size < 1 || vocab_size > detail::max_vocab_size)
      fail({file_.path(), ": vocab_size: expected 1 to ", detail::max_vocab_size, ", found ",
            vocab_size});
    if (separator < -1 || separator >= vocab_size)
      fail({file_.path(), ": separator: expected an id in [0, ", vocab_size, ") or -1, found ",
            separator});
    header_.bytes_per_id = detail::bytes_per_id(vocab_size);
    header_.vocab_size = vocab_size;
    header_.separator = separator;
    header_.hash = fnv1a("");
    file_.write(std::as_bytes(std::span(&header_, 1)));  // in its place, until all is known
  }

  /// Adds ids. One outside the vocabulary is an Error, and none of them is added.
  void append(std::span<const std::int32_t> ids) {
    file_.check_open();
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (ids[i] < 0 || ids[i] >= header_.vocab_size)
        fail({file_.path(), ": token ", ids[i], " at index ", i, " of ", ids.size(),
              " to be written is outside the vocabulary [0, ", header_.vocab_size, ")"});
    for (const std::int32_t id : ids) {
      const auto* const bytes = reinterpret_cast<const std::byte*>(&id);  // the lowest come first
      buffer_.insert(buffer_.end(), bytes, bytes + header_.bytes_per_id);
      if (buffer_.size() >= buffer_bytes) flush();
    }
    header_.size += std::ssize(ids);
  }

  /// Adds the separator; an Error where there is none.
  void end_document() {
    if (separator() < 0) fail({file_.path(), ": end_document() in a file without a separator"});
    const std::int32_t id = separator();
    append({&id, 1});
  }

  /// Completes the file and puts it in place of what was there. At least one token is needed.
  void close() {
    file_.check_open();
    if (header_.size == 0) fail({file_.path(), ": expected at least 1 token to write, found none"});
    flush();
    file_.seek(0);
    file_.write(std::as_bytes(std::span(&header_, 1)));
    file_.finish();
  }

  const std::string& path() const { return file_.path(); }
  std::int64_t size() const { return header_.size; }
  std::int64_t vocab_size() const { return header_.vocab_size; }
  std::int32_t separator() const { return static_cast<std::int32_t>(header_.separator); }

 private:
  static constexpr std::size_t buffer_bytes = 1 << 18;

  void flush() {
    file_.write(buffer_);
    header_.hash = fnv1a(detail::as_text(buffer_.data(), buffer_.size()), header_.hash);
    buffer_.clear();
  }

  FileWriter file_;
  detail::TokenFileHeader header_;
  std::vector<std::byte> buffer_;
};

namespace detail {

/// Takes the next document off a text: up to a line that is `separator_line`, which it drops; all of
/// it where there is no such line, or separator_line is empty.
inline std::string_view take_document(std::string_view& text, std::string_view separator_line) {
  std::size_t line = separator_line.empty() ? text.size() : 0, next = text.size();
  while (line < text.size()) {
    const std::size_t end = (std::min)(text.find('\n', line), text.size());
    next = (std::min)(end + 1, text.size());
    if (text.substr(line, end - line) == separator_line) break;
    line = next;
  }
  const std::string_view document = text.substr(0, line);
  text.remove_prefix(next);
  return document;
}

}  // namespace detail

/// Appends the tokens of a text file to a token file; returns how many. The text is one document,
/// or several that end with a line that is just `separator_line` (such as % in fortune files), which
/// is not a part of them; empty ones do not count. Each ends with the separator of the token file,
/// if that has one.
///
/// Tokenizer: has encode(text), or is a function of text, that returns ids (std::vector<int32_t>).
/// A document is encoded whole; one of a Tokenizer with `splits_anywhere` piece by piece, in fixed
/// memory. An Error, naming the text: none in it, or the separator's id among those of a document.
template <class Tokenizer>
std::int64_t tokenize(const std::string& text_path, const Tokenizer& tokenizer,
                      TokenFileWriter& into, std::string_view separator_line = {}) {
  const MappedFile file(text_path);
  std::string_view text = detail::as_text(file.bytes().data(), file.bytes().size());
  const std::int64_t before = into.size();
  while (!text.empty()) {
    std::string_view document = detail::take_document(text, separator_line);
    if (document.empty()) continue;
    while (!document.empty()) {
      std::size_t n = document.size();
      if constexpr (requires { Tokenizer::splits_anywhere; }) n = std::min<std::size_t>(n, 1 << 20);
      const std::vector<std::int32_t> ids = encode_text(tokenizer, document.substr(0, n));
      if (into.separator() >= 0 && std::find(ids.begin(), ids.end(), into.separator()) != ids.end())
        fail({text_path, ": the id of the separator, ", into.separator(),
              ", is in the text itself; ", into.path(), " needs another"});
      into.append(ids);
      document.remove_prefix(n);
    }
    if (into.separator() >= 0) into.end_document();
  }
  if (into.size() == before) fail({text_path, ": expected text, found none"});
  return into.size() - before;
}

}  // namespace samba::inline SAMBA_TARGET
