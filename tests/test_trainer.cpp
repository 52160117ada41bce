// The steps of a training: what they compute, and what they do where numbers run away.
#include "tests/catch.hpp"
#include "tests/training.hpp"

using namespace samba_test;

namespace {

using Model = TrainedModel;

struct Case {
  TempDir folder;
  std::shared_ptr<const TokenFile> data = some_tokens(folder.file("tokens"));
};

/// The tensor of this name.
template <class R>
TensorRef<R> tensor(const Weights<Model, Master<R>>& weights, const std::string& name) {
  const auto names = tensor_names(weights);
  const auto at = std::find(names.begin(), names.end(), name) - names.begin();
  return weights.tensors().at(static_cast<std::size_t>(at));
}

Weights<Model, Master<float>> weights_with(const std::string& name, float value) {
  Weights<Model, Master<float>> weights;
  initialize(weights, 1);
  static_cast<float*>(tensor(weights, name).data)[0] = value;
  return weights;
}

}  // namespace

TEST_CASE("Trainer: a step is one of AdamW with the gradients of a batch") {
  const Case c;
  auto options = few_tokens();
  options.seed = 5;
  options.adamw = {.weight_decay = 0.3, .groups = {{.pattern = "*.norm*", .frozen = true}}};
  Trainer<Model> trainer(c.data, options);

  Weights<Model, Master<float>> master, gradients;
  Weights<Model, float> weights;
  initialize(master, 5);
  Batches batches(c.data, {.sequences = 2, .seq_len = 12, .seed = 5});
  Gradient<Model> gradient({.sequences = 2, .tokens = 24});
  AdamW<Model> optimiser(options.adamw);
  for (int i = 1; i <= 5; ++i) {
    assign(weights, master);
    gradients.clear();
    const double loss = gradient.add(weights, batches.next(), gradients);
    const double rate = options.learning_rate.at(i);
    const double norm = optimiser.step(master, gradients, rate);
    const TrainStep step = trainer.step();
    CAPTURE(i);
    CHECK(step.step == i);
    CHECK(step.loss == Approx(loss).epsilon(1e-6));
    CHECK(step.gradient_norm == Approx(norm).epsilon(1e-5));
    CHECK(step.learning_rate == rate);
    CHECK(step.tokens == 24);
    CHECK(step.seconds > 0);
    CHECK((step.finite && !step.skipped && step.checkpoint.empty()));
    CHECK(trainer.steps() == i);
    CHECK(trainer.batches().position() == 2 * i);
    CHECK(trainer.tokens() == 24 * i);
  }
  CHECK(relative_error(numbers(trainer.master()), numbers(master)) < 1e-5);
  CHECK(same_bits(numbers(trainer.weights()), numbers(trainer.master())));
}

TEST_CASE("Trainer: the loss falls, and ends with the steps of the learning rate") {
  const Case c;
  Trainer<Model> trainer(c.data, few_tokens());
  std::vector<double> losses;
  while (!trainer.done()) losses.push_back(trainer.step().loss);
  REQUIRE(losses.size() == 40);
  const auto mean = [](auto begin, auto end) { return std::accumulate(begin, end, 0.) / 5; };
  CHECK(mean(losses.begin(), losses.begin() + 5) == Approx(std::log(32.)).epsilon(0.05));
  CHECK(mean(losses.end() - 5, losses.end()) < 3);
}

TEST_CASE("Trainer: batches accumulate to the mean over all of their targets") {
  const Case c;
  auto whole = few_tokens();
  whole.sequences = 6;
  whole.restart_at_separators = true;
  auto parts = whole;
  parts.sequences = 2;
  parts.accumulate = 3;
  Trainer<Model, double> one(c.data, whole), three(c.data, parts);
  // The batches have different numbers of targets: a mean of their means is another number.
  Batches batches(c.data, {.sequences = 2, .seq_len = 12, .restart_at_separators = true});
  std::vector<std::int64_t> counts(3);
  for (auto& n : counts)
    for (const Example& e : batches.next())
      n += std::count_if(e.targets.begin(), e.targets.end(), [](auto t) { return t >= 0; });
  REQUIRE((counts[0] != counts[1] || counts[1] != counts[2]));
  for (int i = 0; i < 3; ++i) {
    const TrainStep a = one.step(), b = three.step();
    CHECK(b.loss == Approx(a.loss).epsilon(1e-12));
    CHECK(b.gradient_norm == Approx(a.gradient_norm).epsilon(1e-12));
    CHECK(b.tokens == a.tokens);
    CHECK(relative_error(numbers(three.master()), numbers(one.master())) < 1e-9);
  }
}

TEST_CASE("Trainer: the same bits for any number of threads, and with recompute") {
  const Case c;
  auto options = few_tokens();
  options.accumulate = 2;
  std::vector<float> expected;
  for (const int threads : {1, 2, 3})
    for (const bool recompute : {false, true}) {
      options.threads = threads;
      options.recompute = recompute;
      Trainer<Model> trainer(c.data, options);
      for (int i = 0; i < 3; ++i) trainer.step();
      const auto found = numbers(trainer.master());
      if (expected.empty()) expected = found;
      CAPTURE(threads, recompute);
      CHECK(same_result(found, expected));
    }
}

TEST_CASE("Trainer: states carried from window to window, an epoch in pieces side by side") {
  const Case c;
  auto options = few_tokens();
  options.carry_states = true;
  options.accumulate = 2;
  options.sequences = 8;  // 31 windows of 12 for each
  Trainer<Model> trainer(c.data, options);

  Weights<Model, Master<float>> master, gradients;
  Weights<Model, float> weights;
  initialize(master, 0);
  Gradient<Model> gradient({.sequences = 8, .tokens = 96});
  AdamW<Model> optimiser;
  std::vector<std::int32_t> all(static_cast<std::size_t>(c.data->size()));
  c.data->read(0, all);
  int window = 0;
  for (int i = 1; i <= 20; ++i) {  // over the end of the first epoch, in the middle of a step
    assign(weights, master);
    gradients.clear();
    double loss = 0;
    for (int part = 0; part < 2; ++part, ++window) {
      if (window % 31 == 0) gradient.reset();
      std::vector<Example> examples;
      for (int s = 0; s < 8; ++s) {
        const auto at = std::span(all).subspan(static_cast<std::size_t>(s * 31 + window % 31) * 12);
        examples.push_back({at.first(12), at.subspan(1, 12)});
      }
      loss += gradient.add(weights, examples, gradients, 0.5) / 2;
      gradient.carry();
    }
    const TrainStep step = trainer.step();
    CAPTURE(i);
    CHECK(step.loss == Approx(loss).epsilon(1e-5));
    optimiser.step(master, gradients, options.learning_rate.at(i));
  }
  CHECK(relative_error(numbers(trainer.master()), numbers(master)) < 1e-4);

  const auto make = [&](auto change) {
    auto other = options;
    change(other);
    Trainer<Model> unused(c.data, other);
  };
  CHECK_MESSAGE_OF(make([](auto& o) { o.restart_at_separators = true; }), "in_order");
  struct Full : LanguageModel<HybridStack<DModel<16>, Attention<AttentionOptions{.n_heads = 2}>>,
                              golden::tied(32)> {};
  CHECK_MESSAGE_OF(Trainer<Full>(c.data, options), "TrainOptions::carry_states", "full attention");
}

TEST_CASE("Trainer: a step in which nothing is finite begins states anew, an error keeps them") {
  const Case c;
  auto options = few_tokens();
  options.carry_states = true;
  options.non_finite = NonFinite::skip;
  options.non_finite_limit = 1;
  Trainer<Model> trainer(c.data, options, weights_with("transformer.h.0.norm.weight", 3e38f));
  CHECK(trainer.step().skipped);
  for (int i = 0; i < 2; ++i) CHECK_MESSAGE_OF(trainer.step(), "step 2", "non_finite_limit");
  CHECK(trainer.batches().position() == 2);
}

TEST_CASE("Trainer: weights of the loss, in all batches of a step") {
  const Case c;
  Random rng;
  CAPTURE(rng.seed);
  std::vector<std::int32_t> ids(600);
  for (auto& id : ids) id = rng.below(32);
  std::vector<float> counts(600);
  for (float& x : counts) x = static_cast<float>(rng.below(3)) / 2;
  TokenFileWriter writer(c.folder.file("weighted"), 32, -1, true);
  writer.append(ids, counts);
  writer.close();
  const auto data = std::make_shared<const TokenFile>(c.folder.file("weighted"));
  auto whole = few_tokens();
  whole.sequences = 6;
  auto parts = whole;
  parts.sequences = 2;
  parts.accumulate = 3;
  Trainer<Model, double> one(data, whole), three(data, parts);
  for (int i = 0; i < 3; ++i) {
    const TrainStep a = one.step(), b = three.step();
    CHECK(b.loss == Approx(a.loss).epsilon(1e-12));
    CHECK(relative_error(numbers(three.master()), numbers(one.master())) < 1e-9);
  }
  Batches batches(data, {.sequences = 6, .seq_len = 12});
  Gradient<Model, double> gradient({.sequences = 6, .tokens = 72});
  Weights<Model, double> weights;
  Weights<Model, Master<double>> master, unused;
  initialize(master, 0);
  assign(weights, master);
  const double expected = gradient.add(weights, batches.next(), unused);
  CHECK((Trainer<Model, double>(data, whole).step().loss == Approx(expected).epsilon(1e-12)));
}

TEST_CASE("Trainer: several files, a rate of one's own, norms of tensors") {
  const Case c;
  const auto more = some_tokens(c.folder.file("more"), 2, 500);
  Trainer<Model> trainer({{c.data, 3}, {more, 1}}, few_tokens());
  const auto before = numbers(trainer.master());
  CHECK(trainer.step(0).learning_rate == 0);
  CHECK(same_bits(numbers(trainer.master()), before));
  CHECK(trainer.step(0.5).learning_rate == 0.5);
  CHECK(relative_error(numbers(trainer.master()), before) > 0.1);
  const double nan = std::bit_cast<double>(0x7ff8000000000000u);
  CHECK_MESSAGE_OF(trainer.step(nan), "Trainer::step: learning_rate");

  const TrainStep step = trainer.step();
  const auto norms = tensor_norms(trainer.gradients());
  CHECK(norms.size() == trainer.master().tensors().size());
  double squares = 0;
  for (const TensorNorm& n : norms) squares += n.norm * n.norm;
  CHECK(step.gradient_norm == Approx(std::sqrt(squares)));
  CHECK(norms[0].name == "transformer.wte.weight");
  double first = 0;
  for (const float x : elements(trainer.gradients().tensors()[0]))
    first += static_cast<double>(x) * static_cast<double>(x);
  CHECK(norms[0].norm == Approx(std::sqrt(first)));
}

TEST_CASE("Trainer: begins with given weights") {
  const Case c;
  const auto weights = [] { return weights_with("transformer.ln_f.weight", 7); };
  const Trainer<Model> trainer(c.data, few_tokens(), weights());
  CHECK(same_bits(numbers(trainer.master()), numbers(weights())));
  CHECK(same_bits(numbers(trainer.weights()), numbers(weights())));
}

TEST_CASE("Trainer: numbers that are not finite stop the run, or leave the step out") {
  const Case c;
  const auto weights = [] { return weights_with("transformer.h.0.norm.weight", 3e38f); };
  auto options = few_tokens();
  SECTION("stop") {
    Trainer<Model> trainer(c.data, options, weights());
    for (int i = 0; i < 2; ++i) {  // an error changes nothing
      CHECK_MESSAGE_OF(trainer.step(), "step 1: the loss is ", "the norm of the gradients ",
                       "first in transformer.ln_f.weight", "there is no checkpoint to return to");
      CHECK(trainer.steps() == 0);
      CHECK(trainer.batches().position() == 0);
      CHECK(same_bits(numbers(trainer.master()), numbers(weights())));
    }
  }
  SECTION("stop, with frozen tensors and a checkpoint") {
    options.adamw.groups = {{.pattern = "*.ln_f.*", .frozen = true},
                            {.pattern = "*.h.2.swa.*", .frozen = true}};
    options.checkpoints = c.folder.file("run");
    Trainer<Model> trainer(c.data, options, weights());
    trainer.save();
    CHECK_MESSAGE_OF(trainer.step(), "first in transformer.h.2.norm.weight",
                     "the checkpoint to return to is ", "run/step-00000000");
  }
  SECTION("skip") {
    options.non_finite = NonFinite::skip;
    Trainer<Model> trainer(c.data, options, weights());
    const TrainStep step = trainer.step();
    CHECK((!step.finite && step.skipped && !step.outlier));
    CHECK(trainer.steps() == 1);
    CHECK(trainer.optimiser().steps() == 0);
    CHECK(trainer.batches().position() == 2);
    CHECK(same_bits(numbers(trainer.master()), numbers(weights())));
  }
  SECTION("skip, but not for ever, and not anew after a checkpoint") {
    options.non_finite = NonFinite::skip;
    options.non_finite_limit = 3;
    options.checkpoints = c.folder.file("run");
    {
      Trainer<Model> trainer(c.data, options, weights());
      CHECK((trainer.step().skipped && trainer.step().skipped));
      trainer.save();
    }
    auto trainer = Trainer<Model>::resume(latest_checkpoint(options.checkpoints), c.data, options);
    CHECK(trainer.step().skipped);
    for (int i = 0; i < 2; ++i) {
      CHECK_MESSAGE_OF(trainer.step(), "step 4: the loss is ", "the last 3 steps were skipped",
                       "step-00000002");
      CHECK((trainer.steps() == 3 && trainer.batches().position() == 6));
    }
  }
}

TEST_CASE("RunningStatistics: all numbers equally, then exponential weights") {
  Random rng;
  CAPTURE(rng.seed);
  const OutlierOptions options{.z_limit = 0, .horizon = 10, .warmup_steps = 2};
  RunningStatistics found;
  std::vector<double> values, weights;
  for (int i = 1; i <= 30; ++i) {
    values.push_back(rng.uniform(1, 2));
    const double weight = 1. / std::min(i, 10);
    for (double& w : weights) w *= 1 - weight;
    weights.push_back(weight);
    found.add(values.back(), options);
    double mean = 0, variance = 0;
    for (std::size_t k = 0; k < values.size(); ++k) mean += weights[k] * values[k];
    for (std::size_t k = 0; k < values.size(); ++k)
      variance += weights[k] * (values[k] - mean) * (values[k] - mean);
    CHECK(found.mean == Approx(mean).epsilon(1e-12));
    CHECK(found.variance == Approx(variance).epsilon(1e-9).margin(1e-12));
    CHECK(found.count == i);
    const double z = found.z(3, options);
    CHECK(z == Approx(i < 2 ? 0 : (3 - mean) / std::sqrt(variance)).epsilon(1e-6));
  }
}

TEST_CASE("RunningStatistics: outliers count as the largest number that is none") {
  const OutlierOptions options{.z_limit = 3, .horizon = 10, .warmup_steps = 4};
  const auto around_one = [&](double other) {
    RunningStatistics s;
    for (int i = 0; i < 20; ++i) s.add(i % 2 ? 1.1 : 0.9, options);
    s.add(other, options);
    return s;
  };
  CHECK(around_one(1).z(1e6, options) > 1e5);
  CHECK(around_one(1e6).mean == around_one(2).mean);
  CHECK(around_one(1e6).mean > around_one(1).mean);
  CHECK(around_one(-5).mean < 0.5);  // below the mean nothing stands out
  // Numbers that stay where they went are soon none.
  RunningStatistics s = around_one(100);
  int outliers = 0;
  for (int i = 0; i < 100; ++i) {
    outliers += s.z(100, options) > options.z_limit;
    s.add(100, options);
  }
  CHECK(outliers > 0);
  CHECK(outliers < 50);
  RunningStatistics same;
  for (int i = 0; i < 10; ++i) same.add(5, options);
  CHECK(same.z(5, options) == 0);
  CHECK(same.z(5.1, options) > 1000);
}

TEST_CASE("Trainer: steps that stand out are reported, or left out") {
  const Case c;
  auto options = few_tokens();
  options.outliers = {.z_limit = 0.5, .horizon = 5, .warmup_steps = 3};
  for (const bool skip : {false, true}) {
    CAPTURE(skip);
    options.outliers.skip = skip;
    Trainer<Model> trainer(c.data, options);
    RunningStatistics loss, norm;
    int outliers = 0;
    for (int i = 0; i < 15; ++i) {
      const auto before = numbers(trainer.master());
      const TrainStep step = trainer.step();
      CHECK(step.loss_z == Approx(loss.z(step.loss, options.outliers)).margin(1e-9));
      CHECK(step.gradient_norm_z ==
            Approx(norm.z(step.gradient_norm, options.outliers)).margin(1e-9));
      CHECK(step.outlier == (std::max(step.loss_z, step.gradient_norm_z) > 0.5));
      CHECK(step.skipped == (skip && step.outlier));
      CHECK(same_bits(numbers(trainer.master()), before) == step.skipped);
      loss.add(step.loss, options.outliers);
      norm.add(step.gradient_norm, options.outliers);
      outliers += step.outlier;
    }
    CHECK(outliers > 0);
    CHECK(outliers < 12);
    CHECK(trainer.optimiser().steps() == (skip ? 15 - outliers : 15));
  }
}

TEST_CASE("training_bytes counts what a Trainer takes") {
  const Case c;
  auto options = few_tokens();
  const auto check = [&]<class T>(T) {
    for (const bool recompute : {false, true})
      for (const bool restart : {false, true}) {
        CAPTURE(recompute, restart);
        options.recompute = recompute;
        options.restart_at_separators = restart;
        const Trainer<Model, T> trainer(c.data, options);
        CHECK(training_bytes<Model, T>(options, trainer.batches().examples()) == trainer.bytes());
        if (!restart) CHECK(training_bytes<Model, T>(options) == trainer.bytes());
      }
  };
  check(float{});
  check(double{});
  // Of models that this machine could not train.
  options.sequences = 4;
  options.seq_len = 4096;
  const auto large = training_bytes<presets::Samba421M, bf16>(options);
  CHECK(large > 18 * presets::Samba421M::parameters);
  CHECK(large < 500 * presets::Samba421M::parameters);
  // 64 documents that begin anew hardly take more than 4: no state of them is kept.
  CHECK(training_bytes<presets::Samba421M, bf16>(options, 64) < large + large / 100);
}

TEST_CASE("Trainer: options and data that do not fit") {
  const Case c;
  const auto make = [&](auto change) {
    auto options = few_tokens();
    change(options);
    Trainer<Model> unused(c.data, options);
  };
  CHECK_MESSAGE_OF(make([](auto& o) { o.accumulate = 0; }), "TrainOptions::accumulate",
                   "at least 1, found 0");
  CHECK_MESSAGE_OF(make([](auto& o) { o.threads = -1; }), "TrainOptions::threads", "found -1");
  CHECK_MESSAGE_OF(make([](auto& o) { o.non_finite_limit = -1; }), "TrainOptions::non_finite_limit",
                   "found -1");
  CHECK_MESSAGE_OF(make([](auto& o) { o.keep = -1; }), "TrainOptions::keep", "found -1");
  CHECK_MESSAGE_OF(make([](auto& o) { o.checkpoint_interval = -1; }),
                   "TrainOptions::checkpoint_interval", "found -1");
  CHECK_MESSAGE_OF(make([](auto& o) { o.checkpoint_interval = 1; }), "TrainOptions::checkpoints");
  CHECK_MESSAGE_OF(make([](auto& o) { o.learning_rate.steps = 0; }), "LearningRate::steps");
  CHECK_MESSAGE_OF(make([](auto& o) { o.outliers.z_limit = -1; }), "OutlierOptions::z_limit");
  CHECK_MESSAGE_OF(make([](auto& o) { o.outliers.horizon = 1; }), "OutlierOptions::horizon");
  CHECK_MESSAGE_OF(make([](auto& o) { o.sequences = 0; }), "sequences", "found 0");
  CHECK_MESSAGE_OF(make([](auto& o) { o.adamw.clip = -1; }), "AdamWOptions::clip");
  auto endless = few_tokens();
  endless.seq_len = INT64_MAX;
  CHECK_MESSAGE_OF(training_bytes<Model>(endless),
                   "TrainOptions: sequences, seq_len: ", std::to_string(INT64_MAX));
  Trainer<Model> trainer(c.data, few_tokens());
  CHECK_MESSAGE_OF(trainer.save(), "Trainer::save", "TrainOptions{.checkpoints = ...}");

  TokenFileWriter writer(c.folder.file("more"), 33);
  writer.append(std::vector<std::int32_t>(100, 1));
  writer.close();
  const auto more = std::make_shared<const TokenFile>(c.folder.file("more"));
  CHECK_MESSAGE_OF(Trainer<Model>(more, few_tokens()), "more: vocab_size: expected at most",
                   "32, found 33");
}
