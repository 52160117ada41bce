#pragma once
#include <samba/core/random.hpp>
#include <samba/train/gradient.hpp>
#include <samba/train/token_file.hpp>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// A token file and its weight. Its share of the windows is its weight over the sum of all weights.
struct DataSource {
  std::shared_ptr<const TokenFile> file;
  double weight = 1;
};

/// The token file, or files, from which batches are read.
struct DataSources {
  std::vector<DataSource> all;

  template <class File>
    requires std::is_same_v<const File, const TokenFile>
  DataSources(std::shared_ptr<File> file) : all{{std::move(file)}} {}
  DataSources(std::nullptr_t) {}
  DataSources(std::vector<DataSource> several) : all(std::move(several)) {}
  DataSources(std::initializer_list<DataSource> several) : all(several) {}
};

struct BatchOptions {
  int sequences = 8;           ///< windows per batch
  std::int64_t seq_len = 512;  ///< tokens, and targets, per window
  std::uint64_t seed = 0;      ///< for the order
  /// Each document in a window becomes a separate Example: state and attention start empty. Its
  /// last token, the separator, is a target like any other; the token after the separator is not.
  bool restart_at_separators = false;
  /// Sequence i of each batch continues that of the previous batch, so that states can be carried
  /// from batch to batch: the file is divided into as many pieces as there are sequences, which are
  /// read in parallel, from the beginning in every epoch. Only for a single file, and without
  /// restarts.
  bool in_order = false;
};

/// Training batches for a Gradient: windows of a token file at multiples of seq_len, in which each
/// token's target is the next token. Every epoch takes each window once, in an order that depends
/// on the seed and the epoch; batches continue across the end of an epoch. Tokens at the end of the
/// file that do not fill a window (with the target of its last token) are left out.
///
/// With several files, each has its own epochs and gets its share, by weight, of every 4096
/// windows.
class Batches {
 public:
  /// Throws, naming the file, if it has no window of that length, or no separator to restart at.
  /// With restarts, the whole file is read once to count its documents.
  Batches(DataSources data, BatchOptions options) : options_(options) {
    check_at_least("BatchOptions::sequences", options_.sequences, 1);
    check_at_least("BatchOptions::seq_len", options_.seq_len, 1);
    for (DataSource& source : data.all) add(std::move(source));
    if (sources_.empty()) fail({"Batches: expected a token file, found none"});
    constexpr const char* what = "BatchOptions: sequences, seq_len";
    const auto batch = checked_product(what, options_.sequences, options_.seq_len);
    if (options_.in_order) check_in_order();
    share_out();
    row_.resize(static_cast<std::size_t>(options_.seq_len) + 1);
    resize(tokens_, batch, what);
    resize(targets_, batch, what);
    if (weighted()) resize(weights_, batch, what);
    const auto examples = options_.restart_at_separators ? most_documents() : options_.sequences;
    if (examples > (std::numeric_limits<int>::max)())
      fail({what, ": too many documents for one batch, up to ", examples});
    resize(examples_, examples, what);
  }

  /// The next batch, valid until the next call. It has examples() examples; unused ones are empty.
  /// Throws Error if the file is damaged; the position then does not change.
  std::span<const Example> next() {
    std::fill(examples_.begin(), examples_.end(), Example{});
    auto example = examples_.begin();
    const auto n = static_cast<std::size_t>(options_.seq_len);
    for (std::size_t s = 0; s < static_cast<std::size_t>(options_.sequences); ++s) {
      const auto [source, window] = this->window(position_ + static_cast<std::int64_t>(s));
      const TokenFile& file = *sources_[source].file;
      file.read(window * options_.seq_len, row_);
      const auto tokens = std::span(tokens_).subspan(s * n, n);
      const auto targets = std::span(targets_).subspan(s * n, n);
      const auto weights =
          weights_.empty() ? std::span<float>() : std::span(weights_).subspan(s * n, n);
      std::copy(row_.begin(), row_.end() - 1, tokens.begin());
      std::copy(row_.begin() + 1, row_.end(), targets.begin());
      if (!weights.empty()) file.read_weights(window * options_.seq_len + 1, weights);
      for (std::size_t begin = 0, end; begin < n; begin = end) {
        end = document_end(file, begin);
        if (example == examples_.end())
          fail({file.path(), ": changed: it has more documents than when it was opened"});
        *example++ = {tokens.subspan(begin, end - begin), targets.subspan(begin, end - begin),
                      weights.empty() ? weights : weights.subspan(begin, end - begin)};
        if (options_.restart_at_separators && tokens[end - 1] == file.separator())
          targets[end - 1] = -1;
      }
    }
    position_ += options_.sequences;
    return examples_;
  }

  /// The number of examples in every batch, for GradientOptions::sequences. With
  /// restart_at_separators, at least the number of documents in any batch.
  int examples() const { return static_cast<int>(examples_.size()); }
  /// The number of tokens in every batch, for GradientOptions::tokens.
  std::int64_t tokens() const { return options_.sequences * options_.seq_len; }

  /// The number of windows returned since the beginning: all that is needed to resume.
  std::int64_t position() const { return position_; }
  void seek(std::int64_t position) {
    constexpr std::int64_t most = std::int64_t{1} << 62;
    if (position < 0 || position > most)
      fail({"Batches::seek: expected a position in [0, ", most, "], found ", position});
    position_ = position;
  }
  /// The number of windows of all files together.
  std::int64_t windows() const {
    std::int64_t n = 0;
    for (const Source& source : sources_) n += source.windows;
    return n;
  }
  /// True if the next batch is the first of an epoch of BatchOptions::in_order.
  bool begins_epoch() const {
    return options_.in_order && position_ / options_.sequences % piece() == 0;
  }

  std::size_t files() const { return sources_.size(); }
  const TokenFile& file(std::size_t i = 0) const { return *sources_[i].file; }
  /// The data as text: the hashes of the files, and their shares if there are several.
  std::string description() const {
    std::string text;
    for (const Source& source : sources_)
      detail::append(text, {text.empty() ? "" : ", ", source.file->hash(),
                            files() > 1 ? detail::join({" x ", source.share}) : ""});
    return text;
  }
  const BatchOptions& options() const { return options_; }

 private:
  static constexpr std::int64_t round = 4096;  // windows that the files share at a time

  struct Source {
    std::shared_ptr<const TokenFile> file;
    double weight = 1;
    // share: windows in a round; first: those of the files before it.
    std::int64_t windows = 0, share = round, first = 0;
  };
  struct Place {
    std::size_t source;
    std::int64_t window;
  };

  void add(DataSource source) {
    if (!source.file) fail({"Batches: expected a token file, found none"});
    const TokenFile& file = *source.file;
    check_option("DataSource::weight", source.weight, 1e-9, 1e9);
    const std::int64_t windows = (file.size() - 1) / options_.seq_len;
    if (windows < 1)
      fail({file.path(), ": expected more than BatchOptions::seq_len (", options_.seq_len,
            ") tokens, found ", file.size()});
    if (options_.restart_at_separators && file.separator() < 0)
      fail({file.path(),
            ": BatchOptions::restart_at_separators: the file was written without a separator"});
    sources_.push_back({std::move(source.file), source.weight, windows});
  }

  void check_in_order() const {
    if (options_.restart_at_separators || files() > 1)
      fail({"BatchOptions::in_order: expected one file, read without restart_at_separators, found ",
            files(), options_.restart_at_separators ? " with it" : ""});
    if (windows() < options_.sequences)
      fail({file().path(), ": BatchOptions::in_order: expected a window of ", options_.seq_len,
            " tokens for each of ", options_.sequences, " sequences, found ", windows()});
  }

  /// Divides a round by the weights, and hands out what rounding leaves to the largest remainders.
  void share_out() {
    double sum = 0;
    for (const Source& source : sources_) sum += source.weight;
    std::vector<std::pair<double, std::size_t>> rests;
    std::int64_t left = round;
    for (std::size_t i = 0; i < files(); ++i) {
      const double share = round * sources_[i].weight / sum;
      left -= sources_[i].share = static_cast<std::int64_t>(share);
      rests.push_back({static_cast<double>(sources_[i].share) - share, i});
    }
    std::sort(rests.begin(), rests.end());
    for (std::size_t i = 0; i < static_cast<std::size_t>(left); ++i)
      ++sources_[rests[i].second].share;
    std::int64_t first = 0;
    for (Source& source : sources_) {
      if (source.share == 0)
        fail({source.file->path(), ": DataSource::weight: expected at least 1/", round,
              " of the sum of all, ", sum, ", found ", source.weight});
      source.first = std::exchange(first, first + source.share);
    }
  }

  /// The number of windows of each sequence in an epoch, with in_order.
  std::int64_t piece() const { return windows() / options_.sequences; }

  /// The window at a position of the endless sequence of epochs.
  Place window(std::int64_t position) const {
    if (options_.in_order)
      return {0, position % options_.sequences * piece() + position / options_.sequences % piece()};
    std::size_t s = 0;
    if (files() > 1) {
      // The windows of a round, those of one file after another's, in random order.
      const auto seed = SplitMix64(~options_.seed)() + static_cast<std::uint64_t>(position / round);
      const std::int64_t number = Permutation(round, SplitMix64(seed)())(position % round);
      while (number >= sources_[s].first + sources_[s].share) ++s;
      position = position / round * sources_[s].share + number - sources_[s].first;
    }
    const std::int64_t windows = sources_[s].windows, epoch = position / windows;
    const auto seed = SplitMix64(options_.seed + s)() + static_cast<std::uint64_t>(epoch);
    return {s, Permutation(windows, SplitMix64(seed)())(position % windows)};
  }

  bool weighted() const {
    return std::any_of(sources_.begin(), sources_.end(),
                       [](const Source& source) { return source.file->weighted(); });
  }

  /// The end, within the window in row_, of the document that starts at `begin`.
  std::size_t document_end(const TokenFile& file, std::size_t begin) const {
    const auto last = row_.end() - 1;  // is only a target
    if (!options_.restart_at_separators) return row_.size() - 1;
    const auto separator =
        std::find(row_.begin() + static_cast<std::ptrdiff_t>(begin), last, file.separator());
    return static_cast<std::size_t>((std::min)(separator + 1, last) - row_.begin());
  }

  /// The most documents that a batch may have: those in the windows with the most documents.
  std::int64_t most_documents() {
    std::vector<std::int64_t> windows_of(row_.size());  // number of windows, by document count
    for (const auto& [file, weight, windows, share, first] : sources_) {
      // The number of epochs that a batch may span: each may contribute the same window.
      const std::int64_t epochs = (options_.sequences + windows - 2) / windows + 1;
      for (std::int64_t w = 0; w < windows; ++w) {
        file->read(w * options_.seq_len, row_);
        std::size_t documents = 0;
        for (std::size_t begin = 0; begin + 1 < row_.size(); begin = document_end(*file, begin))
          ++documents;
        windows_of[documents] += epochs;
      }
    }
    std::int64_t sum = 0, left = options_.sequences;
    for (std::size_t documents = row_.size(); documents-- > 0;) {
      const std::int64_t n = (std::min)(left, windows_of[documents]);
      sum += n * static_cast<std::int64_t>(documents);
      left -= n;
    }
    return sum;
  }

  BatchOptions options_;
  std::vector<Source> sources_;
  std::int64_t position_ = 0;
  std::vector<std::int32_t> row_, tokens_, targets_;
  std::vector<float> weights_;  // of the targets; empty if no file has weights
  std::vector<Example> examples_;
};

}  // namespace samba::inline SAMBA_TARGET
