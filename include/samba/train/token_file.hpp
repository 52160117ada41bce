#pragma once
/// \file
/// Token ids of texts in a file, for training: memory-mapped, so that a file of any size takes no
/// memory and opens at once. A header of 48 bytes, then the little-endian ids in 1, 2 or 4 bytes
/// each, the fewest that the vocabulary fits in; in version 2, each is followed by its weight as a
/// float. The .bin files of nanoGPT and llm.c can be read, too.
#include <samba/core/error.hpp>
#include <samba/core/hash.hpp>
#include <samba/core/scalar.hpp>
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

/// The header of a token file.
struct TokenFileHeader {
  char magic[8] = {'s', 'a', 'm', 'b', 'a', 't', 'o', 'k'};
  std::uint32_t version = 1;
  std::uint32_t bytes_per_id = 0;
  std::int64_t vocab_size = 0, separator = -1, size = 0;
  std::uint64_t hash = 0;

  bool weighted() const { return version == 2; }
  /// Bytes of an id with its weight.
  std::int64_t stride() const { return bytes_per_id + (weighted() ? 4 : 0); }
};
static_assert(sizeof(TokenFileHeader) == 48);

inline constexpr std::int64_t max_vocab_size = std::int64_t{1} << 31;  // ids are int32

constexpr std::uint32_t bytes_per_id(std::int64_t vocab_size) {
  return vocab_size <= 1 << 8 ? 1 : vocab_size <= 1 << 16 ? 2 : 4;
}

/// Calls f with a value of the unsigned type that has this many bytes.
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

/// The token ids in a file written by TokenFileWriter, mapped and read-only. Opening only checks
/// the header and that the file is as long as the header says; read() checks the ids it reads;
/// verify() reads and checks everything. Every error is an Error and names the file. Move-only.
class TokenFile {
 public:
  explicit TokenFile(std::string path) : map_(std::move(path)) {
    const std::int64_t bytes = std::ssize(map_.bytes()), least = sizeof header_;
    const detail::TokenFileHeader expected;
    if (bytes >= least) std::memcpy(&header_, map_.bytes().data(), sizeof header_);
    if (bytes < least || std::memcmp(header_.magic, expected.magic, sizeof header_.magic) != 0)
      fail(
          {this->path(),
           ": not a token file (by TokenFileWriter; TokenFile::from_bin reads those of nanoGPT and "
           "llm.c)"});
    if (header_.version != 1 && header_.version != 2)
      fail({this->path(), ": token file: expected version 1 or 2, found ", header_.version});
    const auto& [magic, version, width, vocab_size, separator, size, hash] = header_;
    if (vocab_size < 1 || vocab_size > detail::max_vocab_size || separator < -1 ||
        separator >= vocab_size || width != detail::bytes_per_id(vocab_size) || size < 1)
      fail({this->path(), ": token file: damaged header: vocab_size ", vocab_size, ", separator ",
            separator, ", ", width, " bytes per id, ", size, " tokens"});
    // Not size * width, which may overflow.
    if (const auto stride = header_.stride();
        (bytes - least) % stride != 0 || (bytes - least) / stride != size)
      fail({this->path(), ": token file: expected ", size, " ids of ", width, " bytes",
            header_.weighted() ? " and a weight of 4" : "", " after ", least,
            " bytes of header, found ", bytes - least, " bytes"});
  }

  /// A .bin file of nanoGPT, which consists of two-byte ids and nothing else, or of llm.c, which
  /// has a header. Neither contains the vocabulary size (0: the largest id + 1) or the id that ends
  /// a document. Reads the file once.
  [[gnu::cold]] static TokenFile from_bin(std::string path, std::int64_t vocab_size = 0,
                                          std::int32_t separator = -1) {
    TokenFile file(MappedFile(std::move(path)));
    file.read_bin(vocab_size, separator);
    return file;
  }

  /// Whether a file begins like a token file.
  static bool is_token_file(const std::string& path) {
    const MappedFile file(path);
    const detail::TokenFileHeader expected;
    return file.bytes().size() >= sizeof expected.magic &&
           std::memcmp(file.bytes().data(), expected.magic, sizeof expected.magic) == 0;
  }

  const std::string& path() const { return map_.path(); }
  /// The number of tokens; at least 1.
  std::int64_t size() const { return header_.size; }
  /// All ids are less than this.
  std::int64_t vocab_size() const { return header_.vocab_size; }
  /// The id that ends a document, or -1.
  std::int32_t separator() const { return static_cast<std::int32_t>(header_.separator); }
  /// Whether each token has a weight, that of its prediction in the loss.
  bool weighted() const { return header_.weighted(); }
  /// FNV-1a of the ids (and weights) as they are stored, computed when they were written.
  std::uint64_t hash() const { return header_.hash; }

  /// into[i] = token begin + i.
  void read(std::int64_t begin, std::span<std::int32_t> into) const {
    const std::int64_t n = std::ssize(into);
    check_range(begin, n);
    detail::with_id_type(header_.bytes_per_id, [&]<class Id>(Id) {
      const std::byte* const ids = data() + begin * header_.stride();
      const std::size_t stride = weighted() ? sizeof(Id) + 4 : sizeof(Id);
      std::uint32_t largest = 0;
      for (std::size_t i = 0; i < into.size(); ++i) {
        Id id;
        std::memcpy(&id, ids + i * stride, sizeof(Id));
        largest = std::max<std::uint32_t>(largest, id);
        into[i] = static_cast<std::int32_t>(id);
      }
      if (largest >= static_cast<std::uint64_t>(vocab_size()))
        fail({path(), ": damaged: an id among tokens ", begin, " to ", begin + n - 1, " is ",
              largest, ", outside the vocabulary [0, ", vocab_size(), ")"});
    });
  }

  /// into[i] = the weight of token begin + i; 1 if the file has no weights.
  void read_weights(std::int64_t begin, std::span<float> into) const {
    check_range(begin, std::ssize(into));
    std::fill(into.begin(), into.end(), 1.f);
    if (!weighted()) return;
    const std::byte* const first = data() + begin * header_.stride() + header_.bytes_per_id;
    for (std::size_t i = 0; i < into.size(); ++i) {
      std::memcpy(&into[i], first + i * static_cast<std::size_t>(header_.stride()), sizeof(float));
      if (!is_finite(into[i]) || into[i] < 0)
        fail({path(), ": damaged: the weight of token ", begin + static_cast<std::int64_t>(i),
              " is ", into[i]});
    }
  }

  /// Reads everything. Throws if an id is outside the vocabulary or the ids are not those written.
  void verify() const {
    each_piece([&](std::int64_t begin, std::span<std::int32_t> ids, std::span<float> weights) {
      read(begin, ids);
      read_weights(begin, weights);
    });
    const auto bytes = static_cast<std::size_t>(size() * header_.stride());
    if (fnv1a(detail::as_text(data(), bytes)) != hash())
      fail({path(), ": damaged: the ids do not match the hash in its header"});
  }

 private:
  explicit TokenFile(MappedFile map) : map_(std::move(map)) {}

  const std::byte* data() const { return map_.bytes().data() + data_at_; }

  void check_range(std::int64_t begin, std::int64_t n) const {
    if (begin < 0 || begin > size() || n > size() - begin)
      fail({path(), ": holds ", size(), " tokens; asked for ", n, " from ", begin});
  }

  /// Calls f(begin, buffer for ids, buffer for weights) for all tokens, piece by piece.
  void each_piece(auto&& f) const {
    constexpr std::int64_t piece = 1 << 16;
    std::vector<std::int32_t> ids(static_cast<std::size_t>((std::min)(size(), piece)));
    std::vector<float> weights(ids.size());
    for (std::int64_t i = 0; i < size(); i += piece) {
      const auto n = static_cast<std::size_t>((std::min)(piece, size() - i));
      f(i, std::span(ids).first(n), std::span(weights).first(n));
    }
  }

  [[gnu::cold]] void read_bin(std::int64_t vocab_size, std::int32_t separator) {
    const std::span<const std::byte> all = map_.bytes();
    std::int32_t fields[3] = {};  // the first of llm.c's 256: magic number, version, tokens
    constexpr std::size_t llmc_header = 256 * sizeof(std::int32_t);
    if (all.size() >= llmc_header) std::memcpy(fields, all.data(), sizeof fields);
    const auto [magic, version, tokens] = fields;
    const bool two = magic == 20240520 && version == 1, four = magic == 20240801 && version == 7;
    header_.bytes_per_id = four ? 4 : 2;
    data_at_ = two || four ? llmc_header : 0;
    const std::int64_t bytes = std::ssize(all) - static_cast<std::int64_t>(data_at_);
    header_.size = bytes / header_.bytes_per_id;
    if (bytes % header_.bytes_per_id != 0 || size() < 1 ||
        (data_at_ > 0 && size() != static_cast<std::uint32_t>(tokens)))
      fail({path(), ": token file: expected ",
            data_at_ > 0 ? detail::join({static_cast<std::uint32_t>(tokens), " ids"})
                         : "one or more ids",
            " of ", header_.bytes_per_id, " bytes after ", data_at_, " bytes of header, found ",
            bytes, " bytes"});
    if (vocab_size < 0 || vocab_size > detail::max_vocab_size)
      fail(
          {path(), ": vocab_size: expected 0 to ", detail::max_vocab_size, ", found ", vocab_size});
    header_.vocab_size = vocab_size > 0 ? vocab_size : detail::max_vocab_size;
    header_.hash = fnv1a(detail::as_text(data(), static_cast<std::size_t>(bytes)));
    std::int32_t largest = 0;
    each_piece([&](std::int64_t begin, std::span<std::int32_t> ids, std::span<float>) {
      read(begin, ids);
      largest = (std::max)(largest, *std::max_element(ids.begin(), ids.end()));
    });
    if (vocab_size == 0) header_.vocab_size = std::int64_t{largest} + 1;
    if (separator < -1 || separator >= this->vocab_size())
      fail({path(), ": separator: expected an id in [0, ", this->vocab_size(), ") or -1, found ",
            separator});
    header_.separator = separator;
  }

  MappedFile map_;
  detail::TokenFileHeader header_;
  std::size_t data_at_ = sizeof header_;  // where ids begin
};

/// Writes a token file piece by piece. The file appears complete, after close(), or not at all (see
/// FileWriter); what was at `path` stays until then. Errors are Error and name the file.
class TokenFileWriter {
 public:
  /// Ids must be in [0, vocab_size). separator: the id that ends a document, or -1. weighted: each
  /// token has a weight in the loss.
  TokenFileWriter(std::string path, std::int64_t vocab_size, std::int32_t separator = -1,
                  bool weighted = false)
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
    if (weighted) header_.version = 2;
    header_.hash = fnv1a("");
    file_.seek(0);                                       // fails now, not in close(), for a pipe
    file_.write(std::as_bytes(std::span(&header_, 1)));  // a placeholder until close()
  }

  /// Appends ids, each with weight 1. If one is outside the vocabulary, throws Error and appends
  /// none.
  void append(std::span<const std::int32_t> ids) { append(ids, std::span<const float>{}); }
  /// Appends ids with the weight of their predictions in the loss, such as 0 for a prompt. Throws
  /// Error if the file has no weights, or if a weight is negative or not finite.
  void append(std::span<const std::int32_t> ids, float weight) {
    append(ids, std::vector<float>(ids.size(), weight));
  }
  void append(std::span<const std::int32_t> ids, std::span<const float> weights) {
    file_.check_open();
    if (!weights.empty() && !header_.weighted())
      fail({file_.path(),
            ": this file has no weights; create it with TokenFileWriter(path, vocab_size, ",
            "separator, true)"});
    if (!weights.empty() && weights.size() != ids.size())
      fail({file_.path(), ": expected as many weights as tokens (", ids.size(), "), found ",
            weights.size()});
    for (std::size_t i = 0; i < weights.size(); ++i)
      if (!is_finite(weights[i]) || weights[i] < 0)
        fail({file_.path(), ": weight ", weights[i], " at index ", i,
              ": expected a finite number of at least 0"});
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (ids[i] < 0 || ids[i] >= header_.vocab_size)
        fail({file_.path(), ": token ", ids[i], " at index ", i, " of ", ids.size(),
              " to be written is outside the vocabulary [0, ", header_.vocab_size, ")"});
    for (std::size_t i = 0; i < ids.size(); ++i) {
      add(&ids[i], header_.bytes_per_id);  // the low bytes come first
      const float weight = weights.empty() ? 1.f : weights[i];
      if (header_.weighted()) add(&weight, sizeof weight);
      if (buffer_.size() >= buffer_bytes) flush();
    }
    header_.size += std::ssize(ids);
  }

  /// Appends the separator. Throws Error if the file has none.
  void end_document() {
    if (separator() < 0) fail({file_.path(), ": end_document() in a file without a separator"});
    const std::int32_t id = separator();
    append({&id, 1});
  }

  /// Completes the file and replaces what was there. At least one token is needed.
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

  void add(const void* from, std::size_t n) {
    const auto* const bytes = static_cast<const std::byte*>(from);
    buffer_.insert(buffer_.end(), bytes, bytes + n);
  }
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

/// Splits the next document off a text: up to the next line that equals `separator_line`, which is
/// dropped, or all of the text if there is no such line or separator_line is empty.
inline std::string_view take_document(std::string_view& text, std::string_view separator_line) {
  std::size_t line = separator_line.empty() ? text.size() : 0, next = text.size();
  while (line < text.size()) {
    const std::size_t end = (std::min)(text.find('\n', line), text.size());
    next = (std::min)(end + 1, text.size());
    std::string_view found = text.substr(line, end - line);
    if (found != separator_line && found.ends_with('\r')) found.remove_suffix(1);
    if (found == separator_line) break;
    line = next;
  }
  const std::string_view document = text.substr(0, line);
  text.remove_prefix(next);
  return document;
}

}  // namespace detail

/// Appends the tokens of a text file to a token file; returns their number. The text is one
/// document, or several, each ended by a line that equals `separator_line` (such as % in fortune
/// files; lines may have Windows endings), which is not part of them. Empty documents are ignored.
/// Each document is followed by the separator of the token file, if it has one.
///
/// Tokenizer: has encode(text), or is callable with a text, and returns ids (std::vector<int32_t>).
/// A document is encoded as a whole, or, if the Tokenizer has `splits_anywhere`, piece by piece in
/// fixed memory. Throws Error, naming the text, if it is empty or if a document contains the
/// separator's id.
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
              ", occurs in the text itself; ", into.path(), " needs a different one"});
      into.append(ids);
      document.remove_prefix(n);
    }
    if (into.separator() >= 0) into.end_document();
  }
  if (into.size() == before) fail({text_path, ": expected text, found none"});
  return into.size() - before;
}

}  // namespace samba::inline SAMBA_TARGET
