#pragma once
/// \file
/// Tokenizers from SentencePiece's own files, tokenizer.model, without its library: BPE models that do not
/// normalise, as those of Llama 2, Mistral, Phi 3 and Gemma. Not part of samba.hpp. Any other model:
/// io/sentencepiece.hpp.
#include <samba/io/bpe.hpp>
#include <samba/io/mapped_file.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace samba::inline SAMBA_TARGET {
namespace detail {

/// The fields of a message in the wire format of protocol buffers, front to back.
class ProtoReader {
 public:
  /// `where` begins every message.
  ProtoReader(std::string_view bytes, const std::string& where) : rest_(bytes), where_(where) {}

  /// Goes to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    field_ = tag >> 3;
    kind_ = static_cast<int>(tag & 7);
    if (field_ == 0) broken();
    if (kind_ == 0) {
      number_ = varint();
    } else if (kind_ == 1) {
      bytes_ = take(8);
    } else if (kind_ == 2) {
      const std::uint64_t size = varint();
      if (size > rest_.size()) broken();
      bytes_ = take(static_cast<std::size_t>(size));
    } else if (kind_ == 5) {
      bytes_ = take(4);
    } else {
      broken();
    }
    return true;
  }

  std::uint64_t field() const { return field_; }
  /// The value of the field that next() went to, which must have this type.
  std::uint64_t number() const {
    if (kind_ != 0) broken();
    return number_;
  }
  std::string_view bytes() const {
    if (kind_ != 2) broken();
    return bytes_;
  }
  float real() const {
    if (kind_ != 5) broken();
    std::uint32_t bits = 0;
    for (std::size_t i = 4; i-- > 0;) bits = bits << 8 | static_cast<unsigned char>(bytes_[i]);
    return std::bit_cast<float>(bits);
  }

 private:
  [[noreturn]] void broken() const {
    fail({where_, ": expected a SentencePiece model, found other bytes"});
  }
  std::string_view take(std::size_t n) {
    if (n > rest_.size()) broken();
    const std::string_view taken = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return taken;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    broken();
  }

  std::string_view rest_;
  const std::string& where_;
  std::uint64_t field_ = 0, number_ = 0;
  int kind_ = 0;
  std::string_view bytes_;
};

/// Reads a ModelProto (sentencepiece_model.proto); the numbers are those of its fields.
class SentencePieceModel {
 public:
  SentencePieceModel(std::string_view bytes, const std::string& source) : source_(source) {
    for (ProtoReader model(bytes, source_); model.next();) {
      if (model.field() == 1) read_piece(model.bytes());
      if (model.field() == 2) read_trainer(model.bytes());
      if (model.field() == 3) read_normalizer(model.bytes());
    }
    if (tokens_.empty()) fail({source_, ": expected a SentencePiece model, found no pieces"});
    if (model_type_ != 2)
      fail({source_, ": trainer_spec.model_type: expected 2, BPE, found ", model_type_,
            other_reader});
    if (suffix_) refuse_flag("trainer_spec.treat_whitespace_as_suffix", false);
    if (normalizes_)
      fail({source_, ": normalizer_spec.precompiled_charsmap: expected none, found one",
            other_reader});
    if (removes_spaces_) refuse_flag("normalizer_spec.remove_extra_whitespaces", false);
    if (!escapes_spaces_) refuse_flag("normalizer_spec.escape_whitespaces", true);
  }

  BpeTokenizer tokenizer() const {
    BpeParts parts;
    parts.source = source_;
    parts.symbols = BpeSymbols::characters;
    parts.tokens = tokens_;
    parts.scores = scores_;
    parts.types = types_;
    parts.byte_fallback = byte_fallback_;
    parts.prefix = prefix_ ? SpacePrefix::parts : SpacePrefix::off;
    parts.fuse_unknown = true;
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      const auto id = static_cast<std::int32_t>(i);
      if (types_[i] == 2) parts.unknown = id;
      if (types_[i] == 3 && tokens_[i] == bos_) parts.bos = id;
      if (types_[i] == 3 && tokens_[i] == eos_) parts.eos = id;
    }
    return BpeTokenizer(parts);
  }

 private:
  static constexpr const char* other_reader = " (io/sentencepiece.hpp reads such models)";

  [[noreturn]] void refuse_flag(const char* name, bool expected) const {
    fail({source_, ": ", name, ": expected ", expected, ", found ", !expected, other_reader});
  }

  void read_piece(std::string_view bytes) {
    std::string_view token;
    float score = 0;
    std::uint64_t type = 1;
    for (ProtoReader piece(bytes, source_); piece.next();) {
      if (piece.field() == 1) token = piece.bytes();
      if (piece.field() == 2) score = piece.real();
      if (piece.field() == 3) type = piece.number();
    }
    tokens_.push_back(token);
    scores_.push_back(score);
    types_.push_back(type <= 6 ? static_cast<std::int32_t>(type) : 0);  // 0 is refused
  }

  void read_trainer(std::string_view bytes) {
    for (ProtoReader trainer(bytes, source_); trainer.next();) switch (trainer.field()) {
        case 3: model_type_ = trainer.number(); break;
        case 24: suffix_ = trainer.number() != 0; break;
        case 35: byte_fallback_ = trainer.number() != 0; break;
        case 46: bos_ = trainer.bytes(); break;
        case 47: eos_ = trainer.bytes(); break;
        default: break;
      }
  }

  void read_normalizer(std::string_view bytes) {
    for (ProtoReader normalizer(bytes, source_); normalizer.next();) switch (normalizer.field()) {
        case 2: normalizes_ = !normalizer.bytes().empty(); break;
        case 3: prefix_ = normalizer.number() != 0; break;
        case 4: removes_spaces_ = normalizer.number() != 0; break;
        case 5: escapes_spaces_ = normalizer.number() != 0; break;
        default: break;
      }
  }

  std::string source_;
  std::vector<std::string_view> tokens_;
  std::vector<float> scores_;
  std::vector<std::int32_t> types_;
  // What a file that does not say it means.
  std::uint64_t model_type_ = 1;
  std::string_view bos_ = "<s>", eos_ = "</s>";
  bool suffix_ = false, byte_fallback_ = false, normalizes_ = false, prefix_ = true,
       removes_spaces_ = true, escapes_spaces_ = true;
};

}  // namespace detail

/// A tokenizer from the bytes of a tokenizer.model; `source` begins every message. A model that is not BPE,
/// normalises text or removes spaces is an Error that names the field. A space in front of text is put there
/// after control tokens in the text, too. The file does not say whether the model expects the
/// beginning-of-text token.
inline BpeTokenizer parse_sentencepiece_model(std::string_view bytes, const std::string& source) {
  return detail::SentencePieceModel(bytes, source).tokenizer();
}

/// A tokenizer from a tokenizer.model file.
inline BpeTokenizer load_sentencepiece_model(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return parse_sentencepiece_model({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                                   path);
}

}  // namespace samba::inline SAMBA_TARGET
