#pragma once
/// \file
/// Byte pair encoding (Sennrich et al., arXiv 1508.07909): of bytes, as in GPT-2, GPT-NeoX, Llama 3 and
/// SmolLM2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019), and of
/// characters, as SentencePiece has it (Kudo and Richardson, arXiv 1808.06226), in Llama 2, Mistral, Phi 3
/// and Gemma. Not part of samba.hpp. io/load_tokenizer.hpp reads files.
#include <samba/core/scalar.hpp>
#include <samba/io/tokenizer.hpp>
#include <samba/io/unicode.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// What is merged.
enum class BpeSymbols {
  bytes,       ///< the bytes of words
  characters,  ///< the characters of a text, in which U+2581 and a space are the same: SentencePiece
};

/// Where a tokenizer of characters puts a space in front of text. Decoding takes it away.
enum class SpacePrefix {
  off,
  first,  ///< at the beginning of the text
  parts,  ///< there, and after each special token that is written out in the text
};

/// How a text is cut into words, within which tokens are merged. `L`, `N` and `s` below are letters,
/// numbers and white space of Unicode.
enum class BpePattern {
  /// GPT-2 and GPT-NeoX:
  /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
  gpt2,
  /// Llama 3: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|`
  /// ` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
  llama3,
  /// Qwen 2 and 3: as llama3, with `\p{N}` in place of `\p{N}{1,3}`
  qwen2,
  /// SmolLM2 and StarCoder: each digit is a word; gpt2 for what is between them.
  smollm,
};

/// A token that is looked for in the text itself, before it is cut into words.
struct BpeAddedToken {
  std::int32_t id = -1;
  bool special = true;      ///< has no text when decoded; not looked for without `parse_special`
  bool normalized = false;  ///< looked for in the normalised text, between those that are not
  bool lstrip = false;      ///< takes the white space before it, too
  bool rstrip = false;      ///< takes the white space after it, too
};

/// What a BpeTokenizer is made of: the contents of a tokenizer.json, or of tokenizer.ggml.* in the
/// metadata of a GGUF file. The views need only live until the tokenizer is made.
struct BpeParts {
  std::string source = "BpeTokenizer";  ///< begins every message: the path of the file
  BpeSymbols symbols = BpeSymbols::bytes;
  /// Tokens by id: of bytes in the alphabet of GPT-2, which writes every byte as a character, of
  /// characters with U+2581 for a space; added, control and unused tokens as they are.
  std::span<const std::string_view> tokens = {};
  std::span<const std::string_view> merges = {};  ///< "left right", the first is merged first
  /// In place of merges, of characters only: any two symbols that are a token together are merged, those
  /// of the highest score first. By id.
  std::span<const float> scores = {};
  std::span<const BpeAddedToken> added = {};
  /// Kinds of tokens by id as in GGUF, in place of `added`: 1 normal, 2 unknown and 3 control
  /// (special tokens), 4 user-defined (added ones that are not special), 5 unused, 6 a byte. Empty: none.
  std::span<const std::int32_t> types = {};
  BpePattern pattern = BpePattern::gpt2;  ///< of bytes
  bool nfc = false;  ///< of bytes: text is brought to normalisation form C first
  /// Of characters: tokens named `<0x00>` to `<0xFF>` are bytes, for characters that have no token.
  bool byte_fallback = false;
  SpacePrefix prefix = SpacePrefix::off;  ///< of characters
  /// Of characters, as the pre-tokenizer Metaspace has it: no prefix in front of a space; added tokens are
  /// looked for in the text before U+2581 and the space become the same.
  bool metaspace = false;
  bool ignore_merges = false;  ///< a word that is a token is that token, whatever the merges say
  std::int32_t bos = -1;       ///< beginning of text; -1: none
  std::int32_t eos = -1;       ///< end of text; -1: none
  std::int32_t unknown = -1;   ///< stands for what has no token; -1: that is an Error
  bool fuse_unknown = false;   ///< of characters: one `unknown` for neighbours without a token
  bool adds_bos = false;       ///< the model expects `bos` in front of a text

  /// Sets `pattern`, `nfc` and `ignore_merges` by the name that a GGUF file has in tokenizer.ggml.pre:
  /// gpt-2, mpt (Mamba), smollm, starcoder, refact, llama-bpe, qwen2. Any other is an Error.
  void set_pre(std::string_view name) {
    if (name == "gpt-2" || name == "mpt")
      pattern = BpePattern::gpt2;
    else if (name == "smollm" || name == "starcoder" || name == "refact")
      pattern = BpePattern::smollm;
    else if (name == "llama-bpe")
      pattern = BpePattern::llama3;
    else if (name == "qwen2")
      pattern = BpePattern::qwen2;
    else
      fail({source,
            ": tokenizer.ggml.pre: expected gpt-2, mpt, smollm, starcoder, refact, llama-bpe or "
            "qwen2, found ",
            Quoted{name}});
    nfc = pattern == BpePattern::qwen2;
    ignore_merges = pattern == BpePattern::llama3;
  }
};

struct BpeEncodeOptions {
  bool add_bos = false;  ///< put the beginning-of-text token in front
  /// Special tokens that are written out in the text become their ids. Without it they are text like
  /// any other: for text of users, who must not end their turn or begin that of the system.
  bool parse_special = true;
};

namespace detail {

/// The alphabet of GPT-2: the character that stands for a byte. Printable ones of Latin-1 stand for
/// themselves, the rest have code points from 256 on.
inline const std::array<char32_t, 256>& byte_alphabet() {
  static const std::array<char32_t, 256> alphabet = [] {
    std::array<char32_t, 256> characters{};
    char32_t next = 256;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      characters[b] = printable ? b : next++;
    }
    return characters;
  }();
  return alphabet;
}

/// Appends the bytes for which a token's characters stand; false if one stands for none.
inline bool append_bytes_of(std::string& bytes, std::string_view token) {
  static const std::array<int, 512> byte_of = [] {
    std::array<int, 512> table{};
    table.fill(-1);
    for (int b = 0; b < 256; ++b) table[byte_alphabet()[static_cast<std::size_t>(b)]] = b;
    return table;
  }();
  bool valid = true;
  unicode::split_utf8(
      token,
      [&](std::string_view part) {
        for (std::size_t at = 0; at < part.size();) {
          const unicode::Character c = unicode::character_at(part, at);
          const int byte = c.code < byte_of.size() ? byte_of[c.code] : -1;
          valid = valid && byte >= 0;
          bytes += static_cast<char>(byte);
          at += c.bytes;
        }
      },
      [&](char) { valid = false; });
  return valid;
}

/// Cuts words off the front of a text that is valid UTF-8.
template <BpePattern pattern>
class WordCutter {
 public:
  explicit WordCutter(std::string_view text) : text_(text) {}

  /// Length in bytes of the word that begins at byte `at` of the text, before its end.
  std::size_t operator()(std::size_t at) const {
    if constexpr (pattern == BpePattern::llama3 || pattern == BpePattern::qwen2)
      return llama3(at) - at;
    else
      return gpt2(at) - at;
  }

 private:
  enum class Kind { letter, number, space, other, end };
  struct Character {
    Kind kind;
    std::size_t end;  // where the next one begins
  };
  static constexpr bool single_digits = pattern == BpePattern::smollm;
  static constexpr int most_digits = pattern == BpePattern::qwen2 ? 1 : 3;

  static Kind kind_of(char32_t c) {
    if (c < 0x80) {
      if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return Kind::letter;
      if (c >= '0' && c <= '9') return Kind::number;
      return c == ' ' || (c >= '\t' && c <= '\r') ? Kind::space : Kind::other;
    }
    if (unicode::is_letter(c)) return Kind::letter;
    if (single_digits ? unicode::is_digit(c) : unicode::is_number(c)) return Kind::number;
    return unicode::is_space(c) ? Kind::space : Kind::other;
  }

  Character character(std::size_t at) const {
    if (at == text_.size()) return {Kind::end, at};
    const unicode::Character c = unicode::character_at(text_, at);
    return {kind_of(c.code), at + c.bytes};
  }

  char byte(std::size_t at) const { return at < text_.size() ? text_[at] : '\0'; }

  /// The end of the characters of this kind from `at` on.
  std::size_t end_of(Kind kind, std::size_t at) const {
    for (Character c = character(at); c.kind == kind; c = character(at)) at = c.end;
    return at;
  }

  /// The end of a contraction that begins at an apostrophe; `at` itself if there is none.
  std::size_t contraction(std::size_t at, bool any_case) const {
    const auto letter = [&](std::size_t i) {
      const char c = byte(i);
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    const char first = letter(at + 1), second = first != '\0' ? letter(at + 2) : '\0';
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
    if ((first == 'r' || first == 'v') && second == 'e') return at + 3;
    if (first == 'l' && second == 'l') return at + 3;
    // U+017F, the long s, is a small letter of S.
    return any_case && first == '\xc5' && second == '\xbf' ? at + 3 : at;
  }

  /// `\s+(?!\S)|\s+`: the last white space before other characters belongs to these.
  std::size_t spaces(std::size_t begin) const {
    std::size_t at = begin, last = begin;
    Character c = character(at);
    for (; c.kind == Kind::space; c = character(at)) {
      last = at;
      at = c.end;
    }
    const bool at_end = c.kind == Kind::end || (single_digits && c.kind == Kind::number);
    return at_end || last == begin ? at : last;
  }

  std::size_t gpt2(std::size_t at) const {
    if (byte(at) == '\'') {
      const std::size_t end = contraction(at, false);
      if (end != at) return end;
    }
    Character c = character(at);
    if (single_digits && c.kind == Kind::number) return c.end;
    if (byte(at) == ' ') {
      const Character next = character(c.end);
      const bool digit = single_digits && next.kind == Kind::number;
      if (next.kind != Kind::space && next.kind != Kind::end && !digit) c = next;
    }
    return c.kind == Kind::space ? spaces(at) : end_of(c.kind, c.end);
  }

  std::size_t llama3(std::size_t at) const {
    if (byte(at) == '\'') {
      const std::size_t end = contraction(at, true);
      if (end != at) return end;
    }
    Character c = character(at);
    if (c.kind == Kind::letter) return end_of(Kind::letter, c.end);
    if (c.kind == Kind::number) {
      for (int i = 1; i < most_digits; ++i)
        if (const Character next = character(c.end); next.kind == Kind::number) c = next;
      return c.end;
    }
    const Character next = character(c.end);
    if (next.kind == Kind::letter && !is_line_end(at)) return end_of(Kind::letter, next.end);
    if (byte(at) == ' ' && next.kind == Kind::other) c = next;
    if (c.kind == Kind::other) {
      std::size_t end = end_of(Kind::other, c.end);
      while (is_line_end(end)) ++end;
      return end;
    }
    std::size_t after_lines = at;
    const std::size_t end = end_of(Kind::space, at);
    for (std::size_t i = at; i < end; ++i)
      if (is_line_end(i)) after_lines = i + 1;
    return after_lines != at ? after_lines : spaces(at);
  }

  bool is_line_end(std::size_t at) const { return byte(at) == '\r' || byte(at) == '\n'; }

  std::string_view text_;
};

/// Calls word(part) for the words of a text that is valid UTF-8, in order.
template <BpePattern pattern, class Word>
void cut_words(std::string_view text, Word&& word) {
  const WordCutter<pattern> cut(text);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = cut(at);
    word(text.substr(at, length));
    at += length;
  }
}

/// Indices of things that their owner keeps, by hash.
class HashedIndices {
 public:
  HashedIndices() = default;
  /// Room for n.
  explicit HashedIndices(std::size_t n) {
    std::size_t size = 4;
    while (size < 2 * n) size *= 2;
    indices_.assign(size, -1);
  }

  void insert(std::uint64_t hash, std::int32_t index) {
    std::size_t place = hash & (indices_.size() - 1);
    while (indices_[place] >= 0) place = (place + 1) & (indices_.size() - 1);
    indices_[place] = index;
  }

  /// The index with this hash for which same(index), -1 if there is none.
  template <class Same>
  std::int32_t find(std::uint64_t hash, Same&& same) const {
    std::size_t place = hash & (indices_.size() - 1);
    while (indices_[place] >= 0 && !same(indices_[place]))
      place = (place + 1) & (indices_.size() - 1);
    return indices_[place];
  }

 private:
  std::vector<std::int32_t> indices_;  // -1 where there is none; a power of two
};

/// Finds added tokens in a text: from the left, the longest at each place.
class AddedTokens {
 public:
  struct Token {
    std::string text;
    BpeAddedToken what;
  };

  AddedTokens() = default;
  explicit AddedTokens(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
    std::stable_sort(tokens_.begin(), tokens_.end(), [](const Token& a, const Token& b) {
      const auto first = [](const Token& t) { return static_cast<unsigned char>(t.text[0]); };
      if (first(a) != first(b)) return first(a) < first(b);
      return a.text.size() != b.text.size() ? a.text.size() > b.text.size() : a.text < b.text;
    });
    for (const Token& token : tokens_) ++begins_[static_cast<unsigned char>(token.text[0]) + 1u];
    for (std::size_t i = 1; i < begins_.size(); ++i) begins_[i] += begins_[i - 1];
  }

  /// Calls part(text) for what is between the tokens and token(id) for these, in order.
  template <class Part, class Id>
  void split(std::string_view text, bool parse_special, Part&& part, Id&& token) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      const Token* const found = at_beginning_of(text.substr(at));
      if (!found) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at + found->text.size();
      at = end;
      if (found->what.special && !parse_special) continue;
      if (found->what.lstrip) begin = unicode::before_spaces(text, begin);
      if (found->what.rstrip) end = unicode::after_spaces(text, end);
      if (done < begin) part(text.substr(done, begin - done));
      token(found->what.id);
      done = end;
    }
    if (done < text.size()) part(text.substr(done));
  }

 private:
  /// The longest token with which a text begins, null if there is none.
  const Token* at_beginning_of(std::string_view text) const {
    const auto first = static_cast<unsigned char>(text[0]);
    const Token* at = tokens_.data() + begins_[first];
    const Token* const end = tokens_.data() + begins_[first + 1u];
    while (at != end) {
      const std::string_view wanted = text.substr(0, at->text.size());
      const Token* const shorter = std::partition_point(
          at, end, [&](const Token& token) { return token.text.size() >= at->text.size(); });
      if (wanted.size() == at->text.size()) {
        const Token* const found = std::partition_point(
            at, shorter, [&](const Token& token) { return token.text < wanted; });
        if (found != shorter && found->text == wanted) return found;
      }
      at = shorter;
    }
    return nullptr;
  }

  std::vector<Token> tokens_;                 // by first byte, then the longest first, then by text
  std::array<std::size_t, 257> begins_ = {};  // of the tokens by first byte
};

/// U+2581, which stands for a space in tokens of SentencePiece.
inline constexpr std::string_view space_symbol = "\xe2\x96\x81";

/// A text with spaces in place of U+2581.
inline std::string with_spaces(std::string_view text) {
  std::string result;
  std::size_t at = 0;
  for (std::size_t found = 0; (found = text.find(space_symbol, at)) != text.npos;) {
    result.append(text, at, found - at);
    result += ' ';
    at = found + space_symbol.size();
  }
  return result.append(text, at);
}

/// The byte that a token named `<0x00>` to `<0xFF>` stands for, -1 for any other token.
inline int byte_of_name(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -256;
  };
  return (std::max)(16 * digit(token[3]) + digit(token[4]), -1);
}

}  // namespace detail

/// Byte pair encoding with the ids of PyPI's tokenizers 0.23, or of SentencePiece if there are scores, for
/// text that is UTF-8.
///
/// A byte that belongs to no UTF-8 character is one token, and the text ends before it and begins anew
/// behind it. decode(encode(text, options), true) is the text again, whatever bytes it has, unless the
/// tokenizer normalises, has added tokens that take white space, or lacks tokens of bytes. Tokenizers of
/// characters have one token for U+2581 and a space: it becomes a space.
///
/// May be used by any number of threads at once. Encoding takes O(n log n) for n bytes.
class BpeTokenizer {
 public:
  /// What a StreamDecoder keeps between two ids.
  struct Context {
    bool begun = false;  ///< the next token is not the one whose space the encoder put there
  };

  /// Parts that contradict each other are an Error that names what was found.
  explicit BpeTokenizer(const BpeParts& parts)
      : source_(parts.source),
        characters_(parts.symbols == BpeSymbols::characters),
        scored_(!parts.scores.empty()),
        pattern_(parts.pattern),
        nfc_(parts.nfc),
        prefix_(parts.prefix),
        metaspace_(parts.metaspace),
        ignores_merges_(parts.ignore_merges),
        bos_(parts.bos),
        eos_(parts.eos),
        unknown_(parts.unknown),
        fuses_unknown_(parts.fuse_unknown),
        adds_bos_(parts.adds_bos) {
    if (parts.tokens.empty()) fail({source_, ": tokens: expected at least one, found none"});
    if (parts.tokens.size() > most) fail_many("tokens", parts.tokens.size());
    if (parts.merges.size() > most) fail_many("merges", parts.merges.size());
    check_symbols(parts);
    check_id(bos_, "bos", parts);
    check_id(eos_, "eos", parts);
    check_id(unknown_, "unknown", parts);
    if (adds_bos_ && bos_ < 0)
      fail({source_, ": adds_bos: expected a beginning-of-text token, found none"});
    const std::vector<BpeAddedToken> added = added_tokens(parts);
    std::unordered_map<std::string_view, std::int32_t> names(parts.tokens.size());
    for (std::size_t i = 0; i < parts.tokens.size(); ++i) {
      const auto [place, is_new] = names.emplace(parts.tokens[i], static_cast<std::int32_t>(i));
      if (!is_new)
        fail({source_, ": tokens ", place->second, " and ", i, " are both ",
              Quoted{parts.tokens[i]}});
    }
    set_bytes(parts, names);
    set_texts(parts);
    if (scored_)
      set_priorities(parts.scores);
    else
      set_merges(parts.merges, names);
    if (characters_)
      set_pieces(parts);
    else
      set_words(parts.ignore_merges);
    set_added(added, parts);
  }

  /// The ids of `text`.
  std::vector<std::int32_t> encode(std::string_view text,
                                   BpeEncodeOptions options = BpeEncodeOptions{}) const {
    if (options.add_bos && bos_ < 0) fail({source_, ": there is no beginning-of-text token"});
    std::vector<std::int32_t> ids;
    if (options.add_bos) ids.push_back(bos_);
    Merging scratch;
    const auto add = [&](std::int32_t id) { ids.push_back(id); };
    const auto is_first = [&](std::string_view part) { return part.data() == text.data(); };
    added_.split(
        text, options.parse_special,
        [&](std::string_view part) {
          std::string normalized;
          if (nfc_)
            part = normalized = normal_form(part);
          else if (characters_ && !metaspace_)
            part = normalized = spaced(part, is_first(part));
          added_normalized_.split(
              part, options.parse_special,
              [&](std::string_view between) {
                if (metaspace_)
                  encode_part(spaced(between, is_first(between)), scratch, ids);
                else
                  encode_part(between, scratch, ids);
              },
              add);
        },
        add);
    return ids;
  }

  /// The bytes of `ids`, whether or not they are UTF-8. Special tokens have none, or their name with
  /// `special`. An id outside the vocabulary is an Error.
  std::string decode(std::span<const std::int32_t> ids, bool special = false) const {
    std::string text;
    Context context;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (!contains(ids[i]))
        fail({source_, ": id ", ids[i], " at index ", i, " is outside [0, ", vocab_size(), ")"});
      text += next_text(ids[i], special, context);
    }
    return text;
  }

  /// The bytes that one id adds to a text; special tokens add none.
  std::string piece(std::int32_t id, Context& context) const {
    if (!contains(id)) fail({source_, ": id ", id, " is outside [0, ", vocab_size(), ")"});
    return std::string(next_text(id, false, context));
  }

  int vocab_size() const { return static_cast<int>(kinds_.size()); }
  /// Id of the beginning of text, -1 if there is none.
  std::int32_t bos_id() const { return bos_; }
  /// Id of the end of text, -1 if there is none. A tokenizer.json does not say it.
  std::int32_t eos_id() const { return eos_; }
  /// Whether the model expects the beginning-of-text token in front of a text.
  bool adds_bos() const { return adds_bos_; }
  /// True for a special token, which has no text.
  bool is_special(std::int32_t id) const { return contains(id) && kind_of(id) == Kind::special; }

  /// The id of an added token, special or not, by its name; one that is absent is an Error.
  std::int32_t id_of(std::string_view name) const {
    for (std::int32_t id = 0; id < vocab_size(); ++id)
      if (const Kind kind = kind_of(id);
          (kind == Kind::special || kind == Kind::added || kind == Kind::inner) &&
          text_of(id) == name)
        return id;
    fail({source_, ": there is no added token ", Quoted{name}});
  }

 private:
  /// inner: added, and looked for in the normalised text
  enum class Kind : unsigned char { normal, added, inner, special, unused, byte };
  static constexpr std::size_t most = (std::numeric_limits<std::int32_t>::max)();

  struct Merge {
    std::int32_t left, right, result;
  };
  /// A word begins as one symbol per byte or character; merging joins neighbours.
  struct Symbol {
    std::int32_t id;              // -1: a character without a token
    std::int32_t previous, next;  // -1: none
    std::int32_t merge;  // with the next one, as in find_merge; -1: none, or joined to one before
    std::int32_t begin;  // in the word
  };
  /// How the text of an unused token was last found to be made of two.
  struct Halves {
    std::int32_t id;
    std::size_t left;  // bytes
  };
  /// What merging a word needs, kept from one to the next.
  struct Merging {
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;  // priority and position of pairs, the least first
    std::vector<Halves> unused;
    bool after_unknown = false;  // the last id of this part stands for characters without a token
  };

  [[noreturn]] void fail_many(const char* what, std::size_t n) const {
    fail({source_, ": ", what, ": expected at most ", most, ", found ", n});
  }
  void check_id(std::int32_t id, const char* what, const BpeParts& parts) const {
    if (id < -1 || id >= static_cast<std::int64_t>(parts.tokens.size()))
      fail({source_, ": ", what, ": expected an id in [0, ", parts.tokens.size(), "), found ", id});
  }

  bool contains(std::int32_t id) const { return id >= 0 && id < vocab_size(); }
  Kind kind_of(std::int32_t id) const { return kinds_[static_cast<std::size_t>(id)]; }
  bool is_mergeable(std::int32_t id) const {
    const Kind kind = kind_of(id);
    return kind == Kind::normal || kind == Kind::added || kind == Kind::inner;
  }
  std::string_view text_of(std::int32_t id) const {
    const auto i = static_cast<std::size_t>(id);
    return std::string_view(bytes_).substr(begins_[i], begins_[i + 1] - begins_[i]);
  }

  /// The text that a token adds to those before it: without the space that the encoder put in front.
  std::string_view next_text(std::int32_t id, bool special, Context& context) const {
    const Kind kind = kind_of(id);
    std::string_view text = text_of(id);
    if (kind == Kind::special) {
      context.begun = prefix_ != SpacePrefix::parts && (context.begun || special);
      return special ? text : std::string_view();
    }
    if (kind == Kind::added) {
      context.begun = prefix_ != SpacePrefix::parts;
      return text;
    }
    if (prefix_ != SpacePrefix::off && !context.begun && text.starts_with(' '))
      text.remove_prefix(1);
    context.begun = true;
    return text;
  }

  void check_symbols(const BpeParts& parts) const {
    if (!characters_ &&
        (scored_ || parts.byte_fallback || metaspace_ || prefix_ != SpacePrefix::off))
      fail({source_,
            ": scores, byte_fallback, prefix and metaspace: expected none for symbols that are "
            "bytes"});
    if (characters_ && nfc_)
      fail({source_, ": nfc: expected false for symbols that are characters"});
    if (!scored_) return;
    if (!parts.merges.empty()) fail({source_, ": expected merges or scores, found both"});
    if (parts.scores.size() != parts.tokens.size())
      fail({source_, ": scores: expected one for each of ", parts.tokens.size(), " tokens, found ",
            parts.scores.size()});
    for (std::size_t i = 0; i < parts.scores.size(); ++i)
      if (!is_finite(parts.scores[i]))
        fail({source_, ": scores: expected a finite one for token ", i, ", found ",
              parts.scores[i]});
  }

  /// Fills kinds_, except for bytes, and returns the added tokens.
  std::vector<BpeAddedToken> added_tokens(const BpeParts& parts) {
    kinds_.assign(parts.tokens.size(), Kind::normal);
    std::vector<BpeAddedToken> added(parts.added.begin(), parts.added.end());
    if (!parts.types.empty()) {
      if (!added.empty()) fail({source_, ": expected added tokens or types, found both"});
      if (parts.types.size() != parts.tokens.size())
        fail({source_, ": types: expected one for each of ", parts.tokens.size(), " tokens, found ",
              parts.types.size()});
    }
    for (std::size_t i = 0; i < parts.types.size(); ++i) {
      const std::int32_t type = parts.types[i], last = parts.byte_fallback ? 6 : 5;
      if (type < 1 || type > last)
        fail({source_, ": types: expected 1 to ", last, " for token ", i, ", found ", type});
      if (type == 6 && detail::byte_of_name(parts.tokens[i]) < 0)
        fail({source_, ": token ", i, " of type 6: expected <0x00> to <0xFF>, found ",
              Quoted{parts.tokens[i]}});
      if (type == 5) kinds_[i] = Kind::unused;
      if (type >= 2 && type <= 4)
        added.push_back({.id = static_cast<std::int32_t>(i),
                         .special = type != 4,
                         .normalized = type == 4 && characters_});
    }
    for (const BpeAddedToken& token : added) {
      if (token.id < 0) fail({source_, ": added tokens: expected an id, found ", token.id});
      check_id(token.id, "added tokens", parts);
      Kind& kind = kinds_[static_cast<std::size_t>(token.id)];
      if (kind != Kind::normal) fail({source_, ": added tokens: id ", token.id, " is there twice"});
      const bool inner = token.normalized && !metaspace_;
      kind = token.special ? Kind::special : inner ? Kind::inner : Kind::added;
    }
    return added;
  }

  /// Finds the tokens of bytes.
  void set_bytes(const BpeParts& parts,
                 const std::unordered_map<std::string_view, std::int32_t>& names) {
    constexpr const char* hex = "0123456789ABCDEF";
    byte_ids_.fill(-1);
    if (characters_ && !parts.byte_fallback) return;
    for (std::size_t b = 0; b < 256; ++b) {
      std::string name;
      if (characters_)
        name = {'<', '0', 'x', hex[b / 16], hex[b % 16], '>'};
      else
        unicode::append(name, detail::byte_alphabet()[b]);
      const auto found = names.find(name);
      if (found != names.end() && is_mergeable(found->second)) byte_ids_[b] = found->second;
      if (!characters_) continue;
      if (byte_ids_[b] < 0)
        fail({source_, ": byte_fallback: expected a token for each byte, found none ", name});
      kinds_[static_cast<std::size_t>(byte_ids_[b])] = Kind::byte;
    }
  }

  void set_texts(const BpeParts& parts) {
    begins_.push_back(0);
    for (std::size_t i = 0; i < parts.tokens.size(); ++i) {
      const std::string_view token = parts.tokens[i];
      if (token.empty()) fail({source_, ": token ", i, " is empty"});
      if (kinds_[i] == Kind::byte)
        bytes_ += static_cast<char>(detail::byte_of_name(token));
      else if (characters_ && kinds_[i] != Kind::special)
        bytes_ += detail::with_spaces(token);
      else if (characters_ || kinds_[i] != Kind::normal)
        bytes_ += token;
      else if (!detail::append_bytes_of(bytes_, token))
        fail({source_, ": token ", i, ", ", Quoted{token},
              ": expected characters of the byte alphabet of GPT-2"});
      begins_.push_back(bytes_.size());
    }
  }

  void set_merges(std::span<const std::string_view> merges,
                  const std::unordered_map<std::string_view, std::int32_t>& names) {
    merge_indices_ = detail::HashedIndices(merges.size());
    merges_.reserve(merges.size());
    std::string joined;
    for (std::size_t i = 0; i < merges.size(); ++i) {
      const std::string_view merge = merges[i];
      const auto id_of = [&](std::string_view name) {
        const auto found = names.find(name);
        if (found == names.end() || !is_mergeable(found->second))
          fail({source_, ": merges[", i, "], ", Quoted{merge}, ": ", Quoted{name},
                found == names.end() ? " is no token" : " is a special, unused or byte token"});
        return found->second;
      };
      const std::size_t space = merge.find(' ');
      if (space == merge.npos || space == 0 || space + 1 == merge.size() ||
          merge.find(' ', space + 1) != merge.npos)
        fail({source_, ": merges[", i, "]: expected two tokens with a space between, found ",
              Quoted{merge}});
      const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
      joined.assign(left).append(right);
      const Merge entry{id_of(left), id_of(right), id_of(joined)};
      if (const std::int32_t other = rank_of(entry.left, entry.right); other >= 0)
        fail({source_, ": merges[", other, "] and merges[", i, "] are both ", Quoted{merge}});
      merges_.push_back(entry);
      merge_indices_.insert(hash_of(entry.left, entry.right), static_cast<std::int32_t>(i));
    }
  }

  /// Ranks the tokens by their scores; equal ones share a rank.
  void set_priorities(std::span<const float> scores) {
    const auto higher = [](float a, float b) { return a > b; };
    std::vector<float> sorted(scores.begin(), scores.end());
    std::sort(sorted.begin(), sorted.end(), higher);
    for (const float score : scores)
      priorities_.push_back(static_cast<std::int32_t>(
          std::lower_bound(sorted.begin(), sorted.end(), score, higher) - sorted.begin()));
  }

  /// Remembers the tokens of characters by their text.
  void set_pieces(const BpeParts& parts) {
    words_ = detail::HashedIndices(kinds_.size());
    for (std::int32_t id = 0; id < vocab_size(); ++id) {
      const Kind kind = kind_of(id);
      const bool found_earlier = scored_ && (kind == Kind::added || kind == Kind::inner);
      const bool merges = scored_ && kind == Kind::unused;
      // Where text is merged, U+2581 stands for every space.
      if ((!is_mergeable(id) && !merges) || found_earlier ||
          parts.tokens[static_cast<std::size_t>(id)].find(' ') != std::string_view::npos)
        continue;
      const std::string_view text = text_of(id);
      words_.insert(hash_of(text), id);
      longest_ = (std::max)(longest_, text.size());
      for (std::size_t i = 1; i < text.size(); ++i)
        if (text[i] == ' ' && text[i - 1] != ' ')
          joins_space_[static_cast<unsigned char>(text[i - 1])] = true;
    }
  }

  /// Remembers the words that are one token, so that few have to be merged.
  void set_words(bool ignore_merges) {
    words_ = detail::HashedIndices(kinds_.size());
    Merging scratch;
    std::vector<std::int32_t> ids;
    for (std::int32_t id = 0; id < vocab_size(); ++id) {
      if (kinds_[static_cast<std::size_t>(id)] != Kind::normal) continue;
      const std::string_view text = text_of(id);
      if (!ignore_merges) {
        const bool known = std::all_of(text.begin(), text.end(), [&](char c) {
          return byte_ids_[static_cast<unsigned char>(c)] >= 0;
        });
        if (!known) continue;
        ids.clear();
        merge(text, scratch, ids);
        if (ids.size() != 1 || ids[0] != id) continue;
      }
      words_.insert(hash_of(text), id);
    }
  }

  void set_added(const std::vector<BpeAddedToken>& added, const BpeParts& parts) {
    std::vector<detail::AddedTokens::Token> raw, normalized;
    for (const BpeAddedToken& token : added) {
      const std::string text(parts.tokens[static_cast<std::size_t>(token.id)]);
      if (!token.normalized)
        raw.push_back({text, token});
      else if (nfc_)
        normalized.push_back({normal_form(text), token});
      else if (!characters_ || metaspace_)
        normalized.push_back({text, token});
      else  // what SentencePiece calls user-defined is part of its text, which has a space in front
        normalized.push_back(
            {parts.types.empty() ? spaced(text, true) : detail::with_spaces(text), token});
    }
    added_ = detail::AddedTokens(std::move(raw));
    added_normalized_ = detail::AddedTokens(std::move(normalized));
  }

  static std::uint64_t hash_of(std::int32_t left, std::int32_t right) {
    const std::uint64_t key =
        static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
    const std::uint64_t mixed = key * 0x9e3779b97f4a7c15u;
    return mixed ^ mixed >> 32;
  }
  static std::uint64_t hash_of(std::string_view text) {
    return std::hash<std::string_view>{}(text);
  }

  /// The place of a pair in the list of merges, -1 if it is not there.
  std::int32_t rank_of(std::int32_t left, std::int32_t right) const {
    return merge_indices_.find(hash_of(left, right), [&](std::int32_t i) {
      const Merge& entry = merges_[static_cast<std::size_t>(i)];
      return entry.left == left && entry.right == right;
    });
  }

  static std::string normal_form(std::string_view text) {
    std::string result;
    unicode::split_utf8(
        text, [&](std::string_view valid) { result += unicode::nfc(valid); },
        [&](char invalid) { result += invalid; });
    return result;
  }

  /// A part of a text with the spaces that characters are merged with.
  std::string spaced(std::string_view text, bool is_first) const {
    const bool parts = prefix_ == SpacePrefix::parts || (prefix_ == SpacePrefix::first && is_first);
    const bool begins = text.starts_with(' ') || text.starts_with(detail::space_symbol);
    std::string result = detail::with_spaces(text);
    if (parts && !(metaspace_ && begins)) result.insert(0, 1, ' ');
    return result;
  }

  void encode_part(std::string_view text, Merging& scratch, std::vector<std::int32_t>& ids) const {
    const auto word = [&](std::string_view bytes) { encode_word(bytes, scratch, ids); };
    scratch.after_unknown = false;
    if (characters_ && ignores_merges_) {
      if (const std::int32_t whole = token_of(text); whole >= 0) return ids.push_back(whole);
    }
    unicode::split_utf8(
        text,
        [&](std::string_view valid) {
          if (characters_) return cut_at_spaces(valid, word);
          switch (pattern_) {
            case BpePattern::gpt2: return detail::cut_words<BpePattern::gpt2>(valid, word);
            case BpePattern::llama3: return detail::cut_words<BpePattern::llama3>(valid, word);
            case BpePattern::qwen2: return detail::cut_words<BpePattern::qwen2>(valid, word);
            case BpePattern::smollm: return detail::cut_words<BpePattern::smollm>(valid, word);
          }
        },
        [&](char invalid) {
          if (characters_)
            add_unknown({&invalid, 1}, scratch, ids);
          else
            word({&invalid, 1});
        });
  }

  /// Calls word(part) for parts of a text across whose ends no token reaches.
  template <class Word>
  void cut_at_spaces(std::string_view text, Word&& word) const {
    std::size_t begin = 0;
    for (std::size_t at = 1; at < text.size(); ++at) {
      const char before = text[at - 1];
      if (text[at] != ' ' || before == ' ' || joins_space_[static_cast<unsigned char>(before)])
        continue;
      word(text.substr(begin, at - begin));
      begin = at;
    }
    if (begin < text.size()) word(text.substr(begin));
  }

  void encode_word(std::string_view word, Merging& scratch, std::vector<std::int32_t>& ids) const {
    const std::int32_t whole = characters_ ? -1 : token_of(word);
    if (whole >= 0)
      ids.push_back(whole);
    else
      merge(word, scratch, ids);
  }

  /// The token of this text among those of words_, -1 if there is none.
  std::int32_t token_of(std::string_view text) const {
    return words_.find(hash_of(text), [&](std::int32_t id) { return text_of(id) == text; });
  }

  /// The token of a byte.
  std::int32_t symbol_of(char c) const {
    const auto byte = static_cast<unsigned char>(c);
    if (byte_ids_[byte] >= 0) return byte_ids_[byte];
    if (unknown_ < 0)
      fail({source_, ": byte ", byte, " of the text has no token, and there is no unknown token"});
    return unknown_;
  }

  /// The ids of a character without a token, or of a byte that belongs to no character.
  void add_unknown(std::string_view text, Merging& scratch, std::vector<std::int32_t>& ids) const {
    const bool has_bytes = byte_ids_[0] >= 0;
    if (!has_bytes && unknown_ < 0)
      fail({source_, ": ", Quoted{text},
            " in the text has no token, and there is no unknown token"});
    if (has_bytes)
      for (const char c : text) ids.push_back(symbol_of(c));
    else if (!fuses_unknown_ || !scratch.after_unknown)
      ids.push_back(unknown_);
    scratch.after_unknown = !has_bytes;
  }

  /// Begins a word: one symbol per byte or character.
  void set_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
    symbols.clear();
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t bytes = characters_ ? unicode::character_at(word, at).bytes : 1;
      const std::int32_t id = characters_ ? token_of(word.substr(at, bytes)) : symbol_of(word[at]);
      const auto i = static_cast<std::int32_t>(symbols.size());
      symbols.push_back({id, i - 1, i + 1, -1, static_cast<std::int32_t>(at)});
      at += bytes;
    }
    if (!symbols.empty()) symbols.back().next = -1;
  }

  /// The bytes of a word up to symbol i, or all.
  static std::size_t begin_of(std::int32_t i, std::string_view word,
                              const std::vector<Symbol>& symbols) {
    return i < 0 ? word.size()
                 : static_cast<std::size_t>(symbols[static_cast<std::size_t>(i)].begin);
  }

  /// What a symbol and the next one merge to: a place in merges_, or if there are scores a token. -1:
  /// nothing.
  std::int32_t find_merge(const Symbol& left, std::string_view word, Merging& scratch) const {
    if (left.next < 0) return -1;
    const Symbol& right = scratch.symbols[static_cast<std::size_t>(left.next)];
    if (!scored_) return rank_of(left.id, right.id);
    const auto begin = static_cast<std::size_t>(left.begin);
    const std::size_t size = begin_of(right.next, word, scratch.symbols) - begin;
    const std::int32_t id = size <= longest_ ? token_of(word.substr(begin, size)) : -1;
    if (id >= 0 && kind_of(id) == Kind::unused)
      scratch.unused.push_back({id, static_cast<std::size_t>(right.begin) - begin});
    return id;
  }

  /// Joins neighbours, those of the first merge in the list or the highest score first, the leftmost of
  /// these first.
  void merge(std::string_view word, Merging& scratch, std::vector<std::int32_t>& ids) const {
    if (word.size() > most) fail_many("bytes of a word", word.size());
    std::vector<Symbol>& symbols = scratch.symbols;
    std::vector<std::uint64_t>& heap = scratch.heap;
    set_symbols(word, symbols);
    heap.clear();
    scratch.unused.clear();
    const auto at = [&](std::int32_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
    const auto least_first = [](std::uint64_t a, std::uint64_t b) { return a > b; };
    const auto priority_of = [&](std::int32_t merge) {
      return static_cast<std::uint32_t>(scored_ ? priorities_[static_cast<std::size_t>(merge)]
                                                : merge);
    };
    /// Notes the pair that begins at symbol i, if it is one to be merged.
    const auto add = [&](std::int32_t i) {
      const std::int32_t merge = at(i).merge = find_merge(at(i), word, scratch);
      if (merge < 0) return false;
      heap.push_back(static_cast<std::uint64_t>(priority_of(merge)) << 32 |
                     static_cast<std::uint32_t>(i));
      return true;
    };
    for (std::int32_t i = 0; i < std::ssize(symbols); ++i) add(i);
    std::make_heap(heap.begin(), heap.end(), least_first);
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), least_first);
      const auto priority = static_cast<std::uint32_t>(heap.back() >> 32);
      const auto i = static_cast<std::int32_t>(heap.back() & 0xffffffffu);
      heap.pop_back();
      Symbol& left = at(i);
      // One of the two may have been merged with another since.
      if (left.merge < 0 || priority_of(left.merge) != priority) continue;
      Symbol& right = at(left.next);
      left.id = scored_ ? left.merge : merges_[static_cast<std::size_t>(left.merge)].result;
      left.next = right.next;
      right.merge = -1;
      if (left.next >= 0) at(left.next).previous = i;
      if (add(i)) std::push_heap(heap.begin(), heap.end(), least_first);
      if (left.previous >= 0 && add(left.previous))
        std::push_heap(heap.begin(), heap.end(), least_first);
    }
    for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = at(i).next) {
      const auto begin = static_cast<std::size_t>(at(i).begin);
      add_symbol(at(i).id, word.substr(begin, begin_of(at(i).next, word, symbols) - begin), scratch,
                 ids);
    }
  }

  /// The ids of a symbol that is left when all is merged.
  void add_symbol(std::int32_t id, std::string_view text, Merging& scratch,
                  std::vector<std::int32_t>& ids) const {
    if (id < 0) return add_unknown(text, scratch, ids);
    if (scored_ && kind_of(id) == Kind::unused) {
      // Text of an unused token is what it was made of.
      const auto halves = std::find_if(scratch.unused.rbegin(), scratch.unused.rend(),
                                       [&](const Halves& h) { return h.id == id; });
      if (halves != scratch.unused.rend()) {
        const std::size_t left = halves->left;
        add_symbol(token_of(text.substr(0, left)), text.substr(0, left), scratch, ids);
        return add_symbol(token_of(text.substr(left)), text.substr(left), scratch, ids);
      }
    }
    ids.push_back(id);
    scratch.after_unknown = false;
  }

  std::string source_;
  bool characters_, scored_;
  BpePattern pattern_;
  bool nfc_;
  SpacePrefix prefix_;
  bool metaspace_, ignores_merges_;
  std::int32_t bos_, eos_, unknown_;
  bool fuses_unknown_, adds_bos_;
  std::string bytes_;                // of all tokens, by id
  std::vector<std::size_t> begins_;  // where those of a token begin
  std::vector<Kind> kinds_;          // by id
  std::array<std::int32_t, 256> byte_ids_ = {};
  std::vector<Merge> merges_;             // by rank
  std::vector<std::int32_t> priorities_;  // by id, if there are scores: the least is merged first
  detail::HashedIndices merge_indices_, words_;
  // Of characters: the bytes of the longest token of words_, and those before a space within one.
  std::size_t longest_ = 0;
  std::array<bool, 256> joins_space_ = {};
  detail::AddedTokens added_, added_normalized_;
};

}  // namespace samba::inline SAMBA_TARGET
