#pragma once
/// \file
/// Tokenizers from the metadata of GGUF files, and the chat templates of models that publish theirs there.
#include <samba/io/bpe.hpp>
#include <samba/io/gguf.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// The tokens of a GGUF file, and what else its metadata says of them.
class GgufVocabulary {
 public:
  explicit GgufVocabulary(const GgufFile& file) : file_(file), metadata_(file.metadata()) {
    parts_.source = file.path();
    tokens_ = copy<std::string_view>("tokenizer.ggml.tokens");
    types_ = copy<std::int32_t>("tokenizer.ggml.token_type");
    const std::string_view model = metadata_.get<std::string_view>("tokenizer.ggml.model");
    if (model == "gpt2")
      set_bytes();
    else if (model == "llama")
      set_characters();
    else
      fail({file.path(), ": tokenizer.ggml.model: expected gpt2 or llama, found ", Quoted{model}});
    parts_.tokens = tokens_;
    parts_.types = types_;
    parts_.bos = id("tokenizer.ggml.bos_token_id");
    parts_.eos = id("tokenizer.ggml.eos_token_id");
    parts_.adds_bos = metadata_.get<bool>("tokenizer.ggml.add_bos_token", model == "llama");
  }

  BpeTokenizer tokenizer() const { return BpeTokenizer(parts_); }

 private:
  template <class T>
  std::vector<T> copy(std::string_view key) const {
    using Stored = std::conditional_t<std::is_integral_v<T>, std::int64_t, T>;
    std::vector<T> values;
    for (const Stored value : metadata_.array<Stored>(key)) values.push_back(static_cast<T>(value));
    return values;
  }

  std::int32_t id(std::string_view key) const {
    const std::int64_t value = metadata_.get<std::int64_t>(key, -1);
    if (value < -1 || value >= std::ssize(tokens_))
      fail({file_.path(), ": ", key, ": expected an id below ", tokens_.size(), ", found ", value});
    return static_cast<std::int32_t>(value);
  }

  /// Checks that the metadata asks for nothing that is not done.
  void expect_false(std::string_view key) const {
    if (metadata_.get<bool>(key, false))
      fail({file_.path(), ": ", key, ": expected false, found true"});
  }

  /// Byte-level BPE. Bytes without a token are an Error when they are encoded: the file's unknown token may
  /// be one that ends a text.
  void set_bytes() {
    merges_ = copy<std::string_view>("tokenizer.ggml.merges");
    parts_.merges = merges_;
    parts_.set_pre(metadata_.get<std::string_view>("tokenizer.ggml.pre"));
    expect_false("tokenizer.ggml.add_space_prefix");
  }

  /// SentencePiece's BPE. What metadata does not say is as llama.cpp has it.
  void set_characters() {
    scores_ = copy<float>("tokenizer.ggml.scores");
    parts_.symbols = BpeSymbols::characters;
    parts_.scores = scores_;
    parts_.byte_fallback = std::find(types_.begin(), types_.end(), 6) != types_.end();
    parts_.unknown = id("tokenizer.ggml.unknown_token_id");
    parts_.fuse_unknown = true;
    if (metadata_.get<bool>("tokenizer.ggml.add_space_prefix", true))
      parts_.prefix = SpacePrefix::parts;
    expect_false("tokenizer.ggml.remove_extra_whitespaces");
    if (metadata_.contains("tokenizer.ggml.precompiled_charsmap"))
      fail({file_.path(), ": tokenizer.ggml.precompiled_charsmap: expected none, found one"});
  }

  const GgufFile& file_;
  const GgufMetadata& metadata_;
  std::vector<std::string_view> tokens_, merges_;
  std::vector<std::int32_t> types_;
  std::vector<float> scores_;
  BpeParts parts_;
};

}  // namespace detail

/// The tokenizer of a GGUF file: byte-level BPE where tokenizer.ggml.model is gpt2, SentencePiece's BPE
/// where it is llama. Throws Error, naming the file and the field, if it is of another kind or its parts
/// contradict each other.
///
/// Of SentencePiece's, user-defined tokens are found in the text first, the longest from the left, control
/// tokens where the caller asks for special ones. A space in front, if the file asks for it, is put at the
/// beginning of a text and after control tokens in it.
inline BpeTokenizer bpe_tokenizer(const GgufFile& file) {
  return detail::GgufVocabulary(file).tokenizer();
}

/// One turn of a conversation. role: system, user or assistant.
struct ChatMessage {
  std::string_view role, content;
};

/// The ids of a conversation as SmolLM2-Instruct was trained on them, up to where the assistant is to
/// answer. A conversation that does not begin with a system message gets the model's own. Contents are
/// text: what looks like a special token in them is not one. Throws Error if the vocabulary has no
/// <|im_start|> and <|im_end|>.
inline std::vector<std::int32_t> smollm2_chat(const BpeTokenizer& tokenizer,
                                              std::span<const ChatMessage> messages) {
  const std::int32_t start = tokenizer.id_of("<|im_start|>"), end = tokenizer.id_of("<|im_end|>");
  std::vector<std::int32_t> ids;
  const auto add = [&](std::string_view role, std::string_view content, bool ends) {
    ids.push_back(start);
    std::string text(role);
    text += '\n';
    text += content;
    const auto encoded = tokenizer.encode(text, {.parse_special = false});
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    if (!ends) return;
    ids.push_back(end);
    const auto line = tokenizer.encode("\n");
    ids.insert(ids.end(), line.begin(), line.end());
  };
  if (messages.empty() || messages[0].role != "system")
    add("system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face", true);
  for (const auto& [role, content] : messages) add(role, content, true);
  add("assistant", "", false);
  return ids;
}

/// The ids of a conversation as Gemma 3 was trained on them, up to where the assistant is to answer:
/// beginning of text, then user and assistant in turn, the user first. A system message, which may only be
/// the first, stands in front of the user's first. White space around the contents of turns is left out.
/// Contents are text: what looks like a special token in them is not one. Throws Error if the roles are
/// others, or the vocabulary has no tokens of turns.
inline std::vector<std::int32_t> gemma3_chat(const BpeTokenizer& tokenizer,
                                             std::span<const ChatMessage> messages) {
  const std::int32_t start = tokenizer.id_of("<start_of_turn>"),
                     end = tokenizer.id_of("<end_of_turn>");
  std::vector<std::int32_t> ids = tokenizer.encode("", {.add_bos = true});
  const auto add = [&](const std::string& text) {
    const auto encoded = tokenizer.encode(text, {.parse_special = false});
    ids.insert(ids.end(), encoded.begin(), encoded.end());
  };
  std::string system;
  if (!messages.empty() && messages[0].role == "system") {
    system = std::string(messages[0].content) + "\n\n";
    messages = messages.subspan(1);
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& [role, content] = messages[i];
    const std::string_view expected = i % 2 == 0 ? "user" : "assistant";
    if (role != expected)
      fail({"gemma3_chat: message ", i, " after the system's: expected the role ", expected,
            ", found ", Quoted{role}});
    const std::size_t begin = unicode::after_spaces(content, 0);
    const std::size_t size = unicode::before_spaces(content, content.size()) - begin;
    ids.push_back(start);
    std::string text = i % 2 == 0 ? "user\n" : "model\n";
    if (i == 0) text += system;
    if (begin < content.size()) text += content.substr(begin, size);
    add(text);
    ids.push_back(end);
    add("\n");
  }
  ids.push_back(start);
  add("model\n");
  return ids;
}

}  // namespace samba::inline SAMBA_TARGET
