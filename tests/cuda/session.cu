// cuda::Session and cuda::Batch: snapshots and state files that pass to the processor and back, forks,
// rewinding, sequences that come and go, the same bits for every batch and for splits at multiples of
// the chunk, with and without overlap; bad input. That logits are right is in golden.cu.
// Usage: session          Exit status 77 where there is no device.
#include "tests/cuda/support.cuh"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

/// Heads of 64, so that attention goes by parts; the window turns.
struct Wide
    : LanguageModel<Repeat<2, HybridStack<Mamba<256>, SwiGLU<256, 512>,
                                          SWA<100, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>,
                                          SwiGLU<256, 512>>>,
                    ModelOptions{.vocab_size = 2000, .tie_embeddings = true}> {};
/// Recurrences of Griffin, and rings of full attention.
struct Other
    : LanguageModel<
          HybridStack<RgLru<64>, SwiGLU<64>, Attention<AttentionOptions{.n_heads = 1}>, SwiGLU<64>>,
          ModelOptions{.vocab_size = 100}> {};

template <class A, class B>
void check_bits(const A& a, const B& b, const char* what) {
  is_right(same_bits(a, b), what);
}

/// True if work() throws an Error that has all of these texts.
template <class Work>
bool fails_with(Work&& work, std::initializer_list<const char*> texts) {
  try {
    work();
  } catch (const Error& error) {
    for (const char* text : texts)
      if (!std::strstr(error.what(), text)) {
        std::printf("  found: %s\n", error.what());
        return false;
      }
    return true;
  }
  return false;
}

std::span<const float> numbers(const Snapshot& s) {
  return {reinterpret_cast<const float*>(s.block.data()),
          static_cast<std::size_t>(s.block.bytes()) / sizeof(float)};
}

/// States pass between the processor and the device.
template <class Model>
void check_transfer(const char* name) {
  Random rng;
  const auto tokens = random_tokens<Model>(rng, 150), next = random_tokens<Model>(rng, 20);
  const auto weights = random_weights<Model, float>(rng.seed);
  Session<Model, float> on_cpu(weights);
  cuda::Session<Model, float> on_device(weights);
  on_cpu.prefill(tokens);
  on_device.prefill(tokens);
  const Snapshot of_cpu = on_cpu.snapshot(), of_device = on_device.snapshot();
  const double error = relative_error(numbers(of_device), numbers(of_cpu));
  std::printf("%-8s states after %zu tokens: error %.2e, at most 1e-4\n", name, tokens.size(),
              error);
  is_right(error <= 1e-4, "the states of both devices");

  // There and back, to the bit; and as files.
  on_device.restore(of_cpu);
  is_right(same_state(on_device.snapshot(), of_cpu), "a snapshot of the processor on the device");
  const auto after_cpu = copy(on_device.prefill(next));
  on_cpu.restore(of_device);
  is_right(same_state(on_cpu.snapshot(), of_device), "a snapshot of the device on the processor");
  const auto after_device = copy(on_cpu.prefill(next));
  on_cpu.restore(of_cpu);
  on_device.restore(of_device);
  const auto expected = copy(on_cpu.prefill(next));
  is_right(relative_error(after_cpu, expected) <= 1e-4, "logits from a state of the processor");
  is_right(relative_error(after_device, expected) <= 1e-4, "logits from a state of the device");
  const TempDir folder;
  on_device.save(folder.file("device.safetensors"));
  on_cpu.load(folder.file("device.safetensors"));
  is_right(same_state(on_cpu.snapshot(), of_device), "a file of the device on the processor");
  on_cpu.restore(of_cpu);
  on_cpu.save(folder.file("processor.safetensors"));
  on_device.load(folder.file("processor.safetensors"));
  is_right(same_state(on_device.snapshot(), of_cpu), "a file of the processor on the device");

  // With keys and values in bf16, too.
  const auto narrow = random_weights<Model, bf16>(rng.seed);
  Session<Model, bf16, bf16> narrow_on_cpu(narrow);
  cuda::Session<Model, bf16> narrow_on_device(narrow);
  narrow_on_cpu.prefill(tokens);
  narrow_on_device.restore(narrow_on_cpu.snapshot());
  const double of_bf16 =
      relative_error(narrow_on_device.prefill(next), copy(narrow_on_cpu.prefill(next)));
  std::printf("%-8s logits in bf16 from a state of the processor: error %.2e, at most 3e-2\n", name,
              of_bf16);
  is_right(of_bf16 <= 3e-2, "logits in bf16 from a state of the processor");
}

void check_forks_and_splits(const cuda::Weights<Wide>& weights) {
  Random rng;
  const auto tokens = random_tokens<Wide>(rng, 600), next = random_tokens<Wide>(rng, 30);
  cuda::Session whole(weights, {.chunk = 128});
  const auto logits = copy(whole.prefill(tokens));
  cuda::Session parts(weights, {.chunk = 128});
  parts.prefill(std::span(tokens).first(256));
  check_bits(parts.prefill(std::span(tokens).subspan(256)), logits, "logits of a prefill in parts");
  is_right(same_state(parts.snapshot(), whole.snapshot()), "the state after a prefill in parts");

  Snapshot before = whole.snapshot();
  std::vector<float> first;
  for (const std::int32_t token : next) first = copy(whole.step(token));
  cuda::Session fork = parts;  // of the state before those steps
  is_right(same_state(fork.snapshot(), before), "a fork has the state");
  whole.restore(before);
  is_right(whole.position() == 600, "the position after restore");
  for (std::size_t i = 0; i < next.size(); ++i) {
    const auto again = copy(whole.step(next[i]));
    check_bits(fork.step(next[i]), again, "a fork goes on like the original");
    if (i + 1 == next.size()) check_bits(again, first, "the same steps after restore");
  }
  is_right(same_state(parts.snapshot(), before), "the original of a fork stays as it is");
  whole.snapshot(before);
  fork = parts;
  cuda::Session other(weights, {.overlap = false});
  other.restore(before);
  whole.restore(before);
  for (const std::int32_t token : next)
    check_bits(other.step(token), whole.step(token), "the same bits without overlap");
  std::size_t free = 0, now = 0, all = 0;
  cuda::Session steady(weights, {.chunk = 64});
  cudaMemGetInfo(&free, &all);
  steady.prefill(tokens);
  for (const std::int32_t token : next) steady.step(token);
  steady.snapshot(before);
  steady.reset();
  cudaMemGetInfo(&now, &all);
  is_right(now == free, "nothing is allocated on the device after construction");
}

/// Every sequence of a batch has the bits of a session.
void check_batches(const cuda::Weights<Wide>& weights) {
  Random rng;
  for (const int n : {1, 2, 3, 9, 20, 64}) {
    cuda::Batch batch(weights, n, {.chunk = 80});
    std::vector<std::vector<std::int32_t>> all;
    for (int i = 0; i < n; ++i) all.push_back(random_tokens<Wide>(rng, 2 + 7 * i % 150 + 130));
    std::vector<int> followed{0};
    for (const int i : {1, 8, 17, 63})
      if (i < n) followed.push_back(i);
    std::vector<cuda::Session<Wide>> sessions;
    for (std::size_t k = 0; k < followed.size(); ++k)
      sessions.emplace_back(weights, cuda::SessionOptions{.chunk = 80});
    // Prompts of several lengths, one after the other.
    for (int i = 0; i < n; ++i) {
      const auto& tokens = all[static_cast<std::size_t>(i)];
      batch.prefill(i, std::span(tokens).first(tokens.size() - 130));
    }
    const auto tokens_of = [&](int i) { return std::span(all[static_cast<std::size_t>(i)]); };
    for (std::size_t k = 0; k < followed.size(); ++k) {
      const auto tokens = tokens_of(followed[k]);
      check_bits(sessions[k].prefill(tokens.first(tokens.size() - 130)), batch.logits(followed[k]),
                 "a prompt in a batch");
    }
    // Steps of all of them; then only some, in another order.
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(n));
    for (std::size_t t = 0; t < 115; ++t) {
      for (int i = 0; i < n; ++i) tokens[static_cast<std::size_t>(i)] = tokens_of(i).last(130)[t];
      const auto logits = batch.step(tokens);
      for (std::size_t k = 0; k < followed.size(); ++k)
        check_bits(sessions[k].step(tokens_of(followed[k]).last(130)[t]),
                   logits.subspan(static_cast<std::size_t>(followed[k]) * Wide::vocab_size,
                                  Wide::vocab_size),
                   "a step of a batch");
    }
    for (std::size_t t = 115; t < 130; ++t) {
      std::vector<int> slots(followed.rbegin(), followed.rend());
      if (t % 3 == 0) slots.pop_back();
      std::vector<std::int32_t> of_slots;
      for (const int slot : slots) of_slots.push_back(tokens_of(slot).last(130)[t]);
      const auto untouched = batch.snapshot(n - 1);
      batch.step(slots, of_slots);
      if (slots.front() != n - 1)
        is_right(same_state(batch.snapshot(n - 1), untouched), "others stay as they are");
      for (std::size_t k = 0; k < slots.size(); ++k) {
        const auto which = static_cast<std::size_t>(
            std::find(followed.begin(), followed.end(), slots[k]) - followed.begin());
        check_bits(sessions[which].step(of_slots[k]), batch.logits(slots[k]),
                   "a step of some sequences");
      }
    }
    for (std::size_t k = 0; k < followed.size(); ++k)
      is_right(same_state(sessions[k].snapshot(), batch.snapshot(followed[k])),
               "the state of a sequence");
    std::printf("a batch of %2d: %s\n", n, right ? "the bits of sessions" : "WRONG");
  }

  // Prompts together: other products, so rounding differs.
  cuda::Batch batch(weights, 3);
  const auto a = random_tokens<Wide>(rng, 100), b = random_tokens<Wide>(rng, 333);
  using Tokens = std::span<const std::int32_t>;
  batch.prefill(std::array<Tokens, 3>{a, {}, b});
  cuda::Session of_a(weights), of_b(weights);
  is_right(relative_error(copy(batch.logits(0)), copy(of_a.prefill(a))) < 3e-2 &&
               relative_error(copy(batch.logits(2)), copy(of_b.prefill(b))) < 3e-2,
           "prompts together");
  // Slots.
  is_right(batch.join() == 1 && batch.join() == -1, "the only free slot");
  batch.leave(0);
  is_right(batch.join() == 0 && batch.position(0) == 0, "a slot that was left");
  check_bits(batch.prefill(0, a), copy(cuda::Session(weights).prefill(a)), "a slot used again");
  is_right(fails_with([&] { batch.step(std::array{1, 1}, std::array{2, 3}); },
                      {"cuda::Batch::step: sequence 1 is named twice"}),
           "a slot named twice");
  is_right(fails_with([&] { batch.step(std::array{1, 3}, std::array{2, 3}); },
                      {"cuda::Batch: sequence 3 is outside [0, 3)"}),
           "a slot that is not there");
  is_right(batch.position(1) == 0, "bad input changes nothing");
}

void check_bad_input() {
  const auto weights = random_weights<Other, bf16>(1);
  const cuda::Weights on_device(weights);
  is_right(fails_with([&] { cuda::Session(on_device, {.capacity = std::int64_t{1} << 40}); },
                      {"SessionOptions::capacity", "the device cannot provide the ", " are free"}),
           "too little memory");
  is_right(fails_with([&] { cuda::Session(on_device, {.capacity = INT64_MAX}); },
                      {"is more than any memory holds"}),
           "a capacity that overflows");
  is_right(fails_with([&] { cuda::Batch(on_device, 0); }, {"expected at least one sequence"}),
           "no sequence");
  cuda::Session session(on_device, {.capacity = 40}), longer(on_device, {.capacity = 41});
  session.step(3);
  is_right(fails_with([&] { longer.restore(session.snapshot()); },
                      {"cuda::Session::restore", "expected 41, found 40"}),
           "a snapshot of another capacity");
  const auto other = random_weights<Wide, bf16>(1);
  Session<Wide, bf16, bf16> of_another(other);
  is_right(
      fails_with([&] { session.restore(of_another.snapshot()); }, {"belongs to another model"}),
      "a snapshot of another model");
  Session<Other, bf16> wide_keys(weights, {.capacity = 40});
  is_right(fails_with([&] { session.restore(wide_keys.snapshot()); }, {"has other types"}),
           "a snapshot of other types");
  is_right(session.position() == 1, "bad input changes nothing");
}

}  // namespace

int main() {
  return run_checks([] {
    check_transfer<Wide>("Wide");
    check_transfer<Other>("Other");
    const cuda::Weights<Wide> weights(random_weights<Wide, bf16>(7));
    check_forks_and_splits(weights);
    check_batches(weights);
    check_bad_input();
  });
}
