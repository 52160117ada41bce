#pragma once
/// \file
/// Tokenizers from the metadata of GGUF files, and the chat templates of models that publish theirs there.
#include <samba/io/bpe.hpp>
#include <samba/io/gguf.hpp>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// The tokenizer of a GGUF file whose tokenizer.ggml.model is gpt2: byte-level BPE. Throws Error, naming
/// the file and the field, if it is of another kind or its parts contradict each other. Bytes without a
/// token are an Error when they are encoded: the file's unknown token may be one that ends a text.
inline BpeTokenizer bpe_tokenizer(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata();
  const std::string_view model = metadata.get<std::string_view>("tokenizer.ggml.model");
  if (model != "gpt2")
    fail({file.path(), ": tokenizer.ggml.model: expected gpt2, found ", Quoted{model}});
  const auto copy = [&]<class T>(std::string_view key, T) {
    std::vector<T> values;
    if constexpr (std::is_same_v<T, std::int32_t>) {
      for (const std::int64_t value : metadata.array<std::int64_t>(key))
        values.push_back(static_cast<T>(value));
    } else {
      for (const T value : metadata.array<T>(key)) values.push_back(value);
    }
    return values;
  };
  const auto tokens = copy("tokenizer.ggml.tokens", std::string_view());
  const auto merges = copy("tokenizer.ggml.merges", std::string_view());
  const auto types = copy("tokenizer.ggml.token_type", std::int32_t{});
  const auto id = [&](std::string_view key) {
    const std::int64_t value = metadata.get<std::int64_t>(key, -1);
    if (value < -1 || value >= std::ssize(tokens))
      fail({file.path(), ": ", key, ": expected an id below ", tokens.size(), ", found ", value});
    return static_cast<std::int32_t>(value);
  };
  BpeParts parts;
  parts.source = file.path();
  parts.tokens = tokens;
  parts.merges = merges;
  parts.types = types;
  parts.set_pre(metadata.get<std::string_view>("tokenizer.ggml.pre"));
  parts.bos = id("tokenizer.ggml.bos_token_id");
  parts.eos = id("tokenizer.ggml.eos_token_id");
  parts.adds_bos = metadata.get<bool>("tokenizer.ggml.add_bos_token", false);
  if (metadata.get<bool>("tokenizer.ggml.add_space_prefix", false))
    fail({file.path(), ": tokenizer.ggml.add_space_prefix: expected false, found true"});
  return BpeTokenizer(parts);
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

}  // namespace samba::inline SAMBA_TARGET
