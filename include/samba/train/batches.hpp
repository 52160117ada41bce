#pragma once
#include <samba/core/random.hpp>
#include <samba/train/gradient.hpp>
#include <samba/train/token_file.hpp>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

struct BatchOptions {
  int sequences = 8;           ///< windows of a batch
  std::int64_t seq_len = 512;  ///< tokens of a window that are read, and targets
  std::uint64_t seed = 0;      ///< of the order
  /// Each document of a window becomes an Example of its own: state and attention start anew. Its
  /// last token, the separator, is a target like any other; what follows the separator is none.
  bool restart_at_separators = false;
};

/// What a Gradient is to learn from, batch by batch: windows of a token file at the multiples of
/// seq_len, with the token after each as its target. Every epoch takes each window once, in an order
/// of its own that depends on the seed; batches go on over the end of an epoch. Tokens at the end of
/// the file that fill no window (with the target of its last token) are left out.
class Batches {
 public:
  /// Throws, naming the file, where it has no window of that length, or no separator to restart at.
  /// Restarting reads the whole file once, to count its documents.
  Batches(std::shared_ptr<const TokenFile> file, BatchOptions options)
      : file_(std::move(file)), options_(options) {
    if (!file_) fail({"Batches: expected a token file, found none"});
    check_at_least("BatchOptions::sequences", options_.sequences, 1);
    check_at_least("BatchOptions::seq_len", options_.seq_len, 1);
    windows_ = (file_->size() - 1) / options_.seq_len;
    if (windows_ < 1)
      fail({file_->path(), ": expected more than BatchOptions::seq_len (", options_.seq_len,
            ") tokens, found ", file_->size()});
    if (options_.restart_at_separators && file_->separator() < 0)
      fail({file_->path(),
            ": BatchOptions::restart_at_separators: the file was written without a separator"});
    row_.resize(static_cast<std::size_t>(options_.seq_len) + 1);
    tokens_.resize(static_cast<std::size_t>(tokens()));
    targets_.resize(static_cast<std::size_t>(tokens()));
    examples_.resize(static_cast<std::size_t>(options_.restart_at_separators ? most_documents()
                                                                             : options_.sequences));
  }

  /// The next batch, valid until the next call: examples() of them, those that it does not need
  /// empty. An Error where the file is damaged; the position then stays.
  std::span<const Example> next() {
    std::fill(examples_.begin(), examples_.end(), Example{});
    auto example = examples_.begin();
    const auto n = static_cast<std::size_t>(options_.seq_len);
    for (std::size_t s = 0; s < static_cast<std::size_t>(options_.sequences); ++s) {
      file_->read(window(position_ + static_cast<std::int64_t>(s)) * options_.seq_len, row_);
      const auto tokens = std::span(tokens_).subspan(s * n, n);
      const auto targets = std::span(targets_).subspan(s * n, n);
      std::copy(row_.begin(), row_.end() - 1, tokens.begin());
      std::copy(row_.begin() + 1, row_.end(), targets.begin());
      for (std::size_t begin = 0, end; begin < n; begin = end) {
        end = document_end(begin);
        if (example == examples_.end())
          fail({file_->path(), ": changed: it has more documents now than when it was opened"});
        *example++ = {tokens.subspan(begin, end - begin), targets.subspan(begin, end - begin)};
        if (options_.restart_at_separators && tokens[end - 1] == file_->separator())
          targets[end - 1] = -1;
      }
    }
    position_ += options_.sequences;
    return examples_;
  }

  /// Examples of every batch: GradientOptions::sequences to use. With restart_at_separators, no
  /// fewer than the documents of any batch.
  int examples() const { return static_cast<int>(examples_.size()); }
  /// Tokens of every batch: GradientOptions::tokens to use.
  std::int64_t tokens() const { return options_.sequences * options_.seq_len; }

  /// Windows handed out since the beginning: all there is to go on from.
  std::int64_t position() const { return position_; }
  void seek(std::int64_t position) {
    constexpr std::int64_t most = std::int64_t{1} << 62;
    if (position < 0 || position > most)
      fail({"Batches::seek: expected a position in [0, ", most, "], found ", position});
    position_ = position;
  }
  /// Windows of an epoch.
  std::int64_t windows() const { return windows_; }

  const TokenFile& file() const { return *file_; }
  const BatchOptions& options() const { return options_; }

 private:
  /// The window at a position of the endless sequence of epochs.
  std::int64_t window(std::int64_t position) const {
    const std::int64_t epoch = position / windows_;
    const auto seed = SplitMix64(options_.seed)() + static_cast<std::uint64_t>(epoch);
    return Permutation(windows_, SplitMix64(seed)())(position % windows_);
  }

  /// The end, within the window in row_, of the document that begins there.
  std::size_t document_end(std::size_t begin) const {
    const auto last = row_.end() - 1;  // the last target only
    if (!options_.restart_at_separators) return row_.size() - 1;
    const auto separator =
        std::find(row_.begin() + static_cast<std::ptrdiff_t>(begin), last, file_->separator());
    return static_cast<std::size_t>((std::min)(separator + 1, last) - row_.begin());
  }

  /// The most documents that a batch may have: those of its share of the windows with the most.
  std::int64_t most_documents() {
    std::vector<std::int64_t> windows_of(row_.size());  // by their number of documents
    for (std::int64_t w = 0; w < windows_; ++w) {
      file_->read(w * options_.seq_len, row_);
      std::size_t documents = 0;
      for (std::size_t begin = 0; begin + 1 < row_.size(); begin = document_end(begin)) ++documents;
      ++windows_of[documents];
    }
    // The epochs that a batch may touch: each may give it the same window.
    const std::int64_t epochs = (options_.sequences + windows_ - 2) / windows_ + 1;
    std::int64_t sum = 0, left = options_.sequences;
    for (std::size_t documents = row_.size(); documents-- > 0;) {
      const std::int64_t n = (std::min)(left, windows_of[documents] * epochs);
      sum += n * static_cast<std::int64_t>(documents);
      left -= n;
    }
    return sum;
  }

  std::shared_ptr<const TokenFile> file_;
  BatchOptions options_;
  std::int64_t windows_ = 0, position_ = 0;
  std::vector<std::int32_t> row_, tokens_, targets_;
  std::vector<Example> examples_;
};

}  // namespace samba::inline SAMBA_TARGET
