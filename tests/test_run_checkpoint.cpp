// Checkpoints of a run: a run that was ended and resumed has the bits of one that was not; what is
// damaged or of something else is refused; whenever a program dies, its last checkpoint is whole.
#include <signal.h>
#include <sys/wait.h>

#include "tests/catch.hpp"
#include "tests/training.hpp"

using namespace samba_test;

namespace {

using Model = TrainedModel;

struct Case {
  TempDir folder;
  std::shared_ptr<const TokenFile> data = some_tokens(folder.file("tokens"));
  std::string run = folder.file("run");
  TrainOptions options = [this] {
    auto o = few_tokens();
    o.accumulate = 2, o.restart_at_separators = true;
    o.outliers = {.z_limit = 1, .horizon = 5, .warmup_steps = 2, .skip = true};
    o.checkpoints = run;
    return o;
  }();
};

/// All that a run is, to compare.
template <class T>
std::vector<Real<T>> all_numbers(const Trainer<Model, T>& trainer) {
  auto all = numbers(trainer.master());
  for (const auto* more :
       {&trainer.optimiser().state().mean, &trainer.optimiser().state().square}) {
    const auto values = numbers(*more);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

template <class T>
void check_same_run(const Trainer<Model, T>& a, const Trainer<Model, T>& b) {
  CHECK(same_bits(all_numbers(a), all_numbers(b)));
  CHECK(same_bits(a.weights().memory(), b.weights().memory()));
  CHECK(a.steps() == b.steps());
  CHECK(a.optimiser().steps() == b.optimiser().steps());
  CHECK(a.batches().position() == b.batches().position());
}

/// Calls f in a process of its own, on one thread; returns its number.
template <class F>
pid_t start_process(F&& f) {
  const pid_t process = ::fork();
  if (process != 0) return process;
#ifdef _OPENMP
  omp_set_num_threads(1);  // those of this process are not there
#endif
  const std::string message = message_of([&] { f(); });
  ::_exit(message == message_of([] {}) ? 0 : 1);
}

int wait_for(pid_t process) {
  int status = 0;
  REQUIRE(::waitpid(process, &status, 0) == process);
  return status;
}

}  // namespace

TEMPLATE_TEST_CASE("a resumed run has the bits of one that was not ended", "", float, bf16,
                   double) {
  using T = TestType;
  const Case c;
  auto alone = c.options;
  alone.checkpoints = "";
  Trainer<Model, T> whole(c.data, alone);
  std::string saved;
  {
    Trainer<Model, T> first(c.data, c.options);
    for (int i = 0; i < 7; ++i) {
      first.step();
      whole.step();
    }
    saved = first.save();
    CHECK(saved == c.run + "/step-00000007");
    CHECK(first.save() == saved);
    CHECK(first.last_checkpoint() == saved);
  }
  CHECK(latest_checkpoint(c.run) == saved);
  CHECK(files_in(saved) == std::vector<std::string>{"model.safetensors", "training.safetensors"});
  auto resumed = Trainer<Model, T>::resume(saved, c.data, c.options);
  check_same_run(resumed, whole);
  CHECK(resumed.save() == saved);
  int skipped = 0;
  for (int i = 0; i < 7; ++i) {
    const TrainStep expected = whole.step(), found = resumed.step();
    CHECK(found.step == i + 8);
    CHECK(found.loss == expected.loss);
    CHECK(found.gradient_norm == expected.gradient_norm);
    CHECK(found.loss_z == expected.loss_z);
    CHECK(found.gradient_norm_z == expected.gradient_norm_z);
    CHECK(found.skipped == expected.skipped);
    skipped += found.skipped;
  }
  CHECK(skipped < 7);
  check_same_run(resumed, whole);

  // The weights are a model as any.
  if constexpr (!std::is_same_v<T, double>) {
    CHECK(same_bits(numbers(load<Model>(resumed.save())), numbers(resumed.master())));
  }
}

TEST_CASE("a run writes checkpoints as it goes, and keeps the newest") {
  const Case c;
  auto options = c.options;
  options.checkpoint_interval = 2, options.keep = 2;
  CHECK(latest_checkpoint(c.run).empty());
  Trainer<Model> trainer(c.data, options);
  // What a program left that was ended while it wrote, and what is none of ours.
  std::filesystem::create_directories(c.run + "/step-00000003.unfinished");
  write_file(c.run + "/step-00000003.unfinished/model.safetensors", "half");
  write_file(c.run + "/step-notes", "");
  write_file(c.run + "/step-00000099", "a file");
  CHECK(latest_checkpoint(c.run).empty());
  for (int i = 1; i <= 7; ++i) {
    const TrainStep step = trainer.step();
    CHECK(step.checkpoint == (i % 2 ? "" : detail::join({c.run, "/step-0000000", i})));
    CHECK(trainer.last_checkpoint() == latest_checkpoint(c.run));
  }
  CHECK(files_in(c.run) ==
        std::vector<std::string>{"step-00000004", "step-00000006", "step-00000099", "step-notes"});
  CHECK(trainer.save() == c.run + "/step-00000007");
  CHECK(checkpoints_in(c.run).size() == 2);
}

TEST_CASE("a folder with checkpoints of another run is refused") {
  const Case c;
  Trainer<Model> trainer(c.data, c.options);
  trainer.step();
  const std::string first = trainer.save();
  trainer.step();
  const std::string second = trainer.save();
  CHECK_MESSAGE_OF(Trainer<Model>(c.data, c.options), first,
                   "not of the run that begins here, at step 0", "resume from it");
  CHECK_MESSAGE_OF(Trainer<Model>::resume(first, c.data, c.options), second,
                   "not of the run that begins here, at step 1");
  std::filesystem::remove_all(second);
  auto resumed = Trainer<Model>::resume(first, c.data, c.options);
  resumed.step();
  CHECK(resumed.save() == second);
  // Elsewhere it may branch off, and its first checkpoint is there.
  auto options = c.options;
  options.checkpoints = c.folder.file("branch");
  auto branch = Trainer<Model>::resume(first, c.data, options);
  CHECK(branch.last_checkpoint() == first);
  CHECK(branch.save() == options.checkpoints + "/step-00000001");
}

TEST_CASE("a checkpoint of something else is refused") {
  const Case c;
  Trainer<Model> trainer(c.data, c.options);
  trainer.step();
  const std::string saved = trainer.save();
  const auto resume = [&](auto change) {
    auto options = c.options;
    change(options);
    return Trainer<Model>::resume(saved, c.data, options).options();
  };
  const auto other = some_tokens(c.folder.file("other"), 2);
  CHECK_MESSAGE_OF(Trainer<Model>::resume(saved, other, c.options), saved, "of another data file",
                   "expected " + std::to_string(other->hash()),
                   "found " + std::to_string(c.data->hash()));
  CHECK_MESSAGE_OF((RunCheckpoint(saved).check_model<tiny::Samba, float>()), saved,
                   "of another model", structure<tiny::Samba>(), structure<Model>());
  CHECK_MESSAGE_OF((RunCheckpoint(saved).check_model<Model, double>()), "of another type", "F64",
                   "F32");
  CHECK_MESSAGE_OF(resume([](auto& o) { o.seed = 3; }), saved, "another seed: expected 3, found 0",
                   "change_options");
  CHECK_MESSAGE_OF(resume([](auto& o) { o.accumulate = 3; }), "another accumulate");
  CHECK_MESSAGE_OF(resume([](auto& o) { o.learning_rate.peak = 0.5; }),
                   "another learning_rate.peak: expected 0.5, found 0.01");
  CHECK_MESSAGE_OF(
      resume([](auto& o) { o.adamw.groups = {{.pattern = "*.wte.*", .weight_decay = 0.5}}; }),
      "another adamw.groups", "\"*.wte.*\" weight_decay 0.5 rate 1");
  resume([](auto& o) { o.threads = 2, o.recompute = true, o.keep = 7, o.checkpoint_interval = 3; });
  const auto changed = resume([](auto& o) { o.seed = 3, o.change_options = true; });
  CHECK(changed.seed == 3);
}

TEST_CASE("a checkpoint that lacks a part is refused") {
  const Case c;
  Trainer<Model> trainer(c.data, c.options);
  const std::string saved = trainer.save();
  const auto resume = [&](const std::string& folder) {
    Trainer<Model>::resume(folder, c.data, c.options);
  };
  CHECK_MESSAGE_OF(resume(c.run + "/step-00000001"), "step-00000001",
                   "expected the folder of a checkpoint");
  for (const std::string part : {"/model.safetensors", "/training.safetensors"}) {
    const std::string bytes = read_file(saved + part);
    std::filesystem::remove(saved + part);
    CHECK_MESSAGE_OF(resume(saved), saved + part, "this part of the checkpoint is missing");
    write_file(saved + part, bytes);
  }
  resume(saved);
  write_file(saved + "/training.safetensors", read_file(saved + "/model.safetensors"));
  CHECK_MESSAGE_OF(resume(saved), "not the training part of a checkpoint");
}

TEST_CASE("a checkpoint with any byte changed is refused") {
  const Case c;
  Trainer<Model> trainer(c.data, c.options);
  for (int i = 0; i < 4; ++i) trainer.step();
  const std::string saved = trainer.save();
  Random rng;
  CAPTURE(rng.seed);
  const auto resume = [&] { Trainer<Model>::resume(saved, c.data, c.options); };
  for (const std::string part : {"/training.safetensors", "/model.safetensors"}) {
    const std::string bytes = read_file(saved + part);
    // Of the model's file the numbers: in its header not every word has a meaning here.
    const bool model = part == "/model.safetensors";
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), sizeof header);
    const int begin = model ? static_cast<int>(header) + 8 : 0;
    for (int i = 0; i < 24; ++i) {
      std::string changed = bytes;
      // Half of them in the first part, where the header is.
      const int size = static_cast<int>(bytes.size()) - begin;
      const int at = begin + rng.below(i % 2 ? size : std::min(size, static_cast<int>(header)));
      changed[static_cast<std::size_t>(at)] ^= static_cast<char>(1 << rng.below(8));
      write_file(saved + part, changed);
      CAPTURE(part, at);
      CHECK_MESSAGE_OF(resume(), saved);
    }
    write_file(saved + part, bytes.substr(0, bytes.size() / 2));
    CHECK_MESSAGE_OF(resume(), saved + part);
    write_file(saved + part, bytes);
    resume();
  }
}

TEST_CASE("a checkpoint that cannot be written leaves the last one, and nothing else") {
  const Case c;
  Trainer<Model> trainer(c.data, c.options);
  trainer.step();
  const std::string saved = trainer.save();
  const auto before = all_numbers(trainer);
  const auto size = std::filesystem::file_size(saved + "/model.safetensors");
  trainer.step();
  for (const std::uintmax_t bytes : {std::uintmax_t{0}, size / 2, size + 1}) {
    CAPTURE(bytes);
    std::string message;
    {
      const FileSizeLimit full(bytes);
      message = message_of([&] { trainer.save(); });
    }
    CAPTURE(message);
    CHECK(first_missing(message, {"step-00000002", "cannot write"}) == "");
    CHECK(files_in(c.run) == std::vector<std::string>{"step-00000001"});
    CHECK(trainer.last_checkpoint() == saved);
  }
  CHECK(same_bits(all_numbers(Trainer<Model>::resume(saved, c.data, c.options)), before));
  CHECK(trainer.save() == c.run + "/step-00000002");  // once there is room

  auto options = c.options;
  options.checkpoints = c.folder.file("tokens") + "/run";
  CHECK_MESSAGE_OF(Trainer<Model>(c.data, options), "tokens/run: cannot read the folder");
  options.checkpoints = "/proc/run";
  CHECK_MESSAGE_OF(Trainer<Model>(c.data, options).save(), "/proc/run/step-00000000",
                   "cannot write the checkpoint: /proc/run: cannot make the folder");
}

TEST_CASE("weights that are not finite are not kept") {
  const Case c;
  Weights<Model, Master<float>> weights;
  initialize(weights, 1);
  static_cast<float*>(weights.tensors()[2].data)[1] = std::bit_cast<float>(0x7f800000u);
  Trainer<Model> trainer(c.data, c.options, std::move(weights));
  CHECK_MESSAGE_OF(trainer.save(), "tensor transformer.h.0.mamba.in_proj.weight",
                   "element 1 is not finite");
  CHECK(files_in(c.run).empty());
}

TEST_CASE("a run that is killed at any moment goes on from its last checkpoint") {
  const Case c;
  Random rng;
  CAPTURE(rng.seed);
  auto options = c.options;
  options.checkpoint_interval = 1, options.keep = 2;
  options.learning_rate.steps = 2000;
  const auto newest = [&] {
    const std::string latest = latest_checkpoint(c.run);
    return latest.empty() ? Trainer<Model>(c.data, options)
                          : Trainer<Model>::resume(latest, c.data, options);
  };
  for (int kills = 0; kills < 12; ++kills) {
    int channel[2];
    REQUIRE(::pipe(channel) == 0);
    const pid_t child = start_process([&] {
      for (auto trainer = newest(); !trainer.done();) {
        trainer.step();
        const char byte = 0;
        if (::write(channel[1], &byte, 1) != 1) return;
      }
    });
    REQUIRE(child > 0);
    ::close(channel[1]);
    // Some steps, and some of the next: of its gradients, or of writing its checkpoint.
    char byte = 0;
    for (int n = 1 + rng.below(4); n > 0; --n) REQUIRE(::read(channel[0], &byte, 1) == 1);
    ::usleep(static_cast<unsigned>(rng.below(4000)));
    ::kill(child, SIGKILL);
    CHECK(WIFSIGNALED(wait_for(child)));
    ::close(channel[0]);
    const auto before = latest_checkpoint(c.run);
    CHECK(newest().last_checkpoint() == before);
  }
  const auto resumed = newest();
  CHECK(resumed.steps() >= 12);
  options.checkpoints = "", options.checkpoint_interval = 0;
  Trainer<Model> whole(c.data, options);
  while (whole.steps() < resumed.steps()) whole.step();
  check_same_run(resumed, whole);
}
