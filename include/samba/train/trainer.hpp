#pragma once
#include <samba/io/folder_lock.hpp>
#include <samba/model/initialize.hpp>
#include <samba/train/adamw.hpp>
#include <samba/train/assign.hpp>
#include <samba/train/batches.hpp>
#include <samba/train/gradient.hpp>
#include <samba/train/learning_rate.hpp>
#include <samba/train/outliers.hpp>
#include <samba/train/run_checkpoint.hpp>
#include <samba/train/validate.hpp>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// What to do if the loss or a gradient is not finite: throw, or skip the step.
enum class NonFinite { stop, skip };

struct TrainOptions {
  int sequences = 8;                   ///< in a batch, which goes through the model together
  std::int64_t seq_len = 512;          ///< tokens per sequence
  int accumulate = 1;                  ///< batches per step
  bool restart_at_separators = false;  ///< see BatchOptions
  bool carry_states = false;           ///< consecutive windows (in_order) continue from each other
  std::uint64_t seed = 0;              ///< for the initial weights and the order of the data
  LearningRate learning_rate = {};     ///< also sets the number of steps
  AdamWOptions adamw = {};             ///< its learning rate and threads are overridden by these
  OutlierOptions outliers = {};
  NonFinite non_finite = NonFinite::stop;
  int non_finite_limit = 10;             ///< most steps in a row that are skipped
  int threads = 0;                       ///< at most the number of processors; 0: OpenMP's default
  bool recompute = false;                ///< see GradientOptions
  std::string checkpoints = {};          ///< the folder for checkpoints; "": none are written
  std::int64_t checkpoint_interval = 0;  ///< in steps; 0: only save() writes checkpoints
  int keep = 2;                          ///< number of newest checkpoints to keep; 0: all
  /// Allows resuming from a checkpoint with other options; `change_learning_rate` allows only
  /// another learning rate, for instance to train for more steps.
  bool change_options = false, change_learning_rate = false;
  /// Allows resuming on other data, which is then read from its beginning.
  bool change_data = false;
};

/// The results of a step.
struct TrainStep {
  std::int64_t step = 0;     ///< its number; the first is 1
  double loss = 0;           ///< before the step, in nats per counted target
  double gradient_norm = 0;  ///< before clipping
  double learning_rate = 0;
  std::int64_t tokens = 0;                 ///< number that went through the model
  double seconds = 0;                      ///< without the time to write a checkpoint
  double loss_z = 0, gradient_norm_z = 0;  ///< standard deviations above their running means
  bool outlier = false;                    ///< one of these exceeds OutlierOptions::z_limit
  bool finite = true;                      ///< loss and gradient_norm are finite
  bool skipped = false;                    ///< the weights did not change
  std::string checkpoint = {};             ///< the folder written after the step, or ""
  std::string checkpoint_error = {};       ///< why a checkpoint that was due failed, or ""
};

/// The results of an evaluation.
struct Evaluation {
  std::vector<Validation> losses;     ///< of validate()
  bool best = false;                  ///< the first loss is lower than that of the best so far
  std::string checkpoint = {};        ///< the folder written for it, or ""
  std::string checkpoint_error = {};  ///< why writing it failed, or ""
};

namespace detail {

inline GradientOptions gradient_options(const TrainOptions& o, int examples) {
  return {.sequences = examples,
          .tokens = checked_product("TrainOptions: sequences, seq_len", o.sequences, o.seq_len),
          .capacity = o.seq_len,
          .threads = o.threads,
          .recompute = o.recompute,
          .fresh = !o.carry_states};
}

inline AdamWOptions adamw_options(const TrainOptions& o) {
  AdamWOptions adamw = o.adamw;
  adamw.threads = o.threads;
  return adamw;
}

/// The options that affect a run's results, as text.
[[gnu::cold]] inline std::map<std::string, std::string> options_that_matter(const TrainOptions& o) {
  std::map<std::string, std::string> all;
  const auto set = [&](const char* name, Part value) { all[name] = join({value}); };
  set("sequences", o.sequences);
  set("seq_len", o.seq_len);
  set("accumulate", o.accumulate);
  set("restart_at_separators", o.restart_at_separators);
  set("carry_states", o.carry_states);
  set("seed", o.seed);
  set("learning_rate.peak", o.learning_rate.peak);
  set("learning_rate.floor", o.learning_rate.floor);
  set("learning_rate.warmup_steps", o.learning_rate.warmup_steps);
  set("learning_rate.steps", o.learning_rate.steps);
  constexpr const char* curves[] = {"cosine", "linear", "stable"};
  set("learning_rate.curve", curves[static_cast<int>(o.learning_rate.curve)]);
  set("learning_rate.decay_steps", o.learning_rate.decay_steps);
  set("adamw.beta1", o.adamw.beta1);
  set("adamw.beta2", o.adamw.beta2);
  set("adamw.eps", o.adamw.eps);
  set("adamw.weight_decay", o.adamw.weight_decay);
  set("adamw.clip", o.adamw.clip);
  set("adamw.decay", o.adamw.decay == Decay::all ? "all" : "matrices");
  std::string groups;
  for (const ParameterGroup& g : o.adamw.groups)
    append(groups, {groups.empty() ? "" : "; ", Quoted{g.pattern},
                    g.weight_decay ? join({" weight_decay ", *g.weight_decay}) : "",
                    g.rate ? join({" rate ", *g.rate}) : "",
                    g.frozen ? join({" frozen ", *g.frozen}) : ""});
  set("adamw.groups", groups);
  set("outliers.z_limit", o.outliers.z_limit);
  set("outliers.horizon", o.outliers.horizon);
  set("outliers.warmup_steps", o.outliers.warmup_steps);
  set("outliers.skip", o.outliers.skip);
  set("non_finite", o.non_finite == NonFinite::skip ? "skip" : "stop");
  set("non_finite_limit", o.non_finite_limit);
  return all;
}

}  // namespace detail

/// The size in bytes of the arenas of a Trainer with these options, computed without allocating
/// them: the master weights, their gradients, the optimiser's two means, the weights used in
/// products, the memory of Gradient, and the tokens of a batch. With restart_at_separators the
/// number of examples depends on the data: pass Batches::examples().
template <class Model, class T = float>
std::int64_t training_bytes(const TrainOptions& options, int examples = 0) {
  const std::int64_t gradient = Gradient<Model, T>::bytes(
      detail::gradient_options(options, examples ? examples : options.sequences));
  constexpr std::int64_t weights =
      4 * Model::template weight_bytes<Master<Real<T>>> + Model::template weight_bytes<T>;
  return checked_sum("a Trainer", weights, gradient);
}

/// A training run: weights, gradients, optimiser and data. T: the type of the matrices and of the
/// operands of their products; the optimiser updates weights in Real<T>. The weights after a number
/// of steps have the same bits for any number of threads, with or without recompute, and whether or
/// not the run was stopped and resumed from a checkpoint.
template <class Model, class T = float>
class Trainer {
 public:
  using R = Real<T>;
  using MasterWeights = Weights<Model, Master<R>>;

  /// Starts from random weights (initialize), or from the given ones. Throws if an option is out of
  /// range, if the data does not fit the options or the model, and if the folder already has
  /// checkpoints or another Trainer writes to it (see FolderLock).
  Trainer(DataSources data, const TrainOptions& options)
      : Trainer(std::move(data), options, MasterWeights(), nullptr) {
    initialize(master_, options_.seed);
    assign(weights_, master_, options_.threads);
  }
  Trainer(DataSources data, const TrainOptions& options, MasterWeights weights)
      : Trainer(std::move(data), options, std::move(weights), nullptr) {
    assign(weights_, master_, options_.threads);
  }
  /// Continues from a checkpoint (see latest_checkpoint). Throws if the checkpoint is for another
  /// model, other data or other options (but see TrainOptions::change_options), or damaged.
  static Trainer resume(const std::string& checkpoint, DataSources data,
                        const TrainOptions& options) {
    const RunCheckpoint from(checkpoint);
    return Trainer(std::move(data), options, MasterWeights(), &from);
  }

  /// Computes the gradients of the mean loss over all targets of the next batches, and makes a step
  /// with them. An Error leaves everything as it was. Failing to write a checkpoint that is due is
  /// not an Error: the result reports it, and the run can continue.
  TrainStep step() { return step(options_.learning_rate.at(step_ + 1)); }
  /// As step, with a learning rate from your own schedule.
  TrainStep step(double learning_rate) {
    check_option("Trainer::step: learning_rate", learning_rate, 0, 1e3);
    const auto start = std::chrono::steady_clock::now();
    const std::int64_t position = batches_.position();
    const std::span<std::byte> states = gradient_.states();
    states_before_.assign(states.begin(), states.end());
    const std::int64_t state_position = gradient_.positions()[0];
    TrainStep result{.step = step_ + 1, .learning_rate = learning_rate};
    try {
      advance(result, position);
    } catch (...) {
      batches_.seek(position);
      std::copy(states_before_.begin(), states_before_.end(), states.begin());
      set_positions(state_position);
      throw;
    }
    step_ = result.step;
    tokens_ += result.tokens;
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (options_.checkpoint_interval > 0 && step_ % options_.checkpoint_interval == 0) try {
        result.checkpoint = save();
      } catch (const std::exception& error) {
        result.checkpoint_error = error.what();
      }
    return result;
  }

  /// Writes a checkpoint of the current step to TrainOptions::checkpoints, unless there is one;
  /// returns its folder.
  std::string save() {
    if (options_.checkpoints.empty())
      fail({"Trainer::save: give TrainOptions{.checkpoints = ...}, the folder to write to"});
    if (saved_ != step_) {
      last_checkpoint_ =
          RunCheckpoint::write(options_.checkpoints, step_, options_.keep, master_,
                               optimiser_.state(), entries(), gradient_.states(), &not_removed_);
      saved_ = step_;
    }
    return last_checkpoint_;
  }

  /// The losses of the weights on held-out tokens (see validate). If the first of them is the
  /// lowest of the run so far and checkpoints are written, a checkpoint of these weights replaces
  /// the one in `<TrainOptions::checkpoints>/best`. Nothing else changes.
  Evaluation evaluate(const TokenFile& held_out,
                      const ValidationOptions& options = ValidationOptions{}) {
    Evaluation result{.losses = validate(weights_, held_out, options)};
    const double loss = result.losses.front().loss;
    result.best = is_finite(static_cast<float>(loss)) && (!best_loss_ || loss < *best_loss_);
    if (!result.best) return result;
    if (!options_.checkpoints.empty()) try {
        result.checkpoint = save_best(loss);
      } catch (const std::exception& error) {
        result.checkpoint_error = error.what();
        return result;  // the next evaluation that is better than the kept one tries again
      }
    best_loss_ = loss;
    return result;
  }
  /// The lowest loss of evaluate(), that of the kept weights, in this run and in those that it
  /// continues in the same folder, even if those got to later steps. None before the first
  /// evaluation.
  std::optional<double> best_loss() const { return best_loss_; }

  /// The number of steps made, including those of the runs that this one continues; and whether
  /// these are all.
  std::int64_t steps() const { return step_; }
  /// The number of tokens that went through the model in these steps.
  std::int64_t tokens() const { return tokens_; }
  bool done() const { return step_ >= options_.learning_rate.steps; }
  /// The newest checkpoint of this run, or "".
  const std::string& last_checkpoint() const { return last_checkpoint_; }
  /// Messages about old checkpoints, or parts of them, that could not be removed when new ones were
  /// written, one each. They are still there.
  const std::vector<std::string>& not_removed() const { return not_removed_; }

  /// The weights that products and sessions use, and the master weights they are rounded from.
  const Weights<Model, T>& weights() const { return weights_; }
  const MasterWeights& master() const { return master_; }
  /// The gradients of the last step, before clipping.
  const MasterWeights& gradients() const { return gradients_; }
  const AdamW<Model, R>& optimiser() const { return optimiser_; }
  const Batches& batches() const { return batches_; }
  const TrainOptions& options() const { return options_; }
  /// The size of the arenas in bytes; see training_bytes.
  std::int64_t bytes() const {
    return master_.bytes() + weights_.bytes() + gradients_.bytes() + gradient_.bytes() +
           optimiser_.state().mean.bytes() + optimiser_.state().square.bytes();
  }

 private:
  Trainer(DataSources data, const TrainOptions& options, MasterWeights weights,
          const RunCheckpoint* resumed)
      : options_(check_options(options)),
        lock_(options.checkpoints.empty() ? FolderLock() : FolderLock(options.checkpoints)),
        batches_(std::move(data), {.sequences = options.sequences,
                                   .seq_len = options.seq_len,
                                   .seed = options.seed,
                                   .restart_at_separators = options.restart_at_separators,
                                   .in_order = options.carry_states}),
        master_(std::move(weights)),
        optimiser_(detail::adamw_options(options)),
        gradient_(detail::gradient_options(options, batches_.examples())) {
    for (std::size_t i = 0; i < batches_.files(); ++i)
      if (const TokenFile& file = batches_.file(i); file.vocab_size() > Model::vocab_size)
        fail({file.path(), ": vocab_size: expected at most the model's, ", Model::vocab_size,
              ", found ", file.vocab_size()});
    if (options_.carry_states && Model::has_capacity)
      fail(
          {"TrainOptions::carry_states: expected a model whose states do not grow, found one with ",
           "full attention"});
    if (resumed) restore(*resumed);
    check_folder();
  }

  static const TrainOptions& check_options(const TrainOptions& o) {
    check_at_least("TrainOptions::accumulate", o.accumulate, 1);
    check_at_least("TrainOptions::threads", o.threads, 0);
    check_at_least("TrainOptions::non_finite_limit", o.non_finite_limit, 0);
    check_at_least("TrainOptions::checkpoint_interval", o.checkpoint_interval, 0);
    check_at_least("TrainOptions::keep", o.keep, 0);
    if (o.checkpoint_interval > 0 && o.checkpoints.empty())
      fail({"TrainOptions::checkpoint_interval: ", o.checkpoint_interval,
            " needs TrainOptions::checkpoints, the folder to write to"});
    o.learning_rate.check_options();
    o.outliers.check_options();
    return o;
  }

  /// Throws if the folder has checkpoints of another run.
  [[gnu::cold]] void check_folder() {
    if (options_.checkpoints.empty()) return;
    for (const auto& [step, folder] : checkpoints_in(options_.checkpoints)) {
      const bool resumed = same_file(folder, last_checkpoint_);
      if (resumed) saved_ = step;
      if (!resumed && (last_checkpoint_.empty() || step >= step_))
        fail({folder, ": this checkpoint is not from the run that begins here, at step ", step_,
              "; resume from it, or choose another folder"});
    }
    if (const std::string best = latest_checkpoint(best_folder()); !best.empty()) {
      if (last_checkpoint_.empty())
        fail({best,
              ": this checkpoint is not from the run that begins here; choose another folder"});
      best_loss_ = RunCheckpoint(best).record().template number<double>("evaluation");
    }
  }

  std::string best_folder() const { return options_.checkpoints + "/best"; }

  [[gnu::cold]] std::string save_best(double loss) {
    auto all = entries();
    all["evaluation"] = detail::join({loss});
    const std::string written =
        RunCheckpoint::write(best_folder(), step_, 0, master_, optimiser_.state(), all,
                             gradient_.states(), &not_removed_);
    // Not simply the older ones: there may be one of a later step, if a run was killed and resumed
    // from an earlier one.
    for (const auto& [step, folder] : checkpoints_in(best_folder()))
      if (step != step_) detail::retire(folder, not_removed_);
    detail::clean_up(best_folder(), 0, not_removed_);
    return written;
  }

  static void add(std::map<std::string, std::string>& all, const std::string& name,
                  const RunningStatistics& s) {
    all[name + ".count"] = std::to_string(s.count);
    all[name + ".mean"] = detail::join({s.mean});
    all[name + ".variance"] = detail::join({s.variance});
  }

  static void take(const FileRecord& record, const std::string& name, RunningStatistics& s) {
    s.count = record.number<std::int64_t>(name + ".count");
    s.mean = record.number<double>(name + ".mean");
    s.variance = record.number<double>(name + ".variance");
  }

  /// What a checkpoint records besides weights and means.
  [[gnu::cold]] std::map<std::string, std::string> entries() {
    std::map<std::string, std::string> all;
    for (const auto& [name, value] : matter()) all["option." + name] = value;
    all["step"] = std::to_string(step_);
    all["tokens"] = std::to_string(tokens_);
    all["not_finite"] = std::to_string(not_finite_);
    all["position"] = std::to_string(batches_.position());
    all["state_position"] = std::to_string(gradient_.positions()[0]);
    all["data"] = batches_.description();
    add(all, "loss", loss_);
    add(all, "gradient_norm", norm_);
    return all;
  }
  [[gnu::cold]] void restore(const RunCheckpoint& from) {
    const FileRecord record = from.record();
    from.template check_model<Model, R>();
    const bool same_data = record.text("data") == batches_.description();
    if (!same_data && !options_.change_data)
      fail({from.folder(), ": the checkpoint was made with another data file: expected ",
            batches_.description(), ", found ", record.text("data"),
            "; TrainOptions{.change_data = true} continues with it, from its beginning"});
    for (const auto& [name, value] : matter())
      if (const std::string found = record.text("option." + name);
          found != value && !options_.change_options &&
          !(options_.change_learning_rate && name.starts_with("learning_rate.")))
        fail({from.folder(), ": the checkpoint was made with another ", name, ": expected ", value,
              ", found ", found, "; TrainOptions{.change_options = true} continues anyway"});
    const std::span<std::byte> states = gradient_.states();
    const std::span<const std::byte> found = from.states();
    const bool has_states = same_data && !states.empty() && !found.empty();
    if (has_states && found.size() != states.size())
      fail({from.folder(), ": carried states: expected ", states.size(), " bytes, found ",
            found.size(), "; TrainOptions::sequences must match the checkpoint"});
    from.restore(master_, optimiser_.state());
    assign(weights_, master_, options_.threads);
    step_ = record.number<std::int64_t>("step");
    tokens_ = record.number<std::int64_t>("tokens");
    not_finite_ = record.number<std::int64_t>("not_finite");
    if (same_data) batches_.seek(record.number<std::int64_t>("position"));
    if (has_states) {
      std::copy(found.begin(), found.end(), states.begin());
      set_positions(record.number<std::int64_t>("state_position"));
    }
    take(record, "loss", loss_);
    take(record, "gradient_norm", norm_);
    last_checkpoint_ = from.folder();
  }
  std::map<std::string, std::string> matter() const {
    auto all = detail::options_that_matter(options_);
    all["type"] = dtype_name(dtype_of<T>);
    return all;
  }

  /// Sets the positions of all sequences.
  void set_positions(std::int64_t position) {
    const std::span<std::int64_t> all = gradient_.positions();
    std::fill(all.begin(), all.end(), position);
  }

  void advance(TrainStep& s, std::int64_t position) {
    const auto targets = [](std::span<const Example> examples) {
      double sum = 0;
      for (const Example& e : examples) sum += e.weight();
      return sum;
    };
    // A first pass counts the targets, so that each gets its share of the whole step.
    double counted = 0;
    for (int i = 0; i < options_.accumulate; ++i) counted += targets(batches_.next());
    batches_.seek(position);
    gradients_.clear();
    for (int i = 0; i < options_.accumulate; ++i) {
      if (batches_.begins_epoch()) gradient_.reset();
      const std::span<const Example> examples = batches_.next();
      const double share = counted > 0 ? targets(examples) / counted : 0;
      s.loss += share * gradient_.add(weights_, examples, gradients_, share);
      s.tokens += batches_.tokens();
      if (options_.carry_states) gradient_.carry();
    }
    s.gradient_norm = optimiser_.norm(gradients_);
    s.finite =
        is_finite(static_cast<float>(s.loss)) && is_finite(static_cast<float>(s.gradient_norm));
    if (!s.finite &&
        (options_.non_finite == NonFinite::stop || not_finite_ >= options_.non_finite_limit))
      fail_not_finite(s);
    not_finite_ = s.finite ? 0 : not_finite_ + 1;
    if (!s.finite) gradient_.reset();  // otherwise the states would remain non-finite
    const OutlierOptions& outliers = options_.outliers;
    if (s.finite) {
      s.loss_z = loss_.z(s.loss, outliers);
      s.gradient_norm_z = norm_.z(s.gradient_norm, outliers);
      s.outlier =
          outliers.z_limit > 0 && (std::max)(s.loss_z, s.gradient_norm_z) > outliers.z_limit;
      loss_.add(s.loss, outliers);
      norm_.add(s.gradient_norm, outliers);
    }
    s.skipped = !s.finite || (s.outlier && outliers.skip);
    if (s.skipped) return;
    optimiser_.update(master_, gradients_, s.learning_rate, s.gradient_norm);
    assign(weights_, master_, options_.threads);
  }

  [[noreturn, gnu::cold]] void fail_not_finite(const TrainStep& s) const {
    // From the last tensor to the first, the order of back-propagation.
    const auto names = tensor_names(gradients_);
    const auto tensors = gradients_.tensors();
    std::string where;
    for (std::size_t t = tensors.size(); t-- > 0 && where.empty();)
      if (const auto* const g = static_cast<const R*>(tensors[t].data); !optimiser_.frozen(t)) {
        const std::span all(g, static_cast<std::size_t>(tensors[t].rows * tensors[t].row_size));
        if (detail::first_not_finite<R>(all) < all.size())
          where = detail::join({", first in ", names[t]});
      }
    fail({"step ", s.step, ": the loss is ", s.loss, ", the norm of the gradients ",
          s.gradient_norm, where, "; ",
          not_finite_ > 0
              ? detail::join({"the last ", not_finite_,
                              " steps were skipped, as many as non_finite_limit allows; "})
              : "",
          "the weights are those before the step; ",
          last_checkpoint_.empty() ? "there is no checkpoint to return to"
                                   : "the checkpoint to return to is ",
          last_checkpoint_});
  }

  TrainOptions options_;
  FolderLock lock_;
  Batches batches_;
  MasterWeights master_, gradients_;
  Weights<Model, T> weights_;
  AdamW<Model, R> optimiser_;
  Gradient<Model, T> gradient_;
  RunningStatistics loss_, norm_;
  std::int64_t step_ = 0, tokens_ = 0, not_finite_ = 0, saved_ = -1;  // not_finite_: steps in a row
  std::optional<double> best_loss_;
  std::vector<std::byte> states_before_;  // before the last step
  std::string last_checkpoint_;
  std::vector<std::string> not_removed_;
};

}  // namespace samba::inline SAMBA_TARGET
