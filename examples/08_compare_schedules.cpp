// 08_compare_schedules: trains layer schedules of one budget on the same bytes in the same order,
// and compares how they predict texts of the training length and longer (arXiv 2406.07522).
//   08_compare_schedules [TEXT] [--only NAME ...] [--steps N] [--type float|bf16] [--csv FILE]
//   08_compare_schedules [TEXT] ... --resume            goes on where a run was ended
//   08_compare_schedules --plot CSV ... [--svg FILE]    the tables of several runs as one
// Prints a table and writes it as CSV and as a plot. TEXT: any file; its end is for validation.
#include "program.hpp"
#include "svg.hpp"
#include "training_data.hpp"

#include <samba/samba.hpp>
#include <samba/train/trainer.hpp>
#include <samba/train/validate.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

using namespace samba;

namespace {

// One width, twelve layers each; the width of the MLPs makes the budget the same. The window is half
// of the length that the models are trained on.
using M = Mamba<128>;
using A = SWA<128, AttentionOptions{.n_heads = 4}>;
using Full = Attention<AttentionOptions{.n_heads = 4}>;
using ANoPE = SWA<128, AttentionOptions{.n_heads = 4, .rope = false}>;  // no positions
using FullNoPE = Attention<AttentionOptions{.n_heads = 4, .rope = false}>;
template <int width>
using F = SwiGLU<128, width>;

template <int n, class... Layers>
using Model = LanguageModel<Repeat<n, HybridStack<DModel<128>, Layers...>>,
                            ModelOptions{.vocab_size = 256, .tie_embeddings = true}>;

struct Samba : Model<3, M, F<368>, A, F<368>> {};
struct SambaNoPE : Model<3, M, F<368>, ANoPE, F<368>> {};
struct MambaSwaMlp : Model<4, M, A, F<432>> {};
struct MambaMlp : Model<6, M, F<304>> {};
struct MambaOnly : Model<12, M> {};
struct SwaMlp : Model<6, A, F<432>> {};
struct Llama : Model<6, Full, F<432>> {};
struct LlamaNoPE : Model<6, FullNoPE, F<432>> {};

struct Options {
  std::string text = "bible.txt", type = "bf16", folder = "compare_schedules.data",
              csv = "compare_schedules.csv", svg = "compare_schedules.svg";
  std::vector<std::string> only, plot;
  int windows = 96;
  std::int64_t checkpoint_every = 100;
  TrainOptions train{.sequences = 16,
                     .seq_len = 256,
                     .learning_rate = {.peak = 3e-3, .warmup_steps = 100, .steps = 1200}};
  bool resume = false, quick = false;
};

/// How well a schedule predicts the first `length` bytes of texts.
struct Point {
  std::int64_t length;
  double bits_per_byte;
};

/// A row of the table, and a line of the plot.
struct Result {
  std::string schedule = {}, training = {};  // how it was trained, in words
  std::int64_t parameters = 0;
  double bytes_per_second = 0;
  std::vector<Point> points = {};
};

/// Goes on from the newest checkpoint of these options, if there is one.
template <class Schedule, class T>
Result train(const std::string& name, const TrainingData& data, const TrainOptions& options,
             const ValidationOptions& validation) {
  const std::string latest = latest_checkpoint(options.checkpoints);
  Trainer<Schedule, T> trainer = latest.empty()
                                     ? Trainer<Schedule, T>(data.train, options)
                                     : Trainer<Schedule, T>::resume(latest, data.train, options);
  if (!latest.empty()) std::fprintf(stderr, "%s: resumed: %s\n", name.c_str(), latest.c_str());
  Progress progress;
  double bytes = 0, seconds = 0;
  while (!trainer.done()) {
    const TrainStep step = trainer.step();
    bytes += static_cast<double>(step.tokens);
    seconds += step.seconds;
    progress.show("%s: step %lld of %lld, loss %.4f, %.0f bytes/s", name.c_str(),
                  static_cast<long long>(step.step),
                  static_cast<long long>(options.learning_rate.steps), step.loss, bytes / seconds);
    if (!step.checkpoint_error.empty())
      std::fprintf(stderr, "\n%s: no checkpoint: %s\n", name.c_str(),
                   step.checkpoint_error.c_str());
  }
  Result result{.schedule = name,
                .parameters = Schedule::parameters,
                .bytes_per_second = seconds > 0 ? bytes / seconds : 0};
  for (const Validation& v : validate(trainer.weights(), *data.validation, validation))
    result.points.push_back({v.length, v.loss / std::numbers::ln2});
  return result;
}

struct Schedule {
  std::string name;
  decltype(&train<Samba, float>) train_float, train_bf16;
};

template <class T>
Schedule schedule(const char* name) {
  static_assert(100 * T::parameters >= 98 * Samba::parameters &&
                    100 * T::parameters <= 102 * Samba::parameters,
                "expected the parameters of Samba, 2 % more or less");
  return {name, train<T, float>, train<T, bf16>};
}

/// All of them, in the order of the table.
std::vector<Schedule> schedules() {
  return {schedule<Samba>("Samba"),
          schedule<SambaNoPE>("Samba-NoPE"),
          schedule<MambaSwaMlp>("Mamba-SWA-MLP"),
          schedule<MambaMlp>("Mamba-MLP"),
          schedule<MambaOnly>("Mamba"),
          schedule<SwaMlp>("SWA-MLP"),
          schedule<Llama>("Llama"),
          schedule<LlamaNoPE>("Llama-NoPE")};
}

/// Those that --only names, or all.
std::vector<Schedule> chosen(const std::vector<std::string>& only) {
  std::vector<Schedule> all = schedules();
  std::string names;
  for (const Schedule& s : all) names += (names.empty() ? "" : ", ") + s.name;
  for (const std::string& name : only)
    if (std::ranges::count(all, name, &Schedule::name) == 0)
      fail({"--only: expected one of ", names, "; found ", name});
  std::erase_if(all, [&](const Schedule& s) {
    return !only.empty() && std::ranges::count(only, s.name) == 0;
  });
  return all;
}

std::string header(const std::vector<Point>& points) {
  std::string text = "schedule,parameters,bytes_per_second,";
  for (const Point& p : points) text += std::to_string(p.length) + ",";
  return text + "training";
}

void write_csv(const std::string& path, const std::vector<Result>& results) {
  std::ostringstream out;
  out << header(results.front().points) << '\n';
  for (const Result& r : results) {
    out << r.schedule << ',' << r.parameters << ',' << r.bytes_per_second << ',';
    for (const Point& p : r.points) out << p.bits_per_byte << ',';
    out << r.training << '\n';
  }
  write_file(path, out.view());
}

/// Adds the rows that write_csv wrote, which have to be of the same training.
void read_csv(const std::string& path, std::vector<Result>& results) {
  std::ifstream in(path);
  if (!in) fail_errno(path, "cannot open for reading");
  std::string line, name;
  std::getline(in, line);
  std::vector<Point> points;
  for (std::istringstream names(line); std::getline(names, name, ',');)
    if (const auto length = std::atoll(name.c_str())) points.push_back({length, 0});
  const auto& expected = results.empty() ? points : results.front().points;
  if (points.empty() || line != header(expected))
    fail(
        {path, ": expected a table that begins with ", header(expected), "; found ", Quoted{line}});
  while (std::getline(in, line)) {
    Result r{.points = points};
    std::istringstream fields(line);
    const auto read = [&](auto& number) {
      char comma = 0;
      if (!(fields >> number >> comma) || comma != ',')
        fail({path, ": expected numbers, found ", Quoted{line}});
    };
    std::getline(fields, r.schedule, ',');
    read(r.parameters);
    read(r.bytes_per_second);
    for (Point& p : r.points) read(p.bits_per_byte);
    std::getline(fields, r.training);
    if (std::ranges::count(results, r.schedule, &Result::schedule) > 0)
      fail({path, ": ", r.schedule, " is there twice"});
    results.push_back(r);
    if (r.training != results.front().training)
      fail({path, ": ", r.schedule, ": expected ", results.front().training, "; found ",
            r.training});
  }
  if (results.empty()) fail({path, ": expected rows, found none"});
}

void print_table(const std::vector<Result>& results) {
  std::printf("%s\nbits per byte of the first bytes of a text\n%-14s %10s %8s",
              results.front().training.c_str(), "schedule", "parameters", "bytes/s");
  for (const Point& p : results.front().points)
    std::printf(" %7lld", static_cast<long long>(p.length));
  for (const Result& r : results) {
    std::printf("\n%-14s %10lld %8.0f", r.schedule.c_str(), static_cast<long long>(r.parameters),
                r.bytes_per_second);
    for (const Point& p : r.points) std::printf(" %7.4f", p.bits_per_byte);
  }
  std::printf("\n");
}

void write_svg(const std::string& path, const std::vector<Result>& results) {
  svg::LineChart chart{.title = "Schedules of one budget",
                       .x = {.label = "length of the text, bytes", .log = true},
                       .y = {.label = "bits per byte"},
                       .series = {}};
  for (const Result& r : results) {
    svg::Series& series = chart.series.emplace_back(svg::Series{.name = r.schedule});
    for (const Point& p : r.points)
      series.points.push_back({static_cast<double>(p.length), p.bits_per_byte});
  }
  for (const Point& p : results.front().points)
    chart.x.marks.push_back(static_cast<double>(p.length));
  chart.x.special = chart.x.marks.front();  // validation begins with the length of the training
  chart.x.special_label = "trained on " + svg::text_of(chart.x.special) + " bytes";
  svg::Page page;
  page.add(chart);
  page.save(path);
}

/// The rows of a table that was made with the same training: schedules that are done.
std::vector<Result> done_before(const std::string& csv, const std::string& training) {
  std::vector<Result> results;
  if (!path_exists(csv)) return results;
  read_csv(csv, results);
  if (results.front().training != training)
    fail({csv, ": --resume: expected the table of ", training, "; found ",
          results.front().training});
  return results;
}

/// Removes the checkpoints in a folder, and the folder where nothing else is in it.
void remove_checkpoints(const std::string& folder) {
  for (const auto& [step, checkpoint] : checkpoints_in(folder))
    remove_folder(checkpoint, [](const std::string& path, int code) {
      std::fprintf(stderr, "%s: cannot remove: %s\n", path.c_str(),
                   std::generic_category().message(code).c_str());
    });
  std::error_code ignored;
  std::filesystem::remove(folder + "/lock", ignored);
  std::filesystem::remove(folder, ignored);
}

/// Trains the chosen schedules, one after the other; the CSV file has those that are done, and the
/// folder the checkpoints of the one that is not.
std::vector<Result> train_all(Options options) {
  TrainOptions& o = options.train;
  o.learning_rate.floor = o.learning_rate.peak / 10;
  const std::vector<Schedule> list = chosen(options.only);
  const auto folder_of = [&](const Schedule& s) {
    return options.folder + "/checkpoints-" + s.name;
  };
  for (const Schedule& s : list)
    if (const std::string found = latest_checkpoint(folder_of(s));
        !found.empty() && !options.resume)
      fail({found,
            ": of a run that was ended; --resume goes on with it, another --folder begins "
            "anew"});
  const TrainingData data = prepare_data(options.text, options.folder, 0.05);
  ValidationOptions validation{.seq_len = o.seq_len, .threads = o.threads};
  const std::int64_t longest = validation.multiples.back() * o.seq_len;
  check_at_least("--windows", options.windows, 1);
  validation.windows = validation_windows(data, options.text, longest, options.windows);
  const std::string training =
      detail::join({o.learning_rate.steps, " steps of ", o.sequences, " x ", o.seq_len,
                    " bytes of ", std::filesystem::path(options.text).filename().string(),
                    ", rate ", o.learning_rate.peak, ", seed ", o.seed, ", ", options.type, "; ",
                    "validated on ", validation.windows, " x ", longest});

  o.checkpoint_interval = options.checkpoint_every;
  o.keep = 1;
  std::vector<Result> results;
  if (options.resume) results = done_before(options.csv, training);
  for (const Schedule& s : list) {
    if (std::ranges::count(results, s.name, &Result::schedule) > 0) continue;
    o.checkpoints = folder_of(s);
    const auto train = options.type == "bf16" ? s.train_bf16 : s.train_float;
    results.push_back(train(s.name, data, o, validation));
    results.back().training = training;
    write_csv(options.csv, results);
    remove_checkpoints(o.checkpoints);
  }
  return results;
}

void run(const Options& options) {
  std::vector<Result> results;
  check_output("--svg", options.svg);
  if (options.plot.empty()) check_output("--csv", options.csv);
  for (const std::string& path : options.plot) read_csv(path, results);
  if (options.plot.empty()) results = train_all(options);
  print_table(results);
  write_svg(options.svg, results);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains layer schedules of one budget and compares them on longer texts.");
  app.footer("Example: 08_compare_schedules bible.txt --steps 300 --only Samba --only Llama");
  app.option_defaults()->always_capture_default();
  app.add_option("TEXT", options.text, "what to train on; its last 5 % are for validation");
  app.add_option("--only", options.only, "names of schedules to train; none: all")->take_all();
  app.add_option("--plot", options.plot, "tables of earlier runs to print and plot instead");
  app.add_option("--type", options.type, "of the matrices")
      ->check(CLI::IsMember({"float", "bf16"}));
  app.add_option("--steps", options.train.learning_rate.steps, "steps");
  app.add_option("--warmup", options.train.learning_rate.warmup_steps,
                 "steps; a tenth of all at most unless given");
  app.add_option("--sequences", options.train.sequences, "of a step");
  app.add_option("--seq-len", options.train.seq_len, "bytes of a sequence");
  app.add_option("--rate", options.train.learning_rate.peak, "largest learning rate");
  app.add_option("--seed", options.train.seed, "of first weights and order");
  app.add_option("--threads", options.train.threads, "0: all that OpenMP gives");
  app.add_option("--windows", options.windows, "at most, of 8 sequences, to validate on");
  app.add_option("--folder", options.folder, "for the tokens, and checkpoints on the way");
  app.add_option("--checkpoint-every", options.checkpoint_every, "steps");
  app.add_option("--csv", options.csv, "file for the table");
  app.add_option("--svg", options.svg, "file for the plot");
  app.add_flag("--resume", options.resume, "skip schedules in --csv, go on from a checkpoint");
  app.add_flag("--quick", options.quick, "a few small steps, to see that it runs");
  return run_program(app, argc, argv, [&] {
    TrainOptions& train_options = options.train;
    if (options.quick) {
      set_unless_given(app, "--sequences", train_options.sequences, 4);
      set_unless_given(app, "--seq-len", train_options.seq_len, 64);
      set_unless_given(app, "--steps", train_options.learning_rate.steps, 12);
    }
    limit_warmup(app, train_options.learning_rate);
    run(options);
  });
}
