#pragma once
/// \file
/// Text to token ids and back, one byte per token, and streaming of text while ids are generated.
#include <samba/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// Each byte is a token. Text and other data survive the round trip unchanged.
struct ByteTokenizer {
  static constexpr int vocab_size = 256;
  /// The ids of a text are those of its pieces, wherever it is split.
  static constexpr bool splits_anywhere = true;

  /// The state a StreamDecoder keeps between ids: none.
  struct Context {};

  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<std::int32_t> ids(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
    return ids;
  }

  /// The bytes themselves, whether or not they are UTF-8. An id outside [0, 256) is an Error.
  std::string decode(std::span<const std::int32_t> ids) const {
    std::string text(ids.size(), '\0');
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= vocab_size)
        fail({"ByteTokenizer: id ", ids[i], " at index ", i, " is outside [0, 256)"});
      text[i] = static_cast<char>(ids[i]);
    }
    return text;
  }

  /// The bytes that one id adds to a text.
  std::string piece(std::int32_t id, Context&) const { return decode({&id, 1}); }
};

/// Encodes a text with anything that has encode(text) or is callable with a text.
template <class Tokenizer>
std::vector<std::int32_t> encode_text(const Tokenizer& tokenizer, std::string_view text) {
  if constexpr (requires { tokenizer.encode(text); })
    return tokenizer.encode(text);
  else
    return tokenizer(text);
}

namespace detail {

/// Length of the UTF-8 character at the start of `bytes`: 0 if more bytes are needed to complete
/// it, -1 if none can begin with these bytes. `bytes` is not empty.
inline int utf8_length(std::string_view bytes) {
  const auto byte = [&](int i) {
    return static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
  };
  const int lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return -1;
  const int length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (int i = 1; i < length; ++i) {
    if (static_cast<std::size_t>(i) == bytes.size()) return 0;
    int low = 0x80, high = 0xbf;
    // The second byte reveals overlong forms, surrogates and code points above U+10FFFF.
    if (i == 1 && lead == 0xe0) low = 0xa0;
    if (i == 1 && lead == 0xed) high = 0x9f;
    if (i == 1 && lead == 0xf0) low = 0x90;
    if (i == 1 && lead == 0xf4) high = 0x8f;
    if (byte(i) < low || byte(i) > high) return -1;
  }
  return length;
}

}  // namespace detail

/// The text of a growing sequence of ids, in complete characters: one that is spread over several
/// ids appears with the last of them. A byte that is not part of a UTF-8 character becomes U+FFFD
/// as soon as that is certain. A generated continuation keeps its leading space only if the
/// prompt's ids went through the decoder first.
///
/// A Tokenizer has a default-constructible `Context` and `piece(id, context)`, which returns the
/// bytes that an id adds to the text so far. An empty piece (such as end of text) ends an
/// unfinished character. The tokenizer is not copied and must outlive the decoder.
template <class Tokenizer>
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  explicit StreamDecoder(const Tokenizer&&) = delete;

  /// Adds one id and returns the text that it completes, possibly none. An id that the tokenizer
  /// does not know is an Error and does not change the decoder.
  std::string operator()(std::int32_t id) {
    const std::string piece = tokenizer_->piece(id, context_);
    pending_ += piece;
    return take(piece.empty());
  }

  /// Ends the text: returns what is left of an unfinished character, as U+FFFD, and starts over.
  std::string finish() {
    context_ = {};
    return take(true);
  }

 private:
  /// Takes the complete characters from pending_, or all of its bytes if at_end.
  std::string take(bool at_end) {
    std::string text;
    std::size_t begin = 0;
    while (begin < pending_.size()) {
      const int length = detail::utf8_length(std::string_view(pending_).substr(begin));
      if (length == 0 && !at_end) break;
      if (length > 0)
        text.append(pending_, begin, static_cast<std::size_t>(length));
      else
        text += "\xef\xbf\xbd";
      begin += static_cast<std::size_t>((std::max)(length, 1));
    }
    pending_.erase(0, begin);
    return text;
  }

  const Tokenizer* tokenizer_;
  typename Tokenizer::Context context_;
  std::string pending_;  // at most three bytes between calls
};

}  // namespace samba::inline SAMBA_TARGET
