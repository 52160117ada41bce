// 06_million_tokens: writes a million tokens; memory and time per token stay the same.
//   06_million_tokens [--tokens N] [--model DIR | --tiny] [--csv FILE] [--svg FILE]
// Prints a row at 100, 200, 500, 1000, ... tokens; --tiny takes a random model that needs seconds.
#include "demo_model.hpp"

#include <samba/model/initialize.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
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
  std::ofstream out(path);
  out << "position,microseconds_per_token,memory_bytes,state_bytes\n";
  for (const Point& p : points)
    out << p.position << ',' << p.microseconds << ',' << p.memory << ',' << p.state << '\n';
  if (!out.flush()) fail({path, ": cannot write"});
}

/// Writes SVG elements; `top` shifts them down.
struct Svg {
  std::ostream& out;
  double top = 0;

  void line(double x1, double y1, double x2, double y2) {
    out << "<line x1='" << x1 << "' y1='" << top + y1 << "' x2='" << x2 << "' y2='" << top + y2
        << "' stroke='#ddd'/>\n";
  }
  void text(double x, double y, const char* anchor, const auto& what) {
    out << "<text x='" << x << "' y='" << top + y << "' text-anchor='" << anchor << "'>" << what
        << "</text>\n";
  }
  void dot(double x, double y) {
    out << "<circle cx='" << x << "' cy='" << top + y << "' r='3' fill='#1f6feb'/>\n";
  }
  void curve(const std::vector<std::array<double, 2>>& points) {
    out << "<polyline fill='none' stroke='#1f6feb' stroke-width='2' points='";
    for (const auto [x, y] : points) out << x << ',' << top + y << ' ';
    out << "'/>\n";
  }
};

/// The distance of grid lines, 1, 2 or 5 times a power of ten, at most six of them up to `largest`.
double grid_step(double largest) {
  double step = std::pow(10, std::floor(std::log10(largest / 6)));
  for (const double factor : {2.0, 2.5, 2.0})
    if (largest / step > 6) step *= factor;
  return step;
}

/// A plot of value(point) from 0 over the position, which is logarithmic.
void write_panel(Svg svg, const char* title, const std::vector<Point>& points, auto&& value) {
  constexpr double left = 70, width = 600, height = 170;
  double largest = 1e-3;
  for (const Point& p : points) largest = std::max(largest, value(p));
  const double step = grid_step(largest), limit = std::ceil(largest / step) * step;
  const double low = std::log10(points.front().position);
  const double decades = std::max(std::log10(points.back().position) - low, 1e-3);
  const auto x = [&](std::int64_t position) {
    return left + width * (std::log10(position) - low) / decades;
  };
  const auto y = [&](double v) { return height * (1 - v / limit); };

  svg.text(left, -14, "start", title);
  for (int i = 0; i * step < limit * 1.001; ++i) {
    svg.line(left, y(i * step), left + width, y(i * step));
    svg.text(left - 8, y(i * step) + 4, "end", i * step);
  }
  for (std::int64_t decade = 1; decade <= points.back().position; decade *= 10) {
    if (decade < points.front().position) continue;
    svg.line(x(decade), 0, x(decade), height);
    svg.text(x(decade), height + 18, "middle", decade);
  }
  std::vector<std::array<double, 2>> curve;
  for (const Point& p : points) curve.push_back({x(p.position), y(value(p))});
  svg.curve(curve);
  for (const auto [cx, cy] : curve) svg.dot(cx, cy);
}

void write_svg(const std::string& path, const std::vector<Point>& points) {
  std::ofstream out(path);
  out << "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 710 520' font-family='sans-serif' "
         "font-size='12'>\n"
         "<rect width='710' height='520' fill='white'/>\n";
  write_panel({out, 40}, "microseconds per token", points,
              [](const Point& p) { return p.microseconds; });
  write_panel({out, 290}, "memory of the process, MB", points,
              [](const Point& p) { return static_cast<double>(p.memory) / 1e6; });
  Svg{out}.text(370, 508, "middle", "tokens written");
  out << "</svg>\n";
  if (!out.flush()) fail({path, ": cannot write"});
}

void run(const Options& options) {
  if (options.tokens < 1) fail({"--tokens: expected 1 or more, found ", options.tokens});
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
  app.option_defaults()->always_capture_default();
  app.add_option("--tokens", options.tokens, "tokens to write");
  app.add_option("--model", options.model, "folder or file of the weights");
  app.add_flag("--tiny", options.tiny, "a tiny random model instead")->excludes("--model");
  app.add_option("--threads", options.session.threads, "0: all that OpenMP gives");
  app.add_option("--csv", options.csv, "file for the table");
  app.add_option("--svg", options.svg, "file for the plot");
  try {
    app.parse(argc, argv);
    run(options);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
