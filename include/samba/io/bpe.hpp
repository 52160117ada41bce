#pragma once
/// \file
/// Byte-level byte pair encoding, as in GPT-2, GPT-NeoX, Llama 3 and SmolLM2 (Sennrich et al., arXiv
/// 1508.07909; Radford et al., "Language Models are Unsupervised Multitask Learners", 2019). Not part
/// of samba.hpp. io/tokenizer_json.hpp reads tokenizer.json files.
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

/// How a text is cut into words, within which tokens are merged. `L`, `N` and `s` below are letters,
/// numbers and white space of Unicode.
enum class BpePattern {
  /// GPT-2 and GPT-NeoX:
  /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
  gpt2,
  /// Llama 3: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|`
  /// ` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
  llama3,
  /// SmolLM2: each digit is a word; gpt2 for what is between them.
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
  /// Tokens by id, in the alphabet of GPT-2, which writes every byte as a character; added, control
  /// and unused tokens as they are.
  std::span<const std::string_view> tokens = {};
  std::span<const std::string_view> merges = {};  ///< "left right", the first is merged first
  std::span<const BpeAddedToken> added = {};
  /// Kinds of tokens by id as in GGUF, in place of `added`: 1 normal, 2 unknown and 3 control
  /// (special tokens), 4 user-defined (added ones that are not special), 5 unused. Empty: none.
  std::span<const std::int32_t> types = {};
  BpePattern pattern = BpePattern::gpt2;
  bool ignore_merges = false;  ///< a word that is a token is that token, whatever the merges say
  bool nfc = false;            ///< text is brought to normalisation form C first
  std::int32_t bos = -1;       ///< beginning of text; -1: none
  std::int32_t eos = -1;       ///< end of text; -1: none
  std::int32_t unknown = -1;   ///< stands for bytes that have no token; -1: these are an Error
  bool adds_bos = false;       ///< the model expects `bos` in front of a text

  /// Sets `pattern` and `ignore_merges` by the name that a GGUF file has in tokenizer.ggml.pre:
  /// gpt-2, mpt (Mamba), smollm, llama-bpe. Any other is an Error.
  void set_pre(std::string_view name) {
    if (name == "gpt-2" || name == "mpt")
      pattern = BpePattern::gpt2;
    else if (name == "smollm")
      pattern = BpePattern::smollm;
    else if (name == "llama-bpe")
      pattern = BpePattern::llama3;
    else
      fail({source, ": tokenizer.ggml.pre: expected gpt-2, mpt, smollm or llama-bpe, found ",
            Quoted{name}});
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
    if constexpr (pattern == BpePattern::llama3)
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
      for (int i = 0; i < 2; ++i)
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
      return first(a) != first(b) ? first(a) < first(b) : a.text.size() > b.text.size();
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
      if (found->what.lstrip) begin = before_spaces(text, begin);
      if (found->what.rstrip) end = after_spaces(text, end);
      if (done < begin) part(text.substr(done, begin - done));
      token(found->what.id);
      done = end;
    }
    if (done < text.size()) part(text.substr(done));
  }

 private:
  const Token* at_beginning_of(std::string_view text) const {
    const auto first = static_cast<unsigned char>(text[0]);
    for (std::size_t i = begins_[first]; i < begins_[first + 1u]; ++i)
      if (text.substr(0, tokens_[i].text.size()) == tokens_[i].text) return &tokens_[i];
    return nullptr;
  }

  static std::size_t after_spaces(std::string_view text, std::size_t at) {
    while (at < text.size() && detail::utf8_length(text.substr(at)) > 0) {
      const unicode::Character c = unicode::character_at(text, at);
      if (!unicode::is_space(c.code)) break;
      at += c.bytes;
    }
    return at;
  }

  static std::size_t before_spaces(std::string_view text, std::size_t at) {
    while (at > 0) {
      std::size_t begin = at - 1;
      while (begin > 0 && at - begin < 4 && (text[begin] & 0xc0) == 0x80) --begin;
      const std::string_view last = text.substr(begin, at - begin);
      if (detail::utf8_length(last) != static_cast<int>(last.size())) break;
      if (!unicode::is_space(unicode::character_at(last, 0).code)) break;
      at = begin;
    }
    return at;
  }

  std::vector<Token> tokens_;                 // by first byte, then the longest first
  std::array<std::size_t, 257> begins_ = {};  // of the tokens by first byte
};

}  // namespace detail

/// Byte-level byte pair encoding, with the ids of PyPI's tokenizers 0.23 for text that is UTF-8.
///
/// A byte that belongs to no UTF-8 character is a word of its own, so one token, and the text ends
/// before it and begins anew behind it. decode(encode(text, options), true) is the text again,
/// whatever bytes it has, unless the tokenizer normalises, has added tokens that take white space, or
/// lacks tokens of bytes.
///
/// May be used by any number of threads at once. Encoding takes O(n log n) for n bytes.
class BpeTokenizer {
 public:
  /// What a StreamDecoder keeps between two ids: nothing.
  struct Context {};

  /// Parts that contradict each other are an Error that names what was found.
  explicit BpeTokenizer(const BpeParts& parts)
      : source_(parts.source),
        pattern_(parts.pattern),
        nfc_(parts.nfc),
        bos_(parts.bos),
        eos_(parts.eos),
        unknown_(parts.unknown),
        adds_bos_(parts.adds_bos) {
    if (parts.tokens.empty()) fail({source_, ": tokens: expected at least one, found none"});
    if (parts.tokens.size() > most) fail_many("tokens", parts.tokens.size());
    if (parts.merges.size() > most) fail_many("merges", parts.merges.size());
    check_id(bos_, "bos", parts);
    check_id(eos_, "eos", parts);
    check_id(unknown_, "unknown", parts);
    if (adds_bos_ && bos_ < 0)
      fail({source_, ": adds_bos: expected a beginning-of-text token, found none"});
    const std::vector<BpeAddedToken> added = added_tokens(parts);
    set_texts(parts);
    std::unordered_map<std::string_view, std::int32_t> names(parts.tokens.size());
    for (std::size_t i = 0; i < parts.tokens.size(); ++i) {
      const auto [place, is_new] = names.emplace(parts.tokens[i], static_cast<std::int32_t>(i));
      if (!is_new)
        fail({source_, ": tokens ", place->second, " and ", i, " are both ",
              Quoted{parts.tokens[i]}});
    }
    for (std::size_t b = 0; b < 256; ++b) {
      std::string name;
      unicode::append(name, detail::byte_alphabet()[b]);
      const auto found = names.find(name);
      byte_ids_[b] = found != names.end() && is_mergeable(found->second) ? found->second : -1;
    }
    set_merges(parts.merges, names);
    set_words(parts.ignore_merges);
    set_added(added);
  }

  /// The ids of `text`.
  std::vector<std::int32_t> encode(std::string_view text,
                                   BpeEncodeOptions options = BpeEncodeOptions{}) const {
    if (options.add_bos && bos_ < 0) fail({source_, ": there is no beginning-of-text token"});
    std::vector<std::int32_t> ids;
    if (options.add_bos) ids.push_back(bos_);
    Merging scratch;
    const auto add = [&](std::int32_t id) { ids.push_back(id); };
    added_.split(
        text, options.parse_special,
        [&](std::string_view part) {
          std::string normalized;
          if (nfc_) part = normalized = normal_form(part);
          added_normalized_.split(
              part, options.parse_special,
              [&](std::string_view between) { encode_part(between, scratch, ids); }, add);
        },
        add);
    return ids;
  }

  /// The bytes of `ids`, whether or not they are UTF-8. Special tokens have none, or their name with
  /// `special`. An id outside the vocabulary is an Error.
  std::string decode(std::span<const std::int32_t> ids, bool special = false) const {
    std::string text;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (!contains(ids[i]))
        fail({source_, ": id ", ids[i], " at index ", i, " is outside [0, ", vocab_size(), ")"});
      if (special || !is_special(ids[i])) text += text_of(ids[i]);
    }
    return text;
  }

  /// The bytes that one id adds to a text; special tokens add none.
  std::string piece(std::int32_t id, Context&) const {
    if (!contains(id)) fail({source_, ": id ", id, " is outside [0, ", vocab_size(), ")"});
    return is_special(id) ? std::string() : std::string(text_of(id));
  }

  int vocab_size() const { return static_cast<int>(kinds_.size()); }
  /// Id of the beginning of text, -1 if there is none.
  std::int32_t bos_id() const { return bos_; }
  /// Id of the end of text, -1 if there is none. A tokenizer.json does not say it.
  std::int32_t eos_id() const { return eos_; }
  /// Whether the model expects the beginning-of-text token in front of a text.
  bool adds_bos() const { return adds_bos_; }
  /// True for a special token, which has no text.
  bool is_special(std::int32_t id) const {
    return contains(id) && kinds_[static_cast<std::size_t>(id)] == Kind::special;
  }

  /// The id of an added token, special or not, by its name; one that is absent is an Error.
  std::int32_t id_of(std::string_view name) const {
    for (std::int32_t id = 0; id < vocab_size(); ++id)
      if (const Kind kind = kinds_[static_cast<std::size_t>(id)];
          (kind == Kind::special || kind == Kind::added) && text_of(id) == name)
        return id;
    fail({source_, ": there is no added token ", Quoted{name}});
  }

 private:
  enum class Kind : unsigned char { normal, added, special, unused };
  static constexpr std::size_t most = (std::numeric_limits<std::int32_t>::max)();

  struct Merge {
    std::int32_t left, right, result;
  };
  /// Two bytes of a word begin as two symbols; merging joins neighbours.
  struct Symbol {
    std::int32_t id;              // -1: joined to one before
    std::int32_t previous, next;  // -1: none
  };
  /// What merging a word needs, kept from one to the next.
  struct Merging {
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;  // rank and position of pairs, the least first
  };

  [[noreturn]] void fail_many(const char* what, std::size_t n) const {
    fail({source_, ": ", what, ": expected at most ", most, ", found ", n});
  }
  void check_id(std::int32_t id, const char* what, const BpeParts& parts) const {
    if (id < -1 || id >= static_cast<std::int64_t>(parts.tokens.size()))
      fail({source_, ": ", what, ": expected an id in [0, ", parts.tokens.size(), "), found ", id});
  }

  bool contains(std::int32_t id) const { return id >= 0 && id < vocab_size(); }
  bool is_mergeable(std::int32_t id) const {
    const Kind kind = kinds_[static_cast<std::size_t>(id)];
    return kind == Kind::normal || kind == Kind::added;
  }
  std::string_view text_of(std::int32_t id) const {
    const auto i = static_cast<std::size_t>(id);
    return std::string_view(bytes_).substr(begins_[i], begins_[i + 1] - begins_[i]);
  }

  /// Fills kinds_ and returns the added tokens.
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
      const std::int32_t type = parts.types[i];
      if (type < 1 || type > 5)
        fail({source_, ": types: expected 1 to 5 for token ", i, ", found ", type});
      if (type == 5) kinds_[i] = Kind::unused;
      if (type >= 2 && type <= 4)
        added.push_back({.id = static_cast<std::int32_t>(i), .special = type != 4});
    }
    for (const BpeAddedToken& token : added) {
      if (token.id < 0) fail({source_, ": added tokens: expected an id, found ", token.id});
      check_id(token.id, "added tokens", parts);
      Kind& kind = kinds_[static_cast<std::size_t>(token.id)];
      if (kind != Kind::normal) fail({source_, ": added tokens: id ", token.id, " is there twice"});
      kind = token.special ? Kind::special : Kind::added;
    }
    return added;
  }

  void set_texts(const BpeParts& parts) {
    begins_.push_back(0);
    for (std::size_t i = 0; i < parts.tokens.size(); ++i) {
      const std::string_view token = parts.tokens[i];
      if (token.empty()) fail({source_, ": token ", i, " is empty"});
      if (kinds_[i] != Kind::normal)
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
                found == names.end() ? " is no token" : " is a special or unused token"});
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

  void set_added(const std::vector<BpeAddedToken>& added) {
    std::vector<detail::AddedTokens::Token> raw, normalized;
    for (const BpeAddedToken& token : added) {
      const std::string text(text_of(token.id));
      if (token.normalized)
        normalized.push_back({nfc_ ? normal_form(text) : text, token});
      else
        raw.push_back({text, token});
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

  void encode_part(std::string_view text, Merging& scratch, std::vector<std::int32_t>& ids) const {
    const auto word = [&](std::string_view bytes) { encode_word(bytes, scratch, ids); };
    unicode::split_utf8(
        text,
        [&](std::string_view valid) {
          switch (pattern_) {
            case BpePattern::gpt2: return detail::cut_words<BpePattern::gpt2>(valid, word);
            case BpePattern::llama3: return detail::cut_words<BpePattern::llama3>(valid, word);
            case BpePattern::smollm: return detail::cut_words<BpePattern::smollm>(valid, word);
          }
        },
        [&](char invalid) { word({&invalid, 1}); });
  }

  void encode_word(std::string_view word, Merging& scratch, std::vector<std::int32_t>& ids) const {
    const std::int32_t whole =
        words_.find(hash_of(word), [&](std::int32_t id) { return text_of(id) == word; });
    if (whole >= 0)
      ids.push_back(whole);
    else
      merge(word, scratch, ids);
  }

  /// The token of a byte.
  std::int32_t symbol_of(char c) const {
    const auto byte = static_cast<unsigned char>(c);
    if (byte_ids_[byte] >= 0) return byte_ids_[byte];
    if (unknown_ < 0)
      fail({source_, ": byte ", byte, " of the text has no token, and there is no unknown token"});
    return unknown_;
  }

  /// Joins neighbours, those of the first merge in the list first, the leftmost of these first.
  void merge(std::string_view word, Merging& scratch, std::vector<std::int32_t>& ids) const {
    if (word.size() > most) fail_many("bytes of a word", word.size());
    std::vector<Symbol>& symbols = scratch.symbols;
    std::vector<std::uint64_t>& heap = scratch.heap;
    const auto n = static_cast<std::int32_t>(word.size());
    symbols.clear();
    heap.clear();
    for (std::int32_t i = 0; i < n; ++i)
      symbols.push_back(
          {symbol_of(word[static_cast<std::size_t>(i)]), i - 1, i + 1 < n ? i + 1 : -1});
    const auto at = [&](std::int32_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
    const auto least_first = [](std::uint64_t a, std::uint64_t b) { return a > b; };
    /// The pair that begins at symbol i as an entry of the heap, if it is one to be merged.
    const auto add = [&](std::int32_t i) {
      const std::int32_t rank = rank_of(at(i).id, at(at(i).next).id);
      if (rank >= 0)
        heap.push_back(static_cast<std::uint64_t>(rank) << 32 | static_cast<std::uint32_t>(i));
      return rank >= 0;
    };
    for (std::int32_t i = 0; i + 1 < n; ++i) add(i);
    std::make_heap(heap.begin(), heap.end(), least_first);
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), least_first);
      const Merge& entry = merges_[static_cast<std::size_t>(heap.back() >> 32)];
      const auto i = static_cast<std::int32_t>(heap.back() & 0xffffffffu);
      heap.pop_back();
      Symbol& left = at(i);
      // One of the two may have been merged with another since.
      if (left.id != entry.left || left.next < 0 || at(left.next).id != entry.right) continue;
      Symbol& right = at(left.next);
      left.id = entry.result;
      left.next = right.next;
      right.id = -1;
      if (left.next >= 0) {
        at(left.next).previous = i;
        if (add(i)) std::push_heap(heap.begin(), heap.end(), least_first);
      }
      if (left.previous >= 0 && add(left.previous))
        std::push_heap(heap.begin(), heap.end(), least_first);
    }
    for (std::int32_t i = n > 0 ? 0 : -1; i >= 0; i = at(i).next) ids.push_back(at(i).id);
  }

  std::string source_;
  BpePattern pattern_;
  bool nfc_;
  std::int32_t bos_, eos_, unknown_;
  bool adds_bos_;
  std::string bytes_;                // of all tokens, by id
  std::vector<std::size_t> begins_;  // where those of a token begin
  std::vector<Kind> kinds_;          // by id
  std::array<std::int32_t, 256> byte_ids_ = {};
  std::vector<Merge> merges_;  // by rank
  detail::HashedIndices merge_indices_, words_;
  detail::AddedTokens added_, added_normalized_;
};

}  // namespace samba::inline SAMBA_TARGET
