// Gradients of whole models: against float64 results of PyTorch, against central differences, and
// the laws they keep.
#include <samba/io/checkpoint_names.hpp>
#include <samba/train/adamw.hpp>
#include <samba/train/assign.hpp>
#include <samba/train/check_gradient.hpp>
#include <samba/train/gradient.hpp>

#include <map>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

template <class Model, class R>
using Masters = Weights<Model, Master<R>>;

/// The tensors of some weights, copied: as the file has them, row by row.
template <class Model, class T>
std::map<std::string, std::vector<Real<T>>> all_values(const Weights<Model, T>& weights) {
  std::map<std::string, std::vector<Real<T>>> values;
  for (const auto& tensor : weights.tensors())
    values[std::to_string(tensor.branch) + "." + tensor.name] = values_of(tensor);
  return values;
}

/// Sequences of tokens, each token's target the next.
struct Text {
  std::vector<std::vector<std::int32_t>> sequences;

  std::vector<Example> examples() const {
    std::vector<Example> all;
    for (const auto& ids : sequences)
      all.push_back({std::span(ids).first(ids.size() - 1), std::span(ids).last(ids.size() - 1)});
    return all;
  }
  std::int64_t tokens() const {
    std::int64_t n = 0;
    for (const auto& ids : sequences) n += std::ssize(ids) - 1;
    return n;
  }
};

template <class Model>
Text random_batch(Random& rng, std::initializer_list<int> lengths) {
  Text batch;
  for (const int length : lengths) batch.sequences.push_back(random_tokens<Model>(rng, length + 1));
  return batch;
}

using Golden = golden::SambaTiny;

struct GoldenCase {
  SafetensorsFile expected =
      SafetensorsFile::open(data_path("golden/samba-tiny-grad/expected.safetensors"));
  Text batch;

  GoldenCase() {
    const auto file = SafetensorsFile::open(golden::path<Golden>("expected.safetensors"));
    const auto ids = read_tensor<std::int64_t>(file, "input_ids");
    const std::size_t half = ids.size() / 2;
    for (std::size_t s = 0; s < 2; ++s)
      batch.sequences.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(s * half),
                                   ids.begin() + static_cast<std::ptrdiff_t>((s + 1) * half));
  }
};

/// The name under which the golden case has a tensor of samba-tiny.
std::string golden_name(const TensorInfo& tensor) {
  if (tensor.name == "embedding") return "transformer.wte.weight";
  if (tensor.branch < 0) return "transformer.ln_f.weight";
  const bool mlp = tensor.branch % 2 == 1, norm = tensor.name == "norm.weight";
  const std::string block = "transformer.h." + std::to_string(tensor.branch / 2) + ".";
  if (norm) return block + (mlp ? "norm_2.weight" : "norm_1.weight");
  return block + (mlp ? "mlp." : "attn.") + tensor.name;
}

template <class T>
void check_golden(double tolerance) {
  using R = Real<T>;
  const GoldenCase golden;
  const auto weights = load<Golden, T>(golden::path<Golden>("model.safetensors"));
  Gradient<Golden, T> gradient({.sequences = 2, .tokens = golden.batch.tokens()});
  Masters<Golden, R> g;
  const double loss = gradient.add(weights, golden.batch.examples(), g);
  CHECK(relative_error(std::vector{loss}, read_tensor<double>(golden.expected, "loss")) <
        tolerance);
  int count = 0;
  for (const auto& tensor : g.tensors()) {
    const std::string name = golden_name(tensor);
    CAPTURE(name);
    CHECK(relative_error(values_of(tensor), read_tensor<double>(golden.expected, "grad." + name)) <
          tolerance);
    ++count;
  }
  CHECK(count == 44);
}

/// All gradients of a model, one after another.
template <class Model, class T, class KV = Real<T>>
std::vector<Real<T>> gradients_of(const Weights<Model, T>& weights, const Text& batch,
                                  GradientOptions options) {
  options.sequences = static_cast<int>(batch.sequences.size());
  options.tokens = batch.tokens();
  Gradient<Model, T, KV> gradient(options);
  Masters<Model, Real<T>> g;
  gradient.add(weights, batch.examples(), g);
  std::vector<Real<T>> all;
  for (const auto& [name, values] : all_values(g))
    all.insert(all.end(), values.begin(), values.end());
  return all;
}

}  // namespace

TEST_CASE("gradients: golden, samba-tiny-grad") {
  SECTION("double") { check_golden<double>(1e-9); }
  SECTION("float") { check_golden<float>(5e-5); }
}

TEST_CASE("gradients: golden trajectory of AdamW") {
  const GoldenCase golden;
  const auto run = [&]<class R>(R, double first, double tolerance) {
    auto weights = load<Golden, R>(golden::path<Golden>("model.safetensors"));
    auto master = load<Golden, Master<R>>(golden::path<Golden>("model.safetensors"));
    Gradient<Golden, R> gradient({.sequences = 2, .tokens = golden.batch.tokens()});
    // The reference's every tensor of two dimensions decays.
    AdamW<Golden, R> optimiser(
        {.learning_rate = 1e-3, .groups = {{.pattern = "*.A_log", .weight_decay = 0.1}}});
    Masters<Golden, R> g;
    std::vector<double> losses, norms;
    for (int i = 0; i <= 20; ++i) {
      g.clear();
      losses.push_back(gradient.add(weights, golden.batch.examples(), g));
      if (i == 20) break;
      norms.push_back(optimiser.step(master, g));
      assign(weights, master);
    }
    CHECK(relative_error(losses, read_tensor<double>(golden.expected, "losses")) < tolerance);
    const auto expected_norms = read_tensor<double>(golden.expected, "grad_norms");
    CHECK(std::abs(norms[0] / expected_norms[0] - 1) < first);
    CHECK(relative_error(norms, expected_norms) < tolerance);
    for (const auto& tensor : master.tensors()) {
      double squares = 0;
      for (const R x : elements(tensor)) squares += static_cast<double>(x) * static_cast<double>(x);
      const std::string name = golden_name(tensor);
      CAPTURE(name);
      CHECK(relative_error(std::vector{std::sqrt(squares)},
                           read_tensor<double>(golden.expected, "final_norm." + name)) < tolerance);
    }
  };
  // Adam divides by gradients of any size, so each step enlarges the difference of the last.
  SECTION("double") { run(double{}, 1e-9, 1e-7); }
  SECTION("float") { run(float{}, 5e-5, 1e-3); }
}

TEMPLATE_TEST_CASE("gradients: central differences", "", tiny::Samba, tiny::MambaOnly,
                   tiny::AttentionOnly, tiny::Mixed, tiny::Odd, tiny::LongWindow, tiny::NoPosition,
                   tiny::MambaSwaMlp, tiny::MlpSwaMlp, tiny::MambaMlp, tiny::Llama, tiny::Optioned,
                   tiny::Recurrent, golden::SambaBf16Rope) {
  using Model = TestType;
  Random rng;
  CAPTURE(rng.seed);
  const auto weights = random_weights<Model, double>(rng.bits());
  const GradientReport report = check_gradients(weights, {.seed = rng.bits()});
  CHECK(report.checks.size() == weights.tensors().size() + 3);
  CHECK(report.wrong() == "");
}

/// out = m u + d (u of the token before), with a backward pass that may be wrong in one point.
enum class Fault { none, weights, input, states_after, states_before, segments, threads };
template <Fault fault>
struct Shift {
  static constexpr const char* name = "shift";
  static constexpr int d_model = 12;

  template <class T>
  struct Weights {
    Vector<Real<T>, d_model> now, before;
    static constexpr void visit(auto& w, auto&& f) {
      f("now", w.now);
      f("before", w.before);
    }
  };
  template <class P>
  struct State {
    Array<Real<P>, d_model> last;
    static constexpr void visit(auto& s, auto&& f) { f("last", s.last); }
  };
  template <class P>
  struct Scratch {
    static void visit(auto&, auto&&) {}
  };
  template <class P>
  using Backward = Scratch<P>;

  template <class P>
  static void forward(const Context<P>& context, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>&, In<P, d_model> u, Out<P, d_model> out) {
    const Team& team = context.device.team;
    const Range mine = team.share(d_model);
    for (const Segment& segment : context.segments)
      for (auto row = segment.first_row, end = row + segment.rows; row < end; ++row)
        for (auto c = mine.begin; c < mine.end; ++c) {
          Real<P>& last = s.last.of(segment.state)[c];
          out.row(row)[c] = w.now.data()[c] * u.row(row)[c] + w.before.data()[c] * last;
          last = u.row(row)[c];
        }
    team.barrier();
  }

  template <class P>
  static void backward(const Context<P>& context, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const State<P>& s,
                       const State<Gradients<P>>& ds, const Scratch<P>&, const Backward<P>&,
                       In<P, d_model> u, In<P, d_model> dout, Out<P, d_model> du) {
    using R = Real<P>;
    const Team& team = context.device.team;
    const Range mine =
        fault == Fault::threads && team.rank == 1 ? Range{0, 0} : team.share(d_model);
    for (const auto& [position, first, n, state] : context.segments) {
      if (n == 0) continue;
      for (auto c = mine.begin; c < mine.end; ++c) {
        R& dlast = ds.last.of(state)[c];
        for (auto row = first + n; row-- > first;) {
          const R last = row > first                ? u.row(row - 1)[c]
                         : fault == Fault::segments ? u.row(std::max<std::int64_t>(row - 1, 0))[c]
                                                    : s.last.of(state)[c];
          const R dy = dout.row(row)[c];
          g.now.data()[c] += dy * u.row(row)[c];
          g.before.data()[c] += fault == Fault::weights ? dy * u.row(row)[c] : dy * last;
          du.row(row)[c] = w.now.data()[c] * dy;
          if (fault != Fault::input) du.row(row)[c] += dlast;
          if (fault == Fault::states_after && row == first + n - 1)
            du.row(row)[c] = w.now.data()[c] * dy;
          dlast = w.before.data()[c] * dy;
        }
        if (fault == Fault::states_before) dlast = 0;
      }
    }
    team.barrier();
  }
};

TEST_CASE("gradients: the check of a layer finds what is wrong in its backward pass") {
  const auto wrong = [](auto layer) {
    return check_layer_gradients<typename decltype(layer)::type>({.lengths = {9, 14}}).wrong();
  };
  const auto of = []<Fault fault>() { return std::type_identity<Shift<fault>>(); };
  CHECK(wrong(of.template operator()<Fault::none>()) == "");
  const auto found = [&](const std::string& text, std::initializer_list<std::string> parts) {
    CAPTURE(text);
    CHECK(first_missing(text, parts) == "");
  };
  const std::string first = "transformer.h.0.shift.", last = "transformer.h.1.shift.";
  found(wrong(of.template operator()<Fault::weights>()),
        {first + "before: expected ", ", found ", last + "before"});
  found(wrong(of.template operator()<Fault::input>()), {"transformer.wte", first + "now"});
  const std::string pieces = "gradients of texts in pieces, through their states";
  const auto after = wrong(of.template operator()<Fault::states_after>()),
             before = wrong(of.template operator()<Fault::states_before>());
  CHECK((after.starts_with(pieces) && before.starts_with(pieces)));
  found(wrong(of.template operator()<Fault::segments>()), {first + "before"});
  CHECK(wrong(of.template operator()<Fault::threads>()).starts_with("gradients on 3 threads"));
  CHECK_MESSAGE_OF(check_layer_gradients<Shift<Fault::none>>({.lengths = {}}), "lengths");
  CHECK_MESSAGE_OF(check_layer_gradients<Shift<Fault::none>>({.lengths = {3, 0}}), "lengths",
                   "at least 1, found 0");
}

TEMPLATE_TEST_CASE("gradients: the same bits for any threads, blocks of the loss and recomputing",
                   "", tiny::Samba, tiny::MambaOnly, tiny::AttentionOnly, tiny::Mixed, tiny::Odd,
                   tiny::Optioned, tiny::Recurrent) {
  using Model = TestType;
  Random rng;
  CAPTURE(rng.seed);
  const Text batch = random_batch<Model>(rng, {40, 1, 75});
  const auto check = [&]<class T, class KV>(T, KV) {
    const auto weights = random_weights<Model, T>(rng.bits());
    const auto expected = gradients_of<Model, T, KV>(weights, batch, {.threads = 1});
    CHECK(std::any_of(expected.begin(), expected.end(), [](auto x) { return x != 0; }));
    for (const int threads : {1, 2, 3})
      for (const int loss_rows : {1, 7, 128})
        for (const bool recompute : {false, true}) {
          CAPTURE(threads, loss_rows, recompute);
          CHECK(
              same_result(gradients_of<Model, T, KV>(
                              weights, batch,
                              {.threads = threads, .recompute = recompute, .loss_rows = loss_rows}),
                          expected));
        }
  };
  SECTION("float") { check(float{}, float{}); }
  SECTION("bf16") { check(bf16{}, bf16{}); }
  SECTION("double") { check(double{}, double{}); }
}

TEMPLATE_TEST_CASE(
    "gradients: examples that all start anew, with the states of one layer at a time", "",
    tiny::Samba, tiny::Mixed, tiny::Odd, tiny::LongWindow, tiny::Llama, tiny::Optioned) {
  using Model = TestType;
  Random rng;
  CAPTURE(rng.seed);
  const auto weights = random_weights<Model>(rng.bits());
  const Text long_text = random_batch<Model>(rng, {40, 1, 75}),
             text = random_batch<Model>(rng, {9, 30, 2});
  const auto expected = gradients_of(weights, text, {});
  for (const int threads : {1, 3})
    for (const bool recompute : {false, true}) {
      CAPTURE(threads, recompute);
      const GradientOptions options{.sequences = 3,
                                    .tokens = long_text.tokens(),
                                    .threads = threads,
                                    .recompute = recompute,
                                    .fresh = true};
      Gradient<Model> gradient(options);
      Masters<Model, float> unused, g;
      gradient.add(weights, long_text.examples(), unused);  // leaves nothing behind
      gradient.add(weights, text.examples(), g);
      std::vector<float> found;
      for (const auto& [name, values] : all_values(g))
        found.insert(found.end(), values.begin(), values.end());
      CHECK(same_result(found, expected));
      CHECK((gradient.states().empty() && gradient.state_gradients().empty()));
      CHECK_MESSAGE_OF(gradient.carry(), "Gradient::carry", "GradientOptions::fresh");
      CHECK_MESSAGE_OF(gradient.add_earlier(weights, text.examples(), g), "add_earlier");
      gradient.positions()[1] = 100;
      CHECK_MESSAGE_OF(gradient.add(weights, text.examples(), g),
                       "example 1: expected position 0 with GradientOptions::fresh, found 100");
    }
  // A further sequence takes no more in a model of more layers.
  const auto bytes = [](auto model, int sequences) {
    return Gradient<typename decltype(model)::type>::bytes(
        {.sequences = sequences, .tokens = 64, .fresh = true});
  };
  struct Deep : LanguageModel<Repeat<9, typename Model::Stack>, golden::tied(61)> {};
  const std::type_identity<Model> model;
  const std::type_identity<Deep> deep;
  CHECK(bytes(deep, 5) - bytes(deep, 4) == bytes(model, 5) - bytes(model, 4));
}

TEMPLATE_TEST_CASE("gradients: segments whose state gradients are carried", "", tiny::Samba,
                   tiny::MambaOnly, tiny::AttentionOnly, tiny::Mixed, tiny::LongWindow,
                   tiny::Optioned) {
  using Model = TestType;
  Random rng;
  CAPTURE(rng.seed);
  const auto check = [&]<class R>(R, double tolerance) {
    const auto weights = random_weights<Model, R>(rng.bits());
    const Text whole = random_batch<Model>(rng, {150, 130});
    Gradient<Model, R> gradient({.sequences = 2, .tokens = whole.tokens()});
    Masters<Model, R> expected, found;
    const double loss = gradient.add(weights, whole.examples(), expected);

    for (const auto& cuts : {std::vector<std::size_t>{0, 60, 150}, {0, 5, 37, 101, 150}}) {
      found.clear();
      gradient.reset();
      // Forward, keeping the states between the segments; then backward from the last.
      const auto part = [&](std::size_t i) {
        std::vector<Example> examples = whole.examples();
        for (Example& e : examples) {
          const std::size_t begin = std::min(cuts[i], e.tokens.size()),
                            n = std::min(cuts[i + 1], e.tokens.size()) - begin;
          e = {e.tokens.subspan(begin, n), e.targets.subspan(begin, n)};
        }
        return examples;
      };
      const auto counted = [&](std::size_t i) {
        std::size_t n = 0;
        for (const Example& e : part(i)) n += e.tokens.size();
        return static_cast<double>(n);
      };
      const auto all = static_cast<double>(whole.tokens());
      Masters<Model, R> unused;
      std::vector<std::vector<std::byte>> states;
      std::vector<std::vector<std::int64_t>> positions;
      double sum = 0;
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        states.emplace_back(gradient.states().begin(), gradient.states().end());
        positions.emplace_back(gradient.positions().begin(), gradient.positions().end());
        sum += gradient.add(weights, part(i), unused) * counted(i) / all;
        gradient.carry();
      }
      CHECK(std::abs(sum - loss) <= tolerance * loss);
      for (std::size_t i = cuts.size() - 1; i-- > 0;) {
        std::copy(states[i].begin(), states[i].end(), gradient.states().begin());
        std::copy(positions[i].begin(), positions[i].end(), gradient.positions().begin());
        if (i + 2 == cuts.size())
          gradient.add(weights, part(i), found, counted(i) / all);
        else
          gradient.add_earlier(weights, part(i), found, counted(i) / all);
      }
      const auto a = all_values(found), b = all_values(expected);
      for (const auto& [name, values] : b) {
        CAPTURE(name, cuts.size());
        CHECK(relative_error(a.at(name), values) <= tolerance);
      }
    }
  };
  SECTION("double") { check(double{}, 1e-12); }
  SECTION("float") { check(float{}, 5e-5); }
}

TEMPLATE_TEST_CASE("gradients: vectors against the double model, over many pieces and tiles", "",
                   (std::pair<tiny::Samba, float>), (std::pair<tiny::LongWindow, float>),
                   (std::pair<tiny::LongWindow, bf16>)) {
  using Model = typename TestType::first_type;
  using KV = typename TestType::second_type;
  Random rng;
  CAPTURE(rng.seed);
  const auto weights = random_weights<Model>(rng.bits());
  Weights<Model, double> exact_weights;
  const auto from = weights.tensors();
  const auto to = exact_weights.tensors();
  for (std::size_t t = 0; t < from.size(); ++t)
    for (std::int64_t r = 0; r < from[t].rows; ++r) {
      std::vector<float> row(static_cast<std::size_t>(from[t].row_size));
      from[t].get_row(r, row.data());
      to[t].set_row(r, convert<double>(row).data());
    }
  exact_weights.derive();

  // The second texts go on from the states of the first, so that the rings are full.
  const Text texts[] = {random_batch<Model>(rng, {170, 33}), random_batch<Model>(rng, {140, 1})};
  const auto gradients = [&]<class R, class Stored>(const Weights<Model, R>& w, Stored) {
    Gradient<Model, R, Stored> gradient({.sequences = 2, .tokens = texts[0].tokens()});
    Masters<Model, R> g;
    for (const Text& text : texts) gradient.add(w, text.examples(), g), gradient.carry();
    return all_values(g);
  };
  const auto found = gradients(weights, KV());
  // A tenth of the golden case's in float; the factors of attention in bf16 are off by 2^-9.
  const double tolerance = sizeof(KV) == 2 ? 5e-3 : 5e-6;
  for (const auto& [name, values] : gradients(exact_weights, double())) {
    CAPTURE(name);
    CHECK(relative_error(found.at(name), values) <= tolerance);
  }
}

TEST_CASE("gradients: a piece without targets moves the states on and takes their gradients back") {
  using Model = tiny::Samba;
  Random rng;
  CAPTURE(rng.seed);
  const auto weights = random_weights<Model, double>(rng.bits());
  const auto ids = random_tokens<Model>(rng, 61);
  std::vector<std::int32_t> targets(ids.begin() + 1, ids.end());
  std::fill_n(targets.begin(), 25, -1);
  const auto piece = [&](std::size_t begin, std::size_t end) {
    return std::vector<Example>{{std::span(ids).subspan(begin, end - begin),
                                 std::span(targets).subspan(begin, end - begin)}};
  };
  Gradient<Model, double> gradient({.sequences = 1, .tokens = 60});
  Masters<Model, double> expected, found, unused;
  const double loss = gradient.add(weights, piece(0, 60), expected);
  const std::vector<std::byte> start(gradient.states().size());

  CHECK(gradient.add(weights, piece(0, 25), unused) == 0);
  gradient.carry();
  CHECK(std::abs(gradient.add(weights, piece(25, 60), found) - loss) < 1e-12);
  std::copy(start.begin(), start.end(), gradient.states().begin());
  gradient.positions()[0] = 0;
  gradient.add_earlier(weights, piece(0, 25), found);
  const auto values = all_values(found);
  for (const auto& [name, all] : all_values(expected)) {
    CAPTURE(name);
    CHECK(relative_error(values.at(name), all) <= 1e-12);
  }
}

TEST_CASE("gradients: weights of targets") {
  using Model = tiny::Samba;
  Random rng;
  CAPTURE(rng.seed);
  const auto weights = random_weights<Model, double>(rng.bits());
  const auto ids = random_tokens<Model>(rng, 41);
  const auto part = [&](const std::vector<std::int32_t>& targets, std::span<const float> counts) {
    return std::vector<Example>{{std::span(ids).first(40), targets, counts}};
  };
  const std::vector<std::int32_t> all(ids.begin() + 1, ids.end());
  Gradient<Model, double> gradient({.sequences = 1, .tokens = 40, .loss_rows = 16});
  const auto run = [&](const std::vector<Example>& examples) {
    Masters<Model, double> g;
    const double loss = gradient.add(weights, examples, g);
    return std::pair(loss, all_values(g));
  };
  const auto check_same = [](const auto& a, const auto& b) {
    CHECK(std::abs(a.first - b.first) <= 1e-12 * a.first);
    for (const auto& [name, values] : a.second) {
      CAPTURE(name);
      CHECK(relative_error(b.second.at(name), values) <= 1e-12);
    }
  };
  // A prompt whose weight is 0 is one without targets; a common factor changes nothing.
  auto masked = all;
  std::fill_n(masked.begin(), 17, -1);
  std::vector<float> counts(40, 0.25f);
  check_same(run(part(all, {})), run(part(all, counts)));
  std::fill_n(counts.begin(), 17, 0.f);
  check_same(run(part(masked, {})), run(part(all, counts)));
  // Loss and gradients are means by weight: linear in them.
  for (float& x : counts) x = static_cast<float>(rng.uniform(0, 3));
  const auto [loss, values] = run(part(all, counts));
  double sum = 0, expected = 0;
  std::map<std::string, std::vector<double>> expected_values;
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::vector<std::int32_t> one(40, -1);
    one[i] = all[i];
    const auto [l, g] = run(part(one, {}));
    const double weight = static_cast<double>(counts[i]);
    sum += weight;
    expected += weight * l;
    for (const auto& [name, x] : g) {
      expected_values[name].resize(x.size());
      for (std::size_t k = 0; k < x.size(); ++k) expected_values[name][k] += weight * x[k];
    }
  }
  CHECK(std::abs(loss - expected / sum) < 1e-12 * loss);
  for (auto& [name, x] : expected_values) {
    for (double& v : x) v /= sum;
    CAPTURE(name);
    CHECK(relative_error(values.at(name), x) <= 1e-11);
  }
  Masters<Model, double> g;
  counts.resize(39);
  CHECK_MESSAGE_OF(gradient.add(weights, part(all, counts), g), "no weights or as many as tokens",
                   "(40), found 39");
  counts.resize(40, -1.f);
  CHECK_MESSAGE_OF(gradient.add(weights, part(all, counts), g), "weight -1 at index 39");
}

TEST_CASE("gradients: bad input changes nothing") {
  using Model = tiny::Samba;
  const auto weights = random_weights<Model>(1);
  Gradient<Model> gradient({.sequences = 1, .tokens = 4});
  Masters<Model, float> g;
  const auto add = [&](std::vector<std::int32_t> tokens, std::vector<std::int32_t> targets) {
    gradient.add(weights, std::vector<Example>{{tokens, targets}}, g);
  };
  CHECK_MESSAGE_OF(add({1, 61}, {1, 2}), "Gradient::add: example 0: token 61", "[0, 61)");
  CHECK_MESSAGE_OF(add({1, 2}, {1, 61}), "target 61", "index 1");
  CHECK_MESSAGE_OF(add({1, -1}, {1, 2}), "token -1");
  CHECK_MESSAGE_OF(add({1, 2}, {1}), "as many targets as tokens (2), found 1");
  CHECK_MESSAGE_OF(add({1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}), "at most 4 tokens, found 5");
  CHECK_MESSAGE_OF(gradient.add(weights, {}, g), "expected 1 examples, found 0");
  CHECK_MESSAGE_OF(Gradient<Model>({.tokens = 0}), "GradientOptions::tokens: expected at least 1");
  for (const std::int64_t position : {std::int64_t{-1}, INT64_MAX}) {
    gradient.positions()[0] = position;
    CHECK_MESSAGE_OF(add({1, 2}, {1, 2}), "example 0: expected a position in [0, ",
                     "found " + std::to_string(position));
  }
  for (const auto& [name, values] : all_values(g))
    CHECK(std::all_of(values.begin(), values.end(), [](float x) { return x == 0; }));
}

TEST_CASE("gradients: sizes that overflow, or that no memory has") {
  using Model = tiny::AttentionOnly;
  using G = Gradient<Model>;
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  constexpr int int_most = std::numeric_limits<int>::max();
  const auto check = [](const GradientOptions& options, const std::string& named) {
    CHECK_MESSAGE_OF(G{options}, named, "memory");
  };
  check({.tokens = 8, .capacity = most}, "capacity");
  check({.tokens = 8, .capacity = (std::int64_t{1} << 55) + 8}, "capacity");
  check({.sequences = int_most, .tokens = 8, .capacity = std::int64_t{1} << 40}, "sequences");
  check({.tokens = 8, .capacity = 1'000'000'000'000}, "GradientOptions::capacity");
  for (const std::int64_t tokens : {most, (std::int64_t{1} << 56) + 8, std::int64_t{1} << 50})
    for (const bool recompute : {false, true}) {
      CAPTURE(tokens, recompute);
      check({.tokens = tokens, .recompute = recompute}, "tokens");
      check({.tokens = tokens, .recompute = recompute, .fresh = true}, "tokens");
    }
  // Counting takes no memory: only what cannot be counted is an error.
  CHECK_MESSAGE_OF(G::bytes({.tokens = most}), "tokens", std::to_string(most));
  CHECK_MESSAGE_OF(G::bytes({.tokens = 8, .capacity = most}), "capacity", std::to_string(most));
  CHECK(G::bytes({.tokens = std::int64_t{1} << 40}) > std::int64_t{1} << 40);
  CHECK(G::bytes({.tokens = std::int64_t{1} << 33, .loss_rows = int_most}) >
        std::int64_t{int_most} * Model::vocab_size * 4);
}
