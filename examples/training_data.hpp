#pragma once
// What the training programs read: a text, taken byte by byte, or a token file; its last part is
// kept for validation.
#include <samba/io/tokenizer.hpp>
#include <samba/train/token_file.hpp>

#include <filesystem>
#include <memory>

struct TrainingData {
  std::shared_ptr<const samba::TokenFile> train, validation;
};

/// Splits the tokens of a file, of which `share` are for validation, into two token files in
/// `folder`, which is made. A token file begins with its own mark; anything else is text.
inline TrainingData prepare_data(const std::string& path, const std::string& folder, double share) {
  using namespace samba;
  if (!std::filesystem::exists(path))
    fail({path,
          ": there is no such file; a text of 4 MB, on Debian and Ubuntu: "
          "sudo apt-get install bible-kjv && bible -f gen1:1-rev22:21 > bible.txt"});
  const bool is_tokens = TokenFile::is_token_file(path);
  std::filesystem::create_directories(folder);
  const std::string all_path = is_tokens ? path : folder + "/all.tokens";
  if (!is_tokens) {
    TokenFileWriter writer(all_path, 256);
    tokenize(path, ByteTokenizer{}, writer);
    writer.close();
  }
  const TokenFile all(all_path);
  const auto split =
      all.size() - static_cast<std::int64_t>(share * static_cast<double>(all.size()));
  const auto part = [&](const char* name, std::int64_t begin, std::int64_t end) {
    const std::string to = folder + "/" + name;
    TokenFileWriter writer(to, all.vocab_size(), all.separator());
    std::vector<std::int32_t> ids;
    for (std::int64_t i = begin; i < end; i += std::ssize(ids)) {
      ids.resize(static_cast<std::size_t>(std::min<std::int64_t>(end - i, 1 << 20)));
      all.read(i, ids);
      writer.append(ids);
    }
    writer.close();
    return std::make_shared<const TokenFile>(to);
  };
  return {part("train.tokens", 0, split), part("validation.tokens", split, all.size())};
}
