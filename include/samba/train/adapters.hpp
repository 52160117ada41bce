#pragma once
#include <samba/core/random.hpp>
#include <samba/io/checkpoint.hpp>
#include <samba/io/file_record.hpp>
#include <samba/train/adamw.hpp>

#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

struct AdapterOptions {
  std::vector<std::string> patterns = {};  ///< for the projections' names in files, see glob_match
  int rank = 8;                            ///< r
  double alpha = 16;                       ///< B A is scaled by alpha / r
};

/// Low-rank adapters of projections (LoRA, Hu et al. 2021): a matrix W, (out, in), of weights that
/// do not change becomes
///
///   W + alpha / r B A        A: (r, in), B: (out, r)
///
/// for every projection whose name matches a pattern. Projections are the matrices of branches, but
/// not block-diagonal ones, and the head if it is not tied. Models run with the sums, and the gradients of A and B follow from
/// those of the sums, so layers know nothing about adapters. A is initialised uniformly within
/// +-1/sqrt(in), B with zeros. All results have the same bits for any number of threads.
template <class Model, class R = float>
class Adapters {
 public:
  using Master = Weights<Model, samba::Master<R>>;

  /// Throws Error if an option is out of range or a pattern matches no projection.
  explicit Adapters(const AdapterOptions& options, std::uint64_t seed = 0)
      : Adapters(options.rank, options.alpha) {
    const std::vector<Projection> all = projections();
    std::vector<std::string> names;
    for (const Projection& p : all) names.push_back(p.name);
    std::vector<char> chosen(all.size());
    if (options.patterns.empty())
      fail({"AdapterOptions::patterns: expected at least one, found none"});
    for (const std::string& pattern : options.patterns)
      for (const std::size_t i : matching_names("AdapterOptions::patterns", pattern, names))
        chosen[i] = true;
    for (std::size_t i = 0; i < all.size(); ++i)
      if (chosen[i]) add(all[i]);
    SplitMix64 random(seed);
    for (const Adapter& adapter : adapters_) {
      const double bound = 1 / std::sqrt(static_cast<double>(adapter.of.in));
      for (R& x : a(adapter)) x = static_cast<R>(bound * (2 * random.uniform() - 1));
    }
  }

  /// Reads adapters written by save(). Throws Error if the file does not hold adapters, or holds a
  /// tensor for a projection that the model does not have, a wrong shape, or a number that is not
  /// finite.
  static Adapters load(const std::string& path) {
    const auto file = SafetensorsFile::open(path);
    const FileRecord record(file, "a file of adapters");
    Adapters adapters(record.template number<int>("rank"), record.template number<double>("alpha"));
    adapters.read(file);
    return adapters;
  }

  /// Writes A and B of every projection as float32, under the names `<name without
  /// .weight>.lora_A.weight` and `.lora_B.weight`, with rank and alpha in the metadata. An existing
  /// file is replaced only once everything is written.
  void save(const std::string& path) const {
    SafetensorsWriter writer(path, {{"format", "pt"},
                                    {"samba.rank", std::to_string(rank_)},
                                    {"samba.alpha", detail::join({alpha_})}});
    for (const Adapter& adapter : adapters_)
      for (const Factor& factor : factors(adapter))
        writer.declare(factor.name, Dtype::f32, factor.shape);
    for (const Adapter& adapter : adapters_)
      for (const Factor& factor : factors(adapter)) {
        const auto numbers = std::span(numbers_).subspan(factor.at, factor.size);
        const std::vector<float> values(numbers.begin(), numbers.end());
        writer.write(factor.name, std::as_bytes(std::span(values)));
      }
    writer.finish();
  }

  /// Sets the adapted tensors of `weights` to those of `base` with the adapters added; the others
  /// do not change. weights may be base.
  template <class T>
  void apply(const Master& base, Weights<Model, T>& weights, int threads = 0) const {
    static_assert(std::is_same_v<Real<T>, R>);
    const auto from = base.tensors(), to = weights.tensors();
    threads = (std::max)(1, usable_threads(threads));
    std::int64_t longest = 0;
    for (const Adapter& adapter : adapters_)
      longest = std::max<std::int64_t>(longest, adapter.of.in);
    std::vector<R> rows_of_threads(static_cast<std::size_t>(threads * longest));
    parallel(threads, [&](const Team& team) {
      R* const row = rows_of_threads.data() + team.rank * longest;
      for (const Adapter& adapter : adapters_) {
        // The rows of a panel share cache lines.
        const Range rows = team.share(adapter.of.out, panel_width);
        for (std::int64_t i = rows.begin; i < rows.end; ++i) {
          from[adapter.of.tensor].get_row(i, row);
          add_row(adapter, i, row);
          to[adapter.of.tensor].set_row(i, row);
        }
      }
    });
  }
  /// Adds the adapters to the weights permanently.
  void merge(Master& weights, int threads = 0) const { apply(weights, weights, threads); }

  /// The gradients of numbers(), in the same order, given those of the weights with the adapters
  /// added.
  std::vector<R> gradients(const Master& dense, int threads = 0) const {
    const auto tensors = dense.tensors();
    std::vector<R> result(numbers_.size());
    parallel(usable_threads(threads), [&](const Team& team) {
      for (const Adapter& adapter : adapters_)
        add_gradients(team, adapter, static_cast<const R*>(tensors[adapter.of.tensor].data),
                      result.data());
    });
    return result;
  }

  /// All A and B, one after another: the trainable parameters.
  std::span<R> numbers() { return numbers_; }
  std::span<const R> numbers() const { return numbers_; }

  /// The projections that have an adapter, by their names in files.
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const Adapter& adapter : adapters_) all.push_back(adapter.of.name);
    return all;
  }
  int rank() const { return static_cast<int>(rank_); }
  double alpha() const { return alpha_; }

 private:
  /// A matrix that may have an adapter.
  struct Projection {
    std::string name;
    std::size_t tensor = 0;  ///< in Weights::tensors()
    std::int64_t out = 0, in = 0;
  };
  struct Adapter {
    Projection of;
    std::size_t a = 0, b = 0;  ///< where A and B begin in numbers_
  };
  /// A or B, as stored in a file.
  struct Factor {
    std::string name;
    Shape shape;
    std::size_t at, size;
  };

  Adapters(int rank, double alpha) : rank_(rank), alpha_(alpha) {
    check_option("AdapterOptions::rank", rank, 1, 4096);
    check_option("AdapterOptions::alpha", alpha, 1e-6, 1e6);
  }

  static std::vector<Projection> projections() {
    const Master weights;
    const auto tensors = weights.tensors();
    const std::vector<std::string> names = tensor_names(weights);
    std::vector<Projection> all;
    for (std::size_t t = 0; t < tensors.size(); ++t)
      if (tensors[t].is_matrix && tensors[t].shape.size() == 2 &&
          (tensors[t].branch >= 0 || tensors[t].name == "head"))
        all.push_back({names[t], t, tensors[t].rows, tensors[t].row_size});
    return all;
  }

  void add(const Projection& of) {
    const std::size_t begin = numbers_.size();
    adapters_.push_back({of, begin, begin + static_cast<std::size_t>(rank_ * of.in)});
    resize(numbers_, std::ssize(numbers_) + rank_ * (of.in + of.out), "AdapterOptions::rank");
  }

  std::span<R> a(const Adapter& adapter) {
    return std::span(numbers_).subspan(adapter.a, adapter.b - adapter.a);
  }

  std::vector<Factor> factors(const Adapter& adapter) const {
    std::string stem = adapter.of.name;
    if (stem.ends_with(".weight")) stem.resize(stem.size() - 7);
    return {{stem + ".lora_A.weight", {rank_, adapter.of.in}, adapter.a, adapter.b - adapter.a},
            {stem + ".lora_B.weight",
             {adapter.of.out, rank_},
             adapter.b,
             static_cast<std::size_t>(adapter.of.out * rank_)}};
  }

  [[gnu::cold]] void read(const SafetensorsFile& file) {
    std::size_t known = 0;
    for (const Projection& projection : projections()) {
      const auto tensors = factors({projection});
      if (!file.find(tensors[0].name) && !file.find(tensors[1].name)) continue;
      add(projection);
      for (const Factor& factor : factors(adapters_.back())) {
        read(file, factor);
        ++known;
      }
    }
    if (file.tensors().empty()) fail({file.path(), ": expected adapters, found no tensor"});
    if (known == file.tensors().size()) return;
    for (const TensorView& tensor : file.tensors())
      if (!is_factor(tensor.name))
        fail({file.path(), ": tensor ", Quoted{tensor.name},
              ": expected an adapter of a projection of the model ", structure<Model>(),
              ", found none of this name"});
  }
  [[gnu::cold]] void read(const SafetensorsFile& file, const Factor& factor) {
    const TensorView* const stored = file.find(factor.name);
    if (!stored)
      fail({file.path(), ": tensor ", Quoted{factor.name}, ": expected ", factor.shape,
            ", found none of this name"});
    if (stored->shape != factor.shape)
      fail({file.path(), ": tensor ", Quoted{factor.name}, ": expected ", factor.shape,
            " by the model and the rank of ", rank_, ", found ", stored->shape});
    const auto values = std::span(numbers_).subspan(factor.at, factor.size);
    read_floats(*stored, 0, values);
    if (const std::size_t k = detail::first_not_finite<R>(values); k < values.size())
      fail({file.path(), ": tensor ", Quoted{factor.name}, ": element ", k, " is not finite"});
  }
  [[gnu::cold]] bool is_factor(std::string_view name) const {
    for (const Adapter& adapter : adapters_)
      for (const Factor& factor : factors(adapter))
        if (factor.name == name) return true;
    return false;
  }

  R scale() const { return static_cast<R>(alpha_ / static_cast<double>(rank_)); }

  // Not inlined, so that the arithmetic is compiled once, as in AdamW.

  /// row += row i of alpha / r B A.
  [[gnu::noinline]] void add_row(const Adapter& adapter, std::int64_t i, R* __restrict row) const {
    const R* const b = numbers_.data() + adapter.b + i * rank_;
    for (std::int64_t j = 0; j < rank_; ++j) {
      const R* const a = numbers_.data() + adapter.a + j * adapter.of.in;
      const R factor = scale() * b[j];
      for (std::int64_t k = 0; k < adapter.of.in; ++k) row[k] += factor * a[k];
    }
  }

  /// dB = alpha / r G Aᵀ by rows, dA = alpha / r Bᵀ G by columns. G: (out, in).
  [[gnu::noinline]] void add_gradients(const Team& team, const Adapter& adapter, const R* G,
                                       R* __restrict result) const {
    const auto [out, in] = std::pair(adapter.of.out, adapter.of.in);
    const R *const A = numbers_.data() + adapter.a, *const B = numbers_.data() + adapter.b;
    R *const dA = result + adapter.a, *const dB = result + adapter.b;
    const Range rows = team.share(out), columns = team.share(in, vector_floats);
    for (std::int64_t i = rows.begin; i < rows.end; ++i)
      for (std::int64_t j = 0; j < rank_; ++j)
        dB[i * rank_ + j] = scale() * static_cast<R>(detail::dot(G + i * in, A + j * in, in));
    for (std::int64_t i = 0; i < out; ++i)
      for (std::int64_t j = 0; j < rank_; ++j) {
        const R factor = scale() * B[i * rank_ + j];
        for (std::int64_t k = columns.begin; k < columns.end; ++k)
          dA[j * in + k] += factor * G[i * in + k];
      }
  }

  std::int64_t rank_;
  double alpha_;
  std::vector<Adapter> adapters_;
  std::vector<R> numbers_;
};

/// AdamW for the parameters of adapters; the weights that they adapt do not change.
template <class Model, class R = float>
class AdapterAdamW {
 public:
  /// Throws Error if an option is out of range or groups of tensors are given: those are for
  /// weights.
  explicit AdapterAdamW(AdamWOptions options = AdamWOptions{}) : options_(std::move(options)) {
    detail::check_options(options_);
    if (!options_.groups.empty())
      fail({"AdapterAdamW: AdamWOptions::groups: expected none, found ", options_.groups.size()});
  }

  /// One step with the learning rate in the options, or the given one, from the gradients of the
  /// weights with the adapters added. Returns the norm of the adapters' gradients before clipping;
  /// if it is not finite, nothing changes.
  double step(Adapters<Model, R>& adapters, const Weights<Model, Master<R>>& dense) {
    return step(adapters, dense, options_.learning_rate);
  }
  double step(Adapters<Model, R>& adapters, const Weights<Model, Master<R>>& dense,
              double learning_rate) {
    const std::vector<R> gradients = adapters.gradients(dense, options_.threads);
    const std::int64_t n = std::ssize(gradients);
    const double norm = std::sqrt(detail::dot(gradients.data(), gradients.data(), n));
    if (!is_finite(static_cast<float>(norm))) return norm;
    if (steps_ == 0) {
      mean_.resize(gradients.size());
      square_.resize(gradients.size());
    }
    if (mean_.size() != gradients.size())
      fail({"AdapterAdamW::step: expected adapters of ", mean_.size(),
            " numbers, as before, found ", gradients.size()});
    const detail::AdamWStep<R> update(options_, ++steps_, norm, learning_rate,
                                      options_.weight_decay);
    update(gradients.data(), n, adapters.numbers().data(), mean_.data(), square_.data());
    return norm;
  }

  std::int64_t steps() const { return steps_; }

 private:
  AdamWOptions options_;
  std::int64_t steps_ = 0;
  std::vector<R> mean_, square_;  // running means of the gradients and their squares
};

}  // namespace samba::inline SAMBA_TARGET
