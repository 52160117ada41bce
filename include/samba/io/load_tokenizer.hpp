#pragma once
/// \file
/// One function for the tokenizers of GGUF, tokenizer.json and tokenizer.model files. Not part of
/// samba.hpp; needs nlohmann-json.
#include <samba/io/gguf_tokenizer.hpp>
#include <samba/io/mapped_file.hpp>
#include <samba/io/sentencepiece_model.hpp>
#include <samba/io/tokenizer_json.hpp>

#include <string>
#include <string_view>

namespace samba::inline SAMBA_TARGET {

/// The tokenizer of a published model: of a GGUF file, a tokenizer.json, a tokenizer.model, or a folder with
/// one of the last two (tokenizer.json if there are both: it has the added tokens). The kind of a file is
/// found by its first bytes. Throws Error, naming what was found, if it is none of these or of a kind that
/// is not read.
inline BpeTokenizer load_tokenizer(const std::string& path) {
  if (is_directory(path)) {
    for (const char* name : {"/tokenizer.json", "/tokenizer.model"})
      if (path_exists(path + name)) return load_tokenizer(path + name);
    fail({path, ": expected a folder with tokenizer.json or tokenizer.model, found neither"});
  }
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  if (text.starts_with("GGUF")) return bpe_tokenizer(GgufFile(path));
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != text.npos && text[first] == '{') return parse_tokenizer_json(text, path);
  // The first field of a tokenizer.model is a piece.
  if (text.starts_with('\n')) return parse_sentencepiece_model(text, path);
  fail({path,
        ": expected a GGUF file, a tokenizer.json or a tokenizer.model, found a file that begins "
        "with ",
        Quoted{text.substr(0, 8)}});
}

}  // namespace samba::inline SAMBA_TARGET
