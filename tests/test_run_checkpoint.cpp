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
    o.accumulate = 2;
    o.restart_at_separators = true;
    o.outliers = {.z_limit = 1, .horizon = 5, .warmup_steps = 2, .skip = true};
    o.checkpoints = run;
    return o;
  }();
};

/// The checkpoint of a run that ended after some steps.
std::string saved_after(int steps, const Case& c) {
  Trainer<Model> trainer(c.data, c.options);
  for (int i = 0; i < steps; ++i) trainer.step();
  return trainer.save();
}

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

/// Calls f in a process of its own; returns its number.
template <class F>
pid_t start_process(F&& f) {
  const pid_t process = ::fork();
  if (process != 0) return process;
  const std::string message = message_of([&] { f(); });
  ::_exit(message == message_of([] {}) ? 0 : 1);
}

int wait_for(pid_t process) {
  int status = 0;
  REQUIRE(::waitpid(process, &status, 0) == process);
  return status;
}

/// A folder that cannot be synced.
std::string bad_folder;

}  // namespace

/// In place of the system's.
extern "C" int fsync(int file) {
  struct stat found{}, bad{};
  if (!bad_folder.empty() && ::fstat(file, &found) == 0 && ::stat(bad_folder.c_str(), &bad) == 0 &&
      found.st_ino == bad.st_ino) {
    errno = EIO;
    return -1;
  }
  return ::fdatasync(file);
}

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
    CHECK(resumed.tokens() == whole.tokens());
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

TEST_CASE("a resumed run has the states that were carried, and all data at its place") {
  const Case c;
  const auto more = some_tokens(c.folder.file("more"), 2, 700);
  const bool carry = GENERATE(true, false);
  CAPTURE(carry);
  auto options = c.options;
  options.restart_at_separators = false;
  options.carry_states = carry;
  const DataSources data = carry ? DataSources(c.data) : DataSources{{c.data, 2}, {more, 1}};
  auto alone = options;
  alone.checkpoints = "";
  Trainer<Model> whole(data, alone);
  std::string saved;
  {
    Trainer<Model> first(data, options);
    for (int i = 0; i < 5; ++i) {
      first.step();
      whole.step();
    }
    saved = first.save();
  }
  auto resumed = Trainer<Model>::resume(saved, data, options);
  for (int i = 0; i < 3; ++i) CHECK(resumed.step().loss == whole.step().loss);
  check_same_run(resumed, whole);
  if (!carry) return;
  // The states are of two sequences.
  const std::size_t bytes = RunCheckpoint(saved).states().size();
  auto other = alone;
  other.change_options = true;
  other.sequences = 3;
  CHECK_MESSAGE_OF(Trainer<Model>::resume(saved, data, other), saved, "carried states",
                   detail::join({"expected ", bytes / 2 * 3, " bytes, found ", bytes}));
  other.carry_states = false;
  CHECK(Trainer<Model>::resume(saved, data, other).steps() == 5);
}

TEST_CASE("a run goes on with other data where that is asked for") {
  const Case c;
  const std::string saved = saved_after(3, c);
  const auto other = some_tokens(c.folder.file("other"), 2);
  CHECK_MESSAGE_OF(Trainer<Model>::resume(saved, other, c.options), "another data file",
                   "TrainOptions{.change_data = true}");
  auto options = c.options;
  options.change_data = true;
  {
    auto same = Trainer<Model>::resume(saved, c.data, options);
    CHECK(same.batches().position() == 3 * 4);
  }
  auto trainer = Trainer<Model>::resume(saved, other, options);
  CHECK((trainer.steps() == 3 && trainer.batches().position() == 0));
  trainer.step();
  CHECK((trainer.steps() == 4 && trainer.batches().position() == 4));
}

TEST_CASE("the best weights by a held-out loss are kept") {
  const Case c;
  const auto held_out = some_tokens(c.folder.file("heldout"), 3);
  const ValidationOptions how{.seq_len = 12, .multiples = {1, 2}, .windows = 4, .threads = 1};
  auto options = c.options;
  options.learning_rate = {.peak = 0.05, .steps = 40, .curve = RateCurve::stable};
  std::string best, last;
  double loss = 0;
  {
    Trainer<Model> trainer(c.data, options);
    CHECK_FALSE(trainer.best_loss().has_value());
    for (int i = 0; i < 12; ++i) {
      const auto before = all_numbers(trainer);
      const Evaluation e = trainer.evaluate(*held_out, how);
      CHECK(same_bits(all_numbers(trainer), before));
      CHECK(e.losses.size() == 2);
      CHECK(e.losses[0].loss == validate(trainer.weights(), *held_out, how)[0].loss);
      CHECK(e.best == (i == 0 || e.losses[0].loss < loss));
      CHECK((e.checkpoint.empty() != e.best && e.checkpoint_error.empty()));
      if (e.best) {
        loss = e.losses[0].loss;
        best = e.checkpoint;
      }
      CHECK(trainer.best_loss() == loss);
      CHECK(latest_checkpoint(c.run + "/best") == best);
      CHECK(checkpoints_in(c.run + "/best").size() == 1);
      trainer.step(i == 9 ? 3 : 0.02);  // a step that spoils all
    }
    last = trainer.save();
    CHECK(best < c.run + "/best/step-00000010");
    CHECK(validate(load<Model>(best), *held_out, how)[0].loss == loss);
    CHECK(checkpoints_in(c.run).size() == 1);
  }
  {
    auto resumed = Trainer<Model>::resume(last, c.data, options);
    CHECK(resumed.best_loss() == loss);
    const Evaluation e = resumed.evaluate(*held_out, how);
    CHECK_FALSE(e.best);
  }
  std::filesystem::remove_all(last);
  CHECK_MESSAGE_OF(Trainer<Model>(c.data, options), best, "not from the run that begins here");

  // In a new folder the best begins anew, also where it cannot be written.
  auto branch = options;
  branch.checkpoints = c.folder.file("branch");
  auto trainer = Trainer<Model>::resume(best, c.data, branch);
  {
    const FileSizeLimit full(0);
    const Evaluation e = trainer.evaluate(*held_out, how);
    CHECK((e.best && e.checkpoint.empty() && e.losses[0].loss == loss));
    CHECK(first_missing(e.checkpoint_error, {"branch/best/step-", "cannot write"}) == "");
    CHECK_FALSE(trainer.best_loss().has_value());
  }
  const Evaluation again = trainer.evaluate(*held_out, how);
  CHECK((again.best && again.checkpoint == latest_checkpoint(branch.checkpoints + "/best")));
}

TEST_CASE("a run writes checkpoints as it goes, and keeps the newest") {
  const Case c;
  auto options = c.options;
  options.checkpoint_interval = 2;
  options.keep = 2;
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
  CHECK(files_in(c.run) == std::vector<std::string>{"lock", "step-00000004", "step-00000006",
                                                    "step-00000099", "step-notes"});
  CHECK(trainer.save() == c.run + "/step-00000007");
  CHECK(checkpoints_in(c.run).size() == 2);
}

TEST_CASE("what clean-up cannot remove stays, is reported once, and fails no checkpoint") {
  const Case c;
  auto options = c.options;
  options.checkpoint_interval = 1;
  options.keep = 1;
  Trainer<Model> trainer(c.data, options);
  const std::string first = trainer.step().checkpoint, notes = first + "/notes";
  std::filesystem::create_directories(notes);
  write_file(notes + "/why.txt", "mine");
  for (int i = 2; i <= 4; ++i) {
    CHECK(trainer.step().checkpoint == detail::join({c.run, "/step-0000000", i}));
    CHECK(trainer.last_checkpoint() == latest_checkpoint(c.run));
    CHECK(checkpoints_in(c.run).size() == 1);
    REQUIRE(trainer.not_removed().size() == 1);
    CHECK(first_missing(trainer.not_removed()[0],
                        {"step-00000001.unfinished/notes: cannot remove: "}) == "");
  }
  CHECK(files_in(c.run) ==
        std::vector<std::string>{"lock", "step-00000001.unfinished", "step-00000004"});
  CHECK(files_in(first + ".unfinished") == std::vector<std::string>{"notes"});
  CHECK(read_file(first + ".unfinished/notes/why.txt") == "mine");
  auto elsewhere = options;
  elsewhere.checkpoints = c.folder.file("elsewhere");
  CHECK(Trainer<Model>::resume(trainer.last_checkpoint(), c.data, elsewhere).steps() == 4);

  // Nor where it is in the way of the next: a folder that becomes a checkpoint keeps what is in it.
  const auto in_the_way = c.run + "/step-00000005.unfinished/notes";
  std::filesystem::create_directories(in_the_way);
  CHECK(trainer.step().checkpoint == c.run + "/step-00000005");
  CHECK(files_in(c.run + "/step-00000005") ==
        std::vector<std::string>{"model.safetensors", "notes", "training.safetensors"});

  // Nor the best one.
  const auto held_out = some_tokens(c.folder.file("heldout"), 3);
  const ValidationOptions how{.seq_len = 12, .multiples = {1}, .windows = 4};
  const std::string best = trainer.evaluate(*held_out, how).checkpoint;
  std::filesystem::create_directories(best + "/notes");
  Evaluation e;
  while (!e.best && !trainer.done()) {
    trainer.step();
    e = trainer.evaluate(*held_out, how);
  }
  CHECK((e.best && e.checkpoint_error.empty()));
  CHECK(e.checkpoint == latest_checkpoint(c.run + "/best"));
  CHECK(checkpoints_in(c.run + "/best").size() == 1);
  CHECK(first_missing(trainer.not_removed().back(),
                      {best + ".unfinished/notes: cannot remove: "}) == "");
}

TEST_CASE("a checkpoint takes the place of one of its step, which is there until then") {
  const Case c;
  const std::string first = c.run + "/step-00000001", replaced = first + ".replaced";
  const std::string elsewhere = c.folder.file("elsewhere");
  std::vector<std::string> left;
  const auto write = [&](std::int64_t step, const char* text) {
    write_checkpoint(
        c.run, step, 2, [&](const std::string& folder) { write_file(folder + "/a", text); }, &left);
  };
  write(1, "old");
  CHECK_MESSAGE_OF(write_checkpoint(c.run, 1, 2, [](const std::string&) { fail({"no room"}); }),
                   "no room");
  CHECK(read_file(first + "/a") == "old");
  write(1, "new");
  CHECK(read_file(first + "/a") == "new");
  CHECK(files_in(c.run) == std::vector<std::string>{"step-00000001"});

  // A program was ended when neither had the name, and when the old one was still there.
  std::filesystem::rename(first, replaced);
  std::filesystem::create_directories(first + ".unfinished");
  CHECK(latest_checkpoint(c.run) == replaced);
  write(2, "second");
  CHECK(read_file(first + "/a") == "new");
  CHECK(files_in(c.run) == std::vector<std::string>{"step-00000001", "step-00000002"});
  std::filesystem::create_directories(elsewhere);
  write_file(elsewhere + "/a", "kept");
  std::filesystem::create_directories(replaced);
  write_file(replaced + "/a", "old");
  std::filesystem::create_directory_symlink(elsewhere, c.run + "/step-00000002.replaced");
  CHECK(checkpoints_in(c.run).at(1) == first);
  write(2, "another second");
  CHECK(read_file(first + "/a") == "new");
  CHECK(read_file(c.run + "/step-00000002/a") == "another second");
  CHECK(files_in(c.run) == std::vector<std::string>{"step-00000001", "step-00000002"});
  CHECK(read_file(elsewhere + "/a") == "kept");
  CHECK(left.empty());

  // What cannot be removed of the old one fails nothing.
  std::filesystem::create_directories(first + "/notes");
  write(1, "newest");
  CHECK(read_file(first + "/a") == "newest");
  REQUIRE(left.size() == 1);
  CHECK(first_missing(left[0], {replaced + "/notes: cannot remove: "}) == "");
}

TEST_CASE("clean-up removes links and never follows them") {
  const Case c;
  const std::string elsewhere = c.folder.file("elsewhere");
  std::filesystem::create_directories(elsewhere);
  write_file(elsewhere + "/model.safetensors", "kept");
  const auto write = [&](std::int64_t step) {
    std::vector<std::string> left;
    write_checkpoint(
        c.run, step, 1, [](const std::string& folder) { write_file(folder + "/a", "a"); }, &left);
    CHECK(left.empty());
    CHECK(files_in(elsewhere) == std::vector<std::string>{"model.safetensors"});
    CHECK(read_file(elsewhere + "/model.safetensors") == "kept");
    CHECK(files_in(c.run) == std::vector<std::string>{detail::join({"step-0000000", step})});
  };
  using std::filesystem::create_directory_symlink;
  std::filesystem::create_directories(c.run);
  create_directory_symlink(elsewhere, c.run + "/step-00000001");  // moved to another disk
  write(2);
  create_directory_symlink(elsewhere, c.run + "/step-00000002/link");
  write(3);
  create_directory_symlink(elsewhere, c.run + "/step-00000004.unfinished");
  write_file(c.run + "/step-00000003.unfinished", "a file");
  write(4);
}

TEST_CASE("a folder with checkpoints of another run is refused") {
  const Case c;
  std::string first, second;
  {
    Trainer<Model> trainer(c.data, c.options);
    trainer.step();
    first = trainer.save();
    trainer.step();
    second = trainer.save();
  }
  CHECK_MESSAGE_OF(Trainer<Model>(c.data, c.options), first,
                   "not from the run that begins here, at step 0", "resume from it");
  CHECK_MESSAGE_OF(Trainer<Model>::resume(first, c.data, c.options), second,
                   "not from the run that begins here, at step 1");
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
  const std::string saved = saved_after(1, c);
  const auto resume = [&](auto change) {
    auto options = c.options;
    change(options);
    return Trainer<Model>::resume(saved, c.data, options).options();
  };
  const auto other = some_tokens(c.folder.file("other"), 2);
  CHECK_MESSAGE_OF(Trainer<Model>::resume(saved, other, c.options), saved, "with another data file",
                   "expected " + std::to_string(other->hash()),
                   "found " + std::to_string(c.data->hash()));
  CHECK_MESSAGE_OF((RunCheckpoint(saved).check_model<tiny::Samba, float>()), saved,
                   "a different model", structure<tiny::Samba>(), structure<Model>());
  CHECK_MESSAGE_OF((RunCheckpoint(saved).check_model<Model, double>()), "a different type", "F64",
                   "F32");
  CHECK_MESSAGE_OF(resume([](auto& o) { o.seed = 3; }), saved, "another seed: expected 3, found 0",
                   "change_options");
  CHECK_MESSAGE_OF(resume([](auto& o) { o.accumulate = 3; }), "another accumulate");
  CHECK_MESSAGE_OF(resume([](auto& o) { o.learning_rate.peak = 0.5; }),
                   "another learning_rate.peak: expected 0.5, found 0.01");
  CHECK_MESSAGE_OF(
      resume([](auto& o) { o.adamw.groups = {{.pattern = "*.wte.*", .weight_decay = 0.5}}; }),
      "another adamw.groups", "\"*.wte.*\" weight_decay 0.5,");
  CHECK_MESSAGE_OF(resume([](auto& o) {
                     o.seed = 3;
                     o.change_learning_rate = true;
                   }),
                   "another seed");
  resume([](auto& o) {
    o.learning_rate.steps = 80;
    o.change_learning_rate = true;
  });
  resume([](auto& o) {
    o.threads = 2;
    o.recompute = true;
    o.keep = 7;
    o.checkpoint_interval = 3;
  });
  const auto changed = resume([](auto& o) {
    o.seed = 3;
    o.change_options = true;
  });
  CHECK(changed.seed == 3);
}

TEST_CASE("a checkpoint that lacks a part is refused") {
  const Case c;
  const std::string saved = saved_after(0, c);
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
  const std::string saved = saved_after(4, c);
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
  auto elsewhere = c.options;
  elsewhere.checkpoints = "";
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
    CHECK(files_in(c.run) == std::vector<std::string>{"lock", "step-00000001"});
    CHECK(trainer.last_checkpoint() == saved);
  }
  CHECK(same_bits(all_numbers(Trainer<Model>::resume(saved, c.data, elsewhere)), before));
  CHECK(trainer.save() == c.run + "/step-00000002");  // once there is room

  auto options = c.options;
  options.checkpoints = c.folder.file("tokens") + "/run";
  CHECK_MESSAGE_OF(Trainer<Model>(c.data, options), "tokens: cannot create the folder");
  options.checkpoints = "/proc/run";
  CHECK_MESSAGE_OF(Trainer<Model>(c.data, options), "/proc/run: cannot create the folder");
}

TEST_CASE("a checkpoint that is due and cannot be written does not undo its step") {
  const Case c;
  auto options = c.options;
  options.checkpoint_interval = 2;
  Trainer<Model> trainer(c.data, options);
  trainer.step();
  TrainStep step;
  {
    const FileSizeLimit full(0);
    step = trainer.step();
  }
  CHECK((step.step == 2 && trainer.steps() == 2 && step.loss > 0));
  CHECK(step.checkpoint.empty());
  CAPTURE(step.checkpoint_error);
  CHECK(first_missing(step.checkpoint_error, {"step-00000002", "cannot write"}) == "");
  CHECK(latest_checkpoint(c.run).empty());
  trainer.step();
  step = trainer.step();
  CHECK((step.checkpoint == c.run + "/step-00000004" && step.checkpoint_error.empty()));
}

TEST_CASE("a save that fails when its checkpoint is there already can be made again") {
  const Case c;
  Trainer<Model> trainer(c.data, c.options);
  trainer.step();
  const auto before = all_numbers(trainer);
  bad_folder = c.run;
  CHECK_MESSAGE_OF(trainer.save(), "step-00000001", "cannot write");
  bad_folder.clear();
  const std::string saved = trainer.save();
  CHECK(saved == c.run + "/step-00000001");
  CHECK(files_in(c.run) == std::vector<std::string>{"lock", "step-00000001"});
  auto elsewhere = c.options;
  elsewhere.checkpoints = "";
  CHECK(same_bits(all_numbers(Trainer<Model>::resume(saved, c.data, elsewhere)), before));
}

TEST_CASE("two trainers do not share a folder") {
  const Case c;
  {
    const Trainer<Model> first(c.data, c.options);
    CHECK_MESSAGE_OF(Trainer<Model>(c.data, c.options), c.run, "another training run",
                     "process " + std::to_string(::getpid()));
    const pid_t child = start_process([&] { Trainer<Model>(c.data, c.options); });
    REQUIRE(child > 0);
    const int status = wait_for(child);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 1));
  }
  Trainer<Model>(c.data, c.options).save();
  Trainer<Model>::resume(latest_checkpoint(c.run), c.data, c.options).step();
  // A link is not written through.
  const std::string kept = c.folder.file("kept"), lock = c.run + "/lock";
  write_file(kept, "mine");
  std::filesystem::remove(lock);
  std::filesystem::create_symlink(kept, lock);
  CHECK_MESSAGE_OF(Trainer<Model>::resume(latest_checkpoint(c.run), c.data, c.options),
                   lock + ": cannot open for writing");
  CHECK(read_file(kept) == "mine");
}

TEST_CASE("weights that are not finite are not kept") {
  const Case c;
  Weights<Model, Master<float>> weights;
  initialize(weights, 1);
  static_cast<float*>(weights.tensors()[2].data)[1] = std::bit_cast<float>(0x7f800000u);
  Trainer<Model> trainer(c.data, c.options, std::move(weights));
  CHECK_MESSAGE_OF(trainer.save(), "tensor transformer.h.0.mamba.in_proj.weight",
                   "element 1 is not finite");
  CHECK(latest_checkpoint(c.run).empty());
}

TEST_CASE("a run that is killed at any moment goes on from its last checkpoint") {
  const Case c;
  Random rng;
  CAPTURE(rng.seed);
  auto options = c.options;
  options.checkpoint_interval = 1;
  options.keep = 2;
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
        trainer.evaluate(*c.data, {.seq_len = 12, .multiples = {1}, .windows = 2, .threads = 1});
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
    const auto best = latest_checkpoint(c.run + "/best");
    CHECK((best.empty() || RunCheckpoint(best).folder() == best));
  }
  const auto resumed = newest();
  CHECK(resumed.steps() >= 12);
  options.checkpoints = "";
  options.checkpoint_interval = 0;
  Trainer<Model> whole(c.data, options);
  while (whole.steps() < resumed.steps()) whole.step();
  check_same_run(resumed, whole);
}
