#pragma once
// Plots as SVG files: line charts and heat maps, one below the other on a page.
#include "output.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace svg {

/// What an axis shows, with its unit, and how.
struct Axis {
  std::string label;
  bool log = false, from_zero = false;
  std::vector<double> marks = {};  // none: round numbers
  // A value that stands out, of the horizontal axis, and what it is.
  double special = 0;
  std::string special_label = {};
};

struct Series {
  std::string name = {};
  std::vector<std::array<double, 2>> points = {};  // x, y
};

struct LineChart {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
};

/// Numbers from low, which is white, to high.
struct HeatMap {
  std::string title, x_label, y_label;
  std::vector<std::string> columns = {}, rows = {};
  std::vector<double> values = {};  // (rows, columns)
  double low = 0, high = 100;
};

/// The shortest usual form of a number.
inline std::string text_of(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", x);
  return text;
}

/// Where the values of an axis stand between its ends, 0 and 1, and which of them are marked.
class Scale {
 public:
  Scale(const Axis& axis, std::vector<double> values) : log_(axis.log) {
    std::erase_if(values, [&](double x) { return !std::isfinite(x) || (log_ && x <= 0); });
    if (values.empty()) values = {1};
    low_ = *std::min_element(values.begin(), values.end());
    high_ = *std::max_element(values.begin(), values.end());
    if (axis.from_zero) low_ = std::min(low_, 0.);
    if (!axis.marks.empty())
      marks_ = axis.marks;
    else if (log_)
      mark_powers();
    else
      mark_multiples();
  }

  double at(double x) const {
    return log_ ? std::log(x / low_) / std::log(high_ / low_) : (x - low_) / (high_ - low_);
  }
  const std::vector<double>& marks() const { return marks_; }

 private:
  /// Multiples of 1, 2 or 5 times a power of ten, at most six steps; the ends are two of them.
  void mark_multiples() {
    if (high_ <= low_) high_ = low_ + std::max(std::abs(low_), 1.);
    double step = std::pow(10, std::floor(std::log10((high_ - low_) / 6)));
    for (const double factor : {2.0, 2.5, 2.0})
      if ((high_ - low_) / step > 6) step *= factor;
    const double first = std::floor(low_ / step + 1e-9), last = std::ceil(high_ / step - 1e-9);
    low_ = first * step;
    high_ = last * step;
    for (double i = first; i <= last; ++i) marks_.push_back(i * step);
  }
  /// Powers of ten, or where there are fewer than two, 2 and 5 times them too.
  void mark_powers() {
    if (high_ <= low_) high_ = 10 * low_;
    for (const bool all : {false, true}) {
      if (marks_.size() > 1) return;
      marks_.clear();
      for (double power = std::pow(10, std::floor(std::log10(low_))); power <= high_; power *= 10)
        for (const double factor : {1., 2., 5.})
          if ((all || factor == 1) && factor * power >= low_ * (1 - 1e-9) &&
              factor * power <= high_ * (1 + 1e-9))
            marks_.push_back(factor * power);
    }
  }

  bool log_;
  double low_, high_;
  std::vector<double> marks_;
};

class Page {
 public:
  void add(const LineChart& chart) {
    constexpr double plot_height = 200;
    constexpr const char* colors[] = {"#1f6feb", "#d4721a", "#2a9d62", "#8250df",
                                      "#cf222e", "#00838f", "#9a6700", "#6e7781"};
    std::vector<double> xs, ys;
    for (const Series& series : chart.series)
      for (const auto& [x, y] : series.points) xs.push_back(x), ys.push_back(y);
    const Scale across(chart.x, xs), up(chart.y, ys);
    const auto x_at = [&](double x) { return left + plot_width * across.at(x); };
    const auto y_at = [&](double y) { return height_ + plot_height * (1 - up.at(y)); };

    begin(chart.title, chart.y.label);
    const std::size_t count = chart.series.size(), per_line = 4;  // of names
    for (std::size_t first = 0; first < count && count > 1; first += per_line) {
      if (first > 0) height_ += 16;
      double right = left + plot_width;
      for (std::size_t s = std::min(first + per_line, count); s-- > first;) {
        const std::string& name = chart.series[s].name;
        text(right, height_ - 12, "end", name, fill(colors[s % std::size(colors)]));
        right -= 8 * static_cast<double>(name.size()) + 12;
      }
    }
    for (const double y : up.marks()) {
      line(left, y_at(y), left + plot_width, y_at(y));
      text(left - 8, y_at(y) + 4, "end", text_of(y));
    }
    for (const double x : across.marks()) {
      line(x_at(x), height_, x_at(x), height_ + plot_height);
      text(x_at(x), height_ + plot_height + 18, "middle", text_of(x));
    }
    if (!chart.x.special_label.empty()) {
      const double x = x_at(chart.x.special);
      line(x, height_, x, height_ + plot_height, "stroke='#333' stroke-dasharray='5 4'");
      text(x + 6, height_ + 0.4 * plot_height, "start", chart.x.special_label);
    }
    for (std::size_t s = 0; s < chart.series.size(); ++s) {
      const std::string color = colors[s % std::size(colors)];
      std::string path, dots;
      for (const auto& [x, y] : chart.series[s].points) {
        if (!std::isfinite(across.at(x)) || !std::isfinite(up.at(y))) continue;
        path += text_of(x_at(x)) + "," + text_of(y_at(y)) + " ";
        dots += "<circle cx='" + text_of(x_at(x)) + "' cy='" + text_of(y_at(y)) + "' r='3' fill='" +
                color + "'/>\n";
      }
      body_ +=
          "<polyline fill='none' stroke='" + color + "' stroke-width='2' points='" + path + "'/>\n";
      if (chart.series[s].points.size() <= 40) body_ += dots;
    }
    end(plot_height, chart.x.label);
  }

  void add(const HeatMap& map) {
    constexpr double row_height = 32;
    const double width = plot_width / static_cast<double>(map.columns.size());
    begin(map.title, map.y_label);
    for (std::size_t r = 0; r < map.rows.size(); ++r) {
      const double y = height_ + row_height * static_cast<double>(r);
      text(left - 8, y + row_height / 2 + 4, "end", map.rows[r]);
      for (std::size_t c = 0; c < map.columns.size(); ++c) {
        const double x = left + width * static_cast<double>(c),
                     value = map.values[r * map.columns.size() + c],
                     part = std::clamp((value - map.low) / (map.high - map.low), 0., 1.);
        body_ += "<rect x='" + text_of(x) + "' y='" + text_of(y) + "' width='" + text_of(width) +
                 "' height='" + text_of(row_height) + "' stroke='white' fill='" + shade(part) +
                 "'/>\n";
        text(x + width / 2, y + row_height / 2 + 4, "middle", text_of(std::round(value)),
             fill(part > 0.5 ? "white" : "black"));
      }
    }
    const double bottom = row_height * static_cast<double>(map.rows.size());
    for (std::size_t c = 0; c < map.columns.size(); ++c)
      text(left + width * (static_cast<double>(c) + 0.5), height_ + bottom + 18, "middle",
           map.columns[c]);
    end(bottom, map.x_label);
  }

  void save(const std::string& path) const {
    const std::string size =
        "width='" + text_of(left + plot_width + 30) + "' height='" + text_of(height_) + "'";
    const std::string whole = "<svg xmlns='http://www.w3.org/2000/svg' " + size +
                              " font-family='sans-serif' font-size='12'>\n<rect " + size +
                              " fill='white'/>\n" + body_ + "</svg>\n";
    write_file(path, whole);
  }

 private:
  static constexpr double left = 70, plot_width = 600;

  /// The title, and the label of the vertical axis above its end.
  void begin(const std::string& title, const std::string& y_label) {
    height_ += 26;
    if (!title.empty()) {
      text(left, height_, "start", title, "font-weight='bold'");
      height_ += 20;
    }
    text(left, height_, "start", y_label);
    height_ += 12;
  }
  void end(double plot_height, const std::string& x_label) {
    height_ += plot_height + 38;
    text(left + plot_width / 2, height_, "middle", x_label);
    height_ += 16;
  }

  void line(double x1, double y1, double x2, double y2,
            const std::string& style = "stroke='#ddd'") {
    body_ += "<line x1='" + text_of(x1) + "' y1='" + text_of(y1) + "' x2='" + text_of(x2) +
             "' y2='" + text_of(y2) + "' " + style + "/>\n";
  }
  void text(double x, double y, const char* anchor, const std::string& what,
            const std::string& style = "") {
    body_ += "<text x='" + text_of(x) + "' y='" + text_of(y) + "' text-anchor='" + anchor + "' " +
             style + ">";
    for (const char c : what) body_ += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
    body_ += "</text>\n";
  }
  static std::string fill(const std::string& color) { return "fill='" + color + "'"; }
  /// From white to dark blue.
  static std::string shade(double part) {
    constexpr double light[] = {247, 251, 255}, dark[] = {8, 69, 148};
    char color[8] = "#";
    for (int i = 0; i < 3; ++i)
      std::snprintf(color + 1 + 2 * i, 3, "%02x",
                    static_cast<unsigned>(light[i] + (dark[i] - light[i]) * part) & 0xffu);
    return color;
  }

  std::string body_;
  double height_ = 0;
};

}  // namespace svg
