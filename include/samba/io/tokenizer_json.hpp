#pragma once
/// \file
/// tokenizer.json files, which PyPI's tokenizers writes, of BPE: byte-level, or made from a SentencePiece
/// model. Not part of samba.hpp; needs nlohmann-json.
#include <samba/io/bpe.hpp>
#include <samba/io/mapped_file.hpp>
#include <samba/io/parse_json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {
namespace detail {

/// The regular expression of Llama 3 as its tokenizer.json has it.
inline constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// That of Qwen 2.
inline constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Reads the fields of a tokenizer.json. All that changes ids is understood or refused.
class TokenizerJson {
 public:
  using Json = nlohmann::json;

  TokenizerJson(std::string_view text, const std::string& source) : source_(source) {
    file_ = parse_json(text, source_, "a tokenizer.json");
    expect_object(file_, "the file");
  }

  BpeTokenizer tokenizer() {
    expect_fields(file_, "",
                  {"version", "truncation", "padding", "added_tokens", "normalizer",
                   "pre_tokenizer", "post_processor", "decoder", "model"});
    for (const char* key : {"truncation", "padding"})
      if (const Json& value = optional_field(file_, key); !value.is_null())
        refuse(key, "null", value);
    parts_.source = source_;
    const Json& decoder = field(file_, "", "decoder");
    expect_object(decoder, "decoder");
    if (is_type(decoder, "ByteLevel")) {
      read_normalizer(optional_field(file_, "normalizer"));
      read_pre_tokenizer(field(file_, "", "pre_tokenizer"));
    } else {
      parts_.symbols = BpeSymbols::characters;
      const bool strips = strips_space(decoder);
      read_spaces(optional_field(file_, "normalizer"), optional_field(file_, "pre_tokenizer"));
      if (strips != (parts_.prefix != SpacePrefix::off))
        refuse("decoder", "Strip if, and only if, text gets a space in front", decoder);
    }
    read_model(field(file_, "", "model"));
    read_added(optional_field(file_, "added_tokens"));
    check_gaps();
    read_post_processor(optional_field(file_, "post_processor"));
    parts_.tokens = tokens_;
    parts_.merges = merges_;
    parts_.added = added_;
    return BpeTokenizer(parts_);
  }

 private:
  /// "<file>: <field>: expected <expected>, found <value>"
  [[noreturn]] void refuse(const std::string& name, std::string_view expected,
                           const Json& value) const {
    fail({source_, ": ", name, ": expected ", expected, ", found ", json_text(value)});
  }

  static std::string joined(const std::string& object, const std::string& key) {
    return object.empty() ? key : object + "." + key;
  }

  void expect_object(const Json& value, const std::string& name) const {
    if (!value.is_object()) refuse(name, "an object", value);
  }

  /// Checks that all fields are among those that are understood.
  void expect_fields(const Json& object, const std::string& name,
                     std::initializer_list<std::string_view> known) const {
    for (const auto& [key, value] : object.items())
      if (std::find(known.begin(), known.end(), key) == known.end())
        refuse(joined(name, key), "no such field", value);
  }

  const Json& field(const Json& object, const std::string& name, const char* key) const {
    const auto found = object.find(key);
    if (found == object.end()) fail({source_, ": ", joined(name, key), " is missing"});
    return *found;
  }
  /// The field, null if it is absent.
  static const Json& optional_field(const Json& object, const char* key) {
    static const Json null;
    const auto found = object.find(key);
    return found == object.end() ? null : *found;
  }
  bool flag(const Json& object, const std::string& name, const char* key,
            std::optional<bool> otherwise = {}) const {
    const auto found = object.find(key);
    if (found == object.end() && otherwise) return *otherwise;
    const Json& value = field(object, name, key);
    if (!value.is_boolean()) refuse(joined(name, key), "true or false", value);
    return value.get<bool>();
  }
  const std::string& text(const Json& object, const std::string& name, const char* key) const {
    const Json& value = field(object, name, key);
    if (!value.is_string()) refuse(joined(name, key), "a string", value);
    return value.get_ref<const std::string&>();
  }
  std::int32_t id(const Json& value, const std::string& name) const {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > max_id)
      refuse(name, "an id", value);
    return value.get<std::int32_t>();
  }
  const std::vector<Json>& array(const Json& object, const std::string& name,
                                 const char* key) const {
    const Json& value = field(object, name, key);
    if (!value.is_array()) refuse(joined(name, key), "an array", value);
    return value.get_ref<const Json::array_t&>();
  }

  /// Checks that the object says this type.
  void expect_type(const Json& object, const std::string& name, std::string_view type) const {
    expect_object(object, name);
    if (text(object, name, "type") != type) refuse(name, type, object);
  }
  static bool is_type(const Json& value, std::string_view type) {
    if (!value.is_object()) return false;
    const Json& found = optional_field(value, "type");
    return found.is_string() && found.get_ref<const std::string&>() == type;
  }
  /// The parts of a Sequence, whose key depends on what it is made of; else the value itself.
  std::vector<const Json*> chain(const Json& value, const std::string& name,
                                 const char* key) const {
    std::vector<const Json*> result;
    if (!is_type(value, "Sequence")) return {&value};
    for (const Json& part : array(value, name, key)) result.push_back(&part);
    return result;
  }

  void read_normalizer(const Json& value) {
    if (value.is_null()) return;
    for (const Json* part : chain(value, "normalizer", "normalizers")) {
      if (!is_type(*part, "NFC")) refuse("normalizer", "null or NFC", *part);
      parts_.nfc = true;
    }
  }

  /// A ByteLevel pre-tokenizer, which splits by the pattern of GPT-2 or not at all.
  bool is_byte_level(const Json& value, bool splits) const {
    return is_type(value, "ByteLevel") && !flag(value, "pre_tokenizer", "add_prefix_space") &&
           flag(value, "pre_tokenizer", "use_regex", true) == splits;
  }
  bool is_digits(const Json& value) const {
    return is_type(value, "Digits") && flag(value, "pre_tokenizer", "individual_digits");
  }
  bool is_split(const Json& value, std::string_view pattern) const {
    return is_type(value, "Split") &&
           optional_field(value, "pattern") == Json{{"Regex", std::string(pattern)}} &&
           optional_field(value, "behavior") == "Isolated" &&
           !flag(value, "pre_tokenizer", "invert");
  }

  void read_pre_tokenizer(const Json& value) {
    const auto parts = chain(value, "pre_tokenizer", "pretokenizers");
    if (parts.size() == 1 && is_byte_level(*parts[0], true))
      parts_.pattern = BpePattern::gpt2;
    else if (parts.size() == 2 && is_digits(*parts[0]) && is_byte_level(*parts[1], true))
      parts_.pattern = BpePattern::smollm;
    else if (parts.size() == 2 && is_split(*parts[0], llama3_pattern) &&
             is_byte_level(*parts[1], false))
      parts_.pattern = BpePattern::llama3;
    else if (parts.size() == 2 && is_split(*parts[0], qwen2_pattern) &&
             is_byte_level(*parts[1], false))
      parts_.pattern = BpePattern::qwen2;
    else
      refuse("pre_tokenizer",
             "ByteLevel with use_regex, Digits with individual_digits and that, or Split by the "
             "regular expression of Llama 3 or Qwen 2 and ByteLevel without use_regex (all without "
             "add_prefix_space)",
             value);
  }

  static bool is_replace(const Json& value, std::string_view from, std::string_view to) {
    return is_type(value, "Replace") &&
           optional_field(value, "pattern") == Json{{"String", std::string(from)}} &&
           optional_field(value, "content") == Json(to);
  }

  /// Checks the decoder of a SentencePiece model; true if it takes away a space in front of the text.
  bool strips_space(const Json& decoder) const {
    const auto parts = chain(decoder, "decoder", "decoders");
    const bool strips = parts.size() == 4 && is_type(*parts[3], "Strip") &&
                        optional_field(*parts[3], "content") == " " &&
                        optional_field(*parts[3], "start") == 1 &&
                        optional_field(*parts[3], "stop") == 0;
    if ((parts.size() != 3 && !strips) || !is_replace(*parts[0], space_symbol, " ") ||
        !is_type(*parts[1], "ByteFallback") || !is_type(*parts[2], "Fuse"))
      refuse(
          "decoder",
          "ByteLevel, or a Sequence of Replace (U+2581 by a space), ByteFallback, Fuse and perhaps "
          "Strip (one space at the start)",
          decoder);
    return strips;
  }

  /// Reads what a SentencePiece model does with spaces.
  void read_spaces(const Json& normalizer, const Json& pre_tokenizer) {
    bool replaces = false;
    if (!normalizer.is_null())
      for (const Json* part : chain(normalizer, "normalizer", "normalizers")) {
        if (is_replace(*part, " ", space_symbol) && !replaces)
          replaces = true;
        else if (is_type(*part, "Prepend") &&
                 optional_field(*part, "prepend") == Json(space_symbol) &&
                 parts_.prefix == SpacePrefix::off)
          parts_.prefix = SpacePrefix::parts;
        else
          refuse("normalizer", "null, Prepend (U+2581) and Replace (a space by U+2581)", *part);
      }
    if (!pre_tokenizer.is_null()) {
      const auto parts = chain(pre_tokenizer, "pre_tokenizer", "pretokenizers");
      // A split at spaces changes nothing where they have been replaced.
      const bool splits = parts.size() == 1 && replaces && is_type(*parts[0], "Split") &&
                          optional_field(*parts[0], "pattern") == Json{{"String", " "}};
      if (!splits && (parts.size() != 1 || replaces || parts_.prefix != SpacePrefix::off ||
                      !read_metaspace(*parts[0])))
        refuse("pre_tokenizer",
               "null, Split by a space where the normalizer replaces it, or Metaspace (U+2581, "
               "without "
               "split) where it does not",
               pre_tokenizer);
    }
    if (!replaces && !parts_.metaspace)
      refuse("normalizer", "Replace (a space by U+2581), or Metaspace as pre-tokenizer",
             normalizer);
  }

  /// Reads a pre-tokenizer Metaspace; false if it is none, or one that splits.
  bool read_metaspace(const Json& value) {
    if (!is_type(value, "Metaspace") ||
        optional_field(value, "replacement") != Json(space_symbol) ||
        flag(value, "pre_tokenizer", "split", true))
      return false;
    const std::string& scheme = text(value, "pre_tokenizer", "prepend_scheme");
    if (scheme == "always")
      parts_.prefix = SpacePrefix::parts;
    else if (scheme == "first")
      parts_.prefix = SpacePrefix::first;
    else if (scheme != "never")
      refuse("pre_tokenizer.prepend_scheme", "always, first or never", value);
    return parts_.metaspace = true;
  }

  void read_model(const Json& model) {
    expect_object(model, "model");
    expect_fields(
        model, "model",
        {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
         "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
    // Files of old versions do not say the type.
    if (model.contains("type")) expect_type(model, "model", "BPE");
    if (const Json& value = optional_field(model, "dropout"); !value.is_null() && value != 0.0)
      refuse("model.dropout", "null", value);
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const Json& value = optional_field(model, key); !value.is_null() && value != "")
        refuse(joined("model", key), "null", value);
    parts_.fuse_unknown = flag(model, "model", "fuse_unk", false);
    parts_.byte_fallback = flag(model, "model", "byte_fallback", false);
    if (parts_.symbols == BpeSymbols::bytes)
      for (const char* key : {"fuse_unk", "byte_fallback"})
        if (const Json& value = optional_field(model, key); value == true)
          refuse(joined("model", key), "false", value);
    parts_.ignore_merges = flag(model, "model", "ignore_merges", false);

    const Json& vocab = field(model, "model", "vocab");
    expect_object(vocab, "model.vocab");
    for (const auto& [token, value] : vocab.items()) {
      const std::int32_t i = id(value, "model.vocab." + token);
      put(token, i, "model.vocab");
    }
    if (const Json& value = optional_field(model, "unk_token"); !value.is_null()) {
      const auto found =
          value.is_string() ? vocab.find(value.get_ref<const std::string&>()) : vocab.end();
      if (found == vocab.end()) refuse("model.unk_token", "a token of the vocabulary", value);
      parts_.unknown = found->get<std::int32_t>();
    }

    const std::vector<Json>& merges = array(model, "model", "merges");
    merge_texts_.reserve(merges.size());
    for (const Json& merge : merges) {
      if (merge.is_string()) {
        merge_texts_.push_back(merge.get_ref<const std::string&>());
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                 merge[1].is_string()) {
        merge_texts_.push_back(merge[0].get_ref<const std::string&>() + " " +
                               merge[1].get_ref<const std::string&>());
      } else {
        refuse("model.merges[" + std::to_string(merge_texts_.size()) + "]",
               "two tokens with a space between or an array of two tokens", merge);
      }
    }
    merges_.assign(merge_texts_.begin(), merge_texts_.end());
  }

  void read_added(const Json& value) {
    if (value.is_null()) return;
    if (!value.is_array()) refuse("added_tokens", "an array", value);
    std::size_t index = 0;
    for (const Json& token : value) {
      const std::string name = "added_tokens[" + std::to_string(index++) + "]";
      expect_object(token, name);
      const std::string& content = text(token, name, "content");
      BpeAddedToken added;
      added.id = id(field(token, name, "id"), name + ".id");
      added.special = flag(token, name, "special");
      added.normalized = flag(token, name, "normalized");
      added.lstrip = flag(token, name, "lstrip");
      added.rstrip = flag(token, name, "rstrip");
      if (flag(token, name, "single_word")) refuse(name + ".single_word", "false", token);
      const Json& model = file_["model"]["vocab"];
      if (const auto found = model.find(content); found != model.end()) {
        if (found->get<std::int32_t>() != added.id)
          refuse(name + ".id", "that of the vocabulary, " + found->dump(), token);
      } else {
        put(content, added.id, "added_tokens");
      }
      added_.push_back(added);
    }
  }

  /// Notes a token; `token` stays where it is until the tokenizer is made.
  void put(const std::string& token, std::int32_t i, const char* where) {
    const auto at = static_cast<std::size_t>(i);
    if (at >= tokens_.size()) {
      // No file has ids far beyond the number of its tokens; check_gaps finds what is missing.
      if (at > file_size_limit()) fail({source_, ": ", where, ": id ", i, " is too large"});
      tokens_.resize(at + 1);
    }
    if (!tokens_[at].empty())
      fail({source_, ": ", where, ": id ", i, " is that of ", Quoted{tokens_[at]}, " and ",
            Quoted{token}});
    if (token.empty()) fail({source_, ": ", where, ": the token of id ", i, " is empty"});
    tokens_[at] = token;
  }
  /// More than the number of tokens of the file.
  std::size_t file_size_limit() const {
    return file_["model"]["vocab"].size() + optional_field(file_, "added_tokens").size();
  }
  void check_gaps() const {
    for (std::size_t i = 0; i < tokens_.size(); ++i)
      if (tokens_[i].empty())
        fail({source_, ": expected tokens for all ids in [0, ", tokens_.size(),
              "), found none for ", i});
  }

  void read_post_processor(const Json& value) {
    if (value.is_null()) return;
    for (const Json* part : chain(value, "post_processor", "processors")) {
      if (is_type(*part, "ByteLevel")) continue;  // changes offsets only
      if (!is_type(*part, "TemplateProcessing"))
        refuse("post_processor", "ByteLevel or TemplateProcessing", *part);
      read_template(*part);
    }
  }

  /// Reads a template of a single text: the text itself, or a special token and the text.
  void read_template(const Json& value) {
    const std::string name = "post_processor";
    const std::vector<Json>& pieces = array(value, name, "single");
    const auto is_text = [](const Json& piece) {
      return piece.is_object() && piece.size() == 1 && piece.contains("Sequence") &&
             optional_field(piece["Sequence"], "id") == "A";
    };
    if (pieces.size() == 1 && is_text(pieces[0])) return;
    if (pieces.size() != 2 || !pieces[0].is_object() || !pieces[0].contains("SpecialToken") ||
        !is_text(pieces[1]) || parts_.adds_bos)
      refuse(name + ".single", "a text, or one special token and a text", value["single"]);
    const Json& begin = pieces[0]["SpecialToken"];
    expect_object(begin, name + ".single[0].SpecialToken");
    const std::string& special = text(begin, name + ".single[0].SpecialToken", "id");
    const Json& all = field(value, name, "special_tokens");
    expect_object(all, name + ".special_tokens");
    const Json& entry = field(all, name + ".special_tokens", special.c_str());
    expect_object(entry, name + ".special_tokens." + special);
    const std::vector<Json>& ids = array(entry, name + ".special_tokens." + special, "ids");
    if (ids.size() != 1)
      refuse(name + ".special_tokens." + special + ".ids", "one id", entry["ids"]);
    parts_.bos = id(ids[0], name + ".special_tokens." + special + ".ids[0]");
    parts_.adds_bos = true;
  }

  static constexpr std::uint64_t max_id = 0x7ffffffe;

  std::string source_;
  Json file_;
  BpeParts parts_;
  std::vector<std::string_view> tokens_, merges_;
  std::vector<std::string> merge_texts_;
  std::vector<BpeAddedToken> added_;
};

}  // namespace detail

/// A tokenizer from the text of a tokenizer.json; `source` begins every message. What such a file may
/// say beyond byte-level BPE with the pre-tokenizers of BpePattern and the normaliser NFC, or the BPE of a
/// SentencePiece model with its spaces, is an Error that names the field. A template that puts a special
/// token before the text makes it `bos_id`.
inline BpeTokenizer parse_tokenizer_json(std::string_view text, const std::string& source) {
  return detail::TokenizerJson(text, source).tokenizer();
}

/// A tokenizer from a tokenizer.json file.
inline BpeTokenizer load_tokenizer_json(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return parse_tokenizer_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

}  // namespace samba::inline SAMBA_TARGET
