#pragma once
// What the training programs read: a text, taken byte by byte, or a token file; its last part is
// kept for validation.
#include "program.hpp"

#include <samba/io/folder.hpp>
#include <samba/io/tokenizer.hpp>
#include <samba/train/token_file.hpp>
#include <samba/train/trainer.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

/// A warm-up that was not given takes a tenth of the steps at most.
inline void limit_warmup(const CLI::App& app, samba::LearningRate& rate) {
  set_unless_given(app, "--warmup", rate.warmup_steps,
                   std::min(rate.warmup_steps, rate.steps / 10));
}

struct TrainingData {
  std::shared_ptr<const samba::TokenFile> train, validation;
};

/// How many windows of a length there are for validation, of those wanted; an Error where there is
/// none.
inline int validation_windows(const TrainingData& data, const std::string& text,
                              std::int64_t length, std::int64_t wanted) {
  const std::int64_t fit = (data.validation->size() - 1) / std::max<std::int64_t>(length, 1);
  if (fit < 1)
    samba::fail({text, ": expected at least ", length + 1,
                 " bytes in its last part, for validation, found ", data.validation->size()});
  return static_cast<int>(std::min(wanted, fit));
}

/// Splits the tokens of a file, of which `share` are for validation, into two token files in
/// `folder`, which is made. A token file begins with its own mark; anything else is text.
inline TrainingData prepare_data(const std::string& path, const std::string& folder, double share) {
  using namespace samba;
  if (!std::filesystem::exists(path))
    fail({path,
          ": there is no such file; a text of 4 MB, on Debian and Ubuntu: "
          "sudo apt-get install bible-kjv && bible -f gen1:1-rev22:21 > bible.txt"});
  const bool is_tokens = TokenFile::is_token_file(path);
  make_folders(folder);
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
    TokenFileWriter writer(to, all.vocab_size(), all.separator(), all.weighted());
    std::vector<std::int32_t> ids;
    std::vector<float> weights;  // none where the file has none
    for (std::int64_t i = begin; i < end; i += std::ssize(ids)) {
      ids.resize(static_cast<std::size_t>(std::min<std::int64_t>(end - i, 1 << 20)));
      all.read(i, ids);
      if (all.weighted()) {
        weights.resize(ids.size());
        all.read_weights(i, weights);
      }
      writer.append(ids, weights);
    }
    writer.close();
    return std::make_shared<const TokenFile>(to);
  };
  return {part("train.tokens", 0, split), part("validation.tokens", split, all.size())};
}
