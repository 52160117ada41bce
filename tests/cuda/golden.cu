// Whole models through cuda::Session, matrices in float and in bf16: the golden cases against float64
// results of an independent implementation; models of other options against samba::Session in double.
// Usage: golden [MODEL]          Exit status 77 where there is no device.
#include "tests/cuda/support.cuh"
#include "tests/models.hpp"

#include <cstdio>
#include <cstring>

using namespace samba_test;

namespace {

/// True if work() throws an Error with this text.
template <class Work>
bool fails_with(Work&& work, const char* text) {
  try {
    work();
  } catch (const Error& error) {
    return std::strstr(error.what(), text) != nullptr;
  }
  return false;
}

/// The logits of all tokens, one step after the other.
template <class S>
std::vector<float> stepped(S& session, std::span<const std::int32_t> tokens) {
  std::vector<float> all;
  for (const std::int32_t token : tokens) {
    const auto logits = session.step(token);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

template <class Model, class T>
void check_type(const char* type, double tolerance) {
  const golden::Expected<Model> expected;
  const auto weights = load<Model, RowMajor<T>>(golden::path<Model>("model.safetensors"));
  using OnDevice = cuda::Session<Model, T>;
  const cuda::Weights on_device(weights);
  double worst_forward = 0, worst_steps = 0, worst_prefill = 0;

  for (const int chunk : {1, 7, 256}) {
    OnDevice session(on_device, {.chunk = chunk});
    for (std::size_t row = 0; row < expected.rows; ++row) {
      const auto ids = expected.ids_of(row);
      const auto exact = expected.logits_of(row);
      session.reset();  // the second row finds what the first has left
      std::vector<float> all(exact.size());
      session.forward(ids, all);
      worst_forward = (std::max)(worst_forward, relative_error(all, exact));
      is_right(session.position() == std::ssize(ids), "position");

      // Prefills of every length: their last logits, together those of all positions.
      std::vector<float> last;
      for (std::size_t n = 1; n <= ids.size(); ++n) {
        session.reset();
        const auto logits = session.prefill(ids.first(n));
        last.insert(last.end(), logits.begin(), logits.end());
      }
      worst_prefill = (std::max)(worst_prefill, relative_error(last, exact));

      // Steps after a prefill.
      session.reset();
      const std::size_t half = ids.size() / 2;
      session.prefill(ids.first(half));
      worst_steps =
          (std::max)(worst_steps, relative_error(stepped(session, ids.subspan(half)),
                                                 exact.subspan(half * Model::vocab_size)));
    }
  }

  // Two sessions in turn, from the first token.
  OnDevice a(on_device), b(on_device);
  std::vector<float> all_a, all_b;
  for (std::size_t i = 0; i < expected.seq_len; ++i) {
    const auto of_a = a.step(expected.ids_of(0)[i]);
    all_a.insert(all_a.end(), of_a.begin(), of_a.end());
    const auto of_b = b.step(expected.ids_of(1)[i]);
    all_b.insert(all_b.end(), of_b.begin(), of_b.end());
  }
  worst_steps = std::max({worst_steps, relative_error(all_a, expected.logits_of(0)),
                          relative_error(all_b, expected.logits_of(1))});

  // Bad input changes nothing.
  OnDevice small_one(on_device, {.capacity = 8, .chunk = 4});
  const auto ids = expected.ids_of(0).first(8);
  small_one.prefill(ids.first(5));
  is_right(fails_with([&] { small_one.step(Model::vocab_size); }, "is outside the vocabulary [0, "),
           "a token outside the vocabulary");
  is_right(fails_with([&] { small_one.prefill({}); }, "expected at least one token, found none"),
           "no token");
  if constexpr (Model::has_capacity)
    is_right(fails_with([&] { small_one.prefill(ids.first(4)); },
                        "position 5 and 4 tokens exceed the capacity of 8 positions"),
             "more tokens than the capacity");
  is_right(small_one.position() == 5, "position after bad input");
  OnDevice undisturbed(on_device, {.capacity = 8, .chunk = 4});
  undisturbed.prefill(ids.first(5));
  const auto after = small_one.prefill(ids.subspan(5)),
             without = undisturbed.prefill(ids.subspan(5));
  is_right(std::equal(after.begin(), after.end(), without.begin()), "logits after bad input");

  std::printf("%-24s %-5s forward %.2e, prefill %.2e, steps %.2e, at most %.0e\n", Model::folder,
              type, worst_forward, worst_prefill, worst_steps, tolerance);
  is_right(worst_forward <= tolerance && worst_prefill <= tolerance && worst_steps <= tolerance,
           Model::folder);
}

// Models of random weights, for what the golden cases leave out.

/// A window and sequences longer than the tile of attention; the rings turn several times.
struct LongWindow : LanguageModel<Repeat<2, HybridStack<SWA<200, golden::heads_4_2>, SwiGLU<32>>>,
                                  golden::tied(40)> {
  static constexpr const char* folder = "a window of 200";
};
/// Full attention over several tiles.
struct LongContext
    : LanguageModel<HybridStack<DModel<36>, Attention<AttentionOptions{.n_heads = 3}>,
                                Attention<AttentionOptions{.n_heads = 6}>>,
                    golden::untied(40)> {
  static constexpr const char* folder = "full attention";
};
/// Sinks, gates, norms of whole tokens, LayerNorm.
struct Optioned : tiny::Optioned {
  static constexpr const char* folder = "options";
};
struct Recurrent : tiny::Recurrent {
  static constexpr const char* folder = "recurrent";
};
/// The error may be some times that of the processor in the same type, whose activations are float.
template <class Model, class T>
void check_random(const char* type) {
  const auto narrow = random_weights<Model, T>(1);
  Weights<Model, double> exact;
  const auto from = narrow.tensors();
  const auto to = exact.tensors();
  std::vector<double> wide;
  for (std::size_t t = 0; t < from.size(); ++t)
    for (std::int64_t r = 0; r < from[t].rows; ++r) {
      std::vector<float> row(static_cast<std::size_t>(from[t].row_size));
      from[t].get_row(r, row.data());
      wide.assign(row.begin(), row.end());
      to[t].set_row(r, wide.data());
    }
  exact.derive();
  const cuda::Weights on_device(narrow);

  Random rng;
  const auto tokens = random_tokens<Model>(rng, 700);
  Session<Model, double> in_double(exact);
  const auto expected = all_logits(in_double, tokens);
  Session<Model, T, T> on_cpu(narrow);
  const double of_cpu = relative_error(all_logits(on_cpu, tokens), expected),
               allowed = (std::max)(4 * of_cpu, 1e-5);

  double worst = 0;
  for (const int chunk : {33, 256}) {
    cuda::Session<Model, T> session(on_device, {.chunk = chunk});
    std::vector<float> all(expected.size());
    constexpr std::size_t prefilled = 600;
    session.forward(std::span(tokens).first(prefilled),
                    std::span(all).first(prefilled * Model::vocab_size));
    const auto rest = stepped(session, std::span(tokens).subspan(prefilled));
    std::copy(rest.begin(), rest.end(), all.begin() + prefilled * Model::vocab_size);
    worst = (std::max)(worst, relative_error(all, expected));
  }
  std::printf("%-24s %-5s error %.2e, at most %.2e (4 times that of the processor)\n",
              Model::folder, type, worst, allowed);
  is_right(worst <= allowed, Model::folder);
}

template <class... Models>
void check_random_models(const char* only) {
  const auto check_one = [&]<class Model>(std::type_identity<Model>) {
    if (only && std::strcmp(only, Model::folder) != 0) return;
    check_random<Model, float>("float");
    check_random<Model, bf16>("bf16");
  };
  (check_one(std::type_identity<Models>{}), ...);
}

template <class... Models>
void check_models(const char* only) {
  const auto check_one = [&]<class Model>(std::type_identity<Model>) {
    if (only && std::strcmp(only, Model::folder) != 0) return;
    check_type<Model, float>("float", 2e-5);
    check_type<Model, bf16>("bf16", 3e-2);
  };
  (check_one(std::type_identity<Models>{}), ...);
}

void check(const char* only) {
  using namespace golden;
  check_models<SambaTiny, SambaOdd, SambaBias, SambaNope, SambaBf16Rope, MambaSwaMlp, SwaMlp,
               MambaTiny, Llama31, Mistral, Gemma, Gemma2, Gemma3, Gemma3Linear, Qwen3,
               RecurrentGemma>(only);
  check_random_models<LongWindow, LongContext, Optioned, Recurrent>(only);
}

}  // namespace

int main(int argc, char** argv) {
  return run_checks([&] { check(argc > 1 ? argv[1] : nullptr); });
}
