#pragma once
/// \file
/// SentencePiece models (tokenizer.model files). Not part of samba.hpp; link with libsentencepiece.
#include <samba/io/tokenizer.hpp>

#if !__has_include(<sentencepiece_processor.h>)
#error "samba/io/sentencepiece.hpp needs libsentencepiece: apt-get install libsentencepiece-dev"
#endif
#include <sentencepiece_processor.h>

#include <memory>

namespace samba::inline SAMBA_TARGET {

/// Encodes and decodes text with a SentencePiece model file.
class SentencePieceTokenizer {
 public:
  /// The first ids of a text, as long as they affect how the next piece begins.
  struct Context {
    std::vector<int> start;
    std::size_t bytes = 0;  // of the text of `start`
  };

  /// Reads the model at `path`. Throws Error if the file is missing or is not such a model.
  explicit SentencePieceTokenizer(const std::string& path)
      : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
    check_status(processor_->Load(path),
                 path + ": expected a SentencePiece model; the library says: ");
  }

  /// The ids of `text`, preceded by the beginning-of-text id if `add_bos`. Bytes that are not UTF-8
  /// are read as U+FFFD.
  std::vector<std::int32_t> encode(std::string_view text, bool add_bos = false) const {
    if (add_bos && bos_id() < 0)
      fail({"SentencePieceTokenizer: the model has no beginning-of-text token"});
    std::vector<int> ids;
    check_status(processor_->Encode(text, &ids),
                 "SentencePieceTokenizer: cannot encode the text: ");
    if (add_bos) ids.insert(ids.begin(), bos_id());
    return ids;
  }

  /// The text of `ids`; control tokens have none. An id outside the vocabulary is an Error.
  std::string decode(std::span<const std::int32_t> ids) const {
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (!contains(ids[i])) fail_id(ids[i], " at index " + std::to_string(i));
    return text_of({ids.begin(), ids.end()});
  }

  /// The bytes that one id adds to the text of those before it.
  std::string piece(std::int32_t id, Context& context) const {
    if (!contains(id)) fail_id(id, "");
    if (processor_->IsControl(id)) return {};
    // How a piece begins depends on whether text precedes it, but not on which text. So after the
    // first text, that same text is used as the context of everything that follows.
    std::vector<int> ids = context.start;
    ids.push_back(id);
    std::string text = text_of(ids);
    const std::size_t before = context.bytes;
    if (before == 0) {
      // The model may drop a leading space; what follows depends on this id and on no earlier one.
      if (text.empty()) ids = {id};
      context = {ids, text.size()};
    }
    // Byte pieces are named <0x00> to <0xFF>; decoded alone, one may be half a character.
    if (processor_->IsByte(id))
      return std::string(
          1, static_cast<char>(std::stoi(processor_->IdToPiece(id).substr(3, 2), nullptr, 16)));
    return text.substr(before);
  }

  int vocab_size() const { return processor_->GetPieceSize(); }
  /// The beginning-of-text id, or -1 if the model has none.
  std::int32_t bos_id() const { return processor_->bos_id(); }
  /// The end-of-text id, or -1 if the model has none.
  std::int32_t eos_id() const { return processor_->eos_id(); }

 private:
  static void check_status(const sentencepiece::util::Status& status, const std::string& what) {
    if (!status.ok()) fail({what, status.ToString()});
  }

  bool contains(std::int32_t id) const { return id >= 0 && id < vocab_size(); }

  [[noreturn]] void fail_id(std::int32_t id, const std::string& where) const {
    fail({"SentencePieceTokenizer: id ", id, where, " is outside [0, ", vocab_size(), ")"});
  }

  std::string text_of(const std::vector<int>& ids) const {
    std::string text;
    check_status(processor_->Decode(ids, &text), "SentencePieceTokenizer: cannot decode the ids: ");
    return text;
  }

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace samba::inline SAMBA_TARGET
