// 06_million_tokens: writes a million tokens; memory and time per token stay the same.
//   06_million_tokens [--tokens N] [--model DIR | --tiny] [--csv FILE] [--svg FILE]
// Prints a row at 100, 200, 500, 1000, ... tokens; --tiny takes a random model that needs seconds.
#include "demo_model.hpp"
#include "program.hpp"
#include "svg.hpp"

#include <samba/model/initialize.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

using namespace samba;

namespace {

struct TinyModel
    : LanguageModel<
          HybridStack<Mamba<32>, SwiGLU<32>, SWA<64, AttentionOptions{.n_heads = 2}>, SwiGLU<32>>,
          ModelOptions{.vocab_size = 64, .tie_embeddings = true}> {};

struct Options {
  std::int64_t tokens = 1'000'000;
  std::string model = "examples/demo_model", csv = "million_tokens.csv", svg = "million_tokens.svg";
  bool tiny = false;
  SessionOptions session{.threads = 1};
};

/// What was measured when `position` tokens had been written.
struct Point {
  std::int64_t position = 0, memory = 0, state = 0;  // bytes
  double microseconds = 0;                           // per token, median of the latest
};

/// Memory of this process now, in bytes; 0 where the system does not say.
std::int64_t resident_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) return std::atoll(line.c_str() + 6) * 1024;
  return 0;
}

/// The times of the latest 1000 tokens.
class Latest {
 public:
  void add(double x) { values_[count_++ % values_.size()] = x; }
  double median() const {
    auto sorted = values_;
    const auto n = static_cast<std::ptrdiff_t>(std::min(count_, sorted.size()));
    std::nth_element(sorted.begin(), sorted.begin() + n / 2, sorted.begin() + n);
    return sorted[static_cast<std::size_t>(n / 2)];
  }

 private:
  std::array<double, 1000> values_{};
  std::size_t count_ = 0;
};

/// 100, 200, 500, 1000, ... and the last.
bool is_point(std::int64_t position, std::int64_t last) {
  std::int64_t decade = 100;
  while (decade * 10 <= position) decade *= 10;
  return position == last || position == decade || position == 2 * decade || position == 5 * decade;
}

template <class Model>
std::vector<Point> stream(const Weights<Model>& weights, const Options& options) {
  using Clock = std::chrono::steady_clock;
  std::printf("%10s %14s %12s %12s\n", "position", "us per token", "memory MB", "state MB");
  Session session(weights, options.session);
  Sampler sample{{.seed = 1}};
  Latest times;
  std::vector<Point> points;
  std::int32_t token = 32;
  while (session.position() < options.tokens) {
    const auto start = Clock::now();
    token = sample(session.step(token));
    times.add(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    if (is_point(session.position(), options.tokens)) {
      const Point p{session.position(), resident_memory(), session.state_bytes(), times.median()};
      points.push_back(p);
      std::printf("%10lld %14.2f %12.2f %12.3f\n", static_cast<long long>(p.position),
                  p.microseconds, static_cast<double>(p.memory) / 1e6,
                  static_cast<double>(p.state) / 1e6);
      std::fflush(stdout);
    }
  }
  return points;
}

void write_csv(const std::string& path, const std::vector<Point>& points) {
  std::ostringstream text;
  text << "position,microseconds_per_token,memory_bytes,state_bytes\n";
  for (const Point& p : points)
    text << p.position << ',' << p.microseconds << ',' << p.memory << ',' << p.state << '\n';
  write_file(path, text.str());
}

/// Two charts over the position, from 0 on.
void write_svg(const std::string& path, const std::vector<Point>& points) {
  const auto chart = [&](const char* label, auto&& value) {
    svg::Series series;
    for (const Point& p : points)
      series.points.push_back({static_cast<double>(p.position), value(p)});
    return svg::LineChart{.title = "",
                          .x = {.label = "tokens written", .log = true},
                          .y = {.label = label, .from_zero = true},
                          .series = {series}};
  };
  svg::Page page;
  page.add(chart("microseconds per token", [](const Point& p) { return p.microseconds; }));
  page.add(chart("memory of the process, MB",
                 [](const Point& p) { return static_cast<double>(p.memory) / 1e6; }));
  page.save(path);
}

void run(const Options& options) {
  if (options.tokens < 1) fail({"--tokens: expected 1 or more, found ", options.tokens});
  check_output("--csv", options.csv);
  check_output("--svg", options.svg);
  std::vector<Point> points;
  if (options.tiny) {
    Weights<TinyModel> weights;
    initialize(weights, 1);
    points = stream(weights, options);
  } else {
    const auto weights = load<DemoModel>(options.model);
    points = stream(weights, options);
  }
  write_csv(options.csv, points);
  write_svg(options.svg, points);
  std::printf("written: %s, %s\n", options.csv.c_str(), options.svg.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Writes many tokens and measures memory and time along the way.");
  app.footer("Example:\n  06_million_tokens --tokens 200000 --svg memory.svg");
  app.option_defaults()->always_capture_default();
  app.add_option("--tokens", options.tokens, "tokens to write");
  app.add_option("--model", options.model, "folder or file of the weights");
  app.add_flag("--tiny", options.tiny, "a tiny random model instead")->excludes("--model");
  app.add_option("--threads", options.session.threads, "0: all that OpenMP gives");
  app.add_option("--csv", options.csv, "file for the table");
  app.add_option("--svg", options.svg, "file for the plot");
  return run_program(app, argc, argv, [&] { run(options); });
}
