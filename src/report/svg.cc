#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "report/table.h"
#include "report/text.h"

namespace kedge {
namespace {

// At this width a phone's 360 px shrink 14 px text to 10.5 px.
constexpr double plot_width = 480, plot_height = 300;
constexpr double left_margin = 62, right_margin = 14, bottom_margin = 46, legend_height = 24;

std::string number(double v) {
  std::string text = fmt::format("{:.1f}", v);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

std::string open_svg(double width, double height, const std::string& label) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"{}>\n",
      number(width), number(height), escape_html(label),
      width > plot_width
          ? fmt::format(" style=\"min-width:{}px;max-width:{}px\"", number(width * 0.8), number(width * 1.3))
          : "");
}

std::string text_at(double x, double y, const char* anchor, const char* css, const std::string& text) {
  return fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\" class=\"{}\">{}</text>\n", number(x), number(y),
                     anchor, css, escape_html(text));
}

std::string line_at(double x1, double y1, double x2, double y2, const char* css) {
  return fmt::format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{}\"/>\n", number(x1), number(y1),
                     number(x2), number(y2), css);
}

std::string title_of(const std::string& tooltip) {
  return tooltip.empty() ? std::string() : "<title>" + escape_html(tooltip) + "</title>";
}

struct Axis {
  double low = 0, high = 1;
  bool log = false;
  std::vector<double> ticks;
  std::vector<std::string> names;

  double share(double v) const {
    return log ? (std::log10(v) - std::log10(low)) / (std::log10(high) - std::log10(low)) : (v - low) / (high - low);
  }
};

double nice_step(double range, int count) {
  const double raw = range / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double lead = raw / power;
  return (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10) * power;
}

// widen: the ends move out to whole ticks.
Axis linear_axis(double low, double high, bool integer, bool percent, bool widen) {
  Axis axis;
  if (!(low <= high)) low = 0, high = 1;
  if (high - low < 1e-12 * std::max(1.0, std::fabs(high))) {
    const double pad = percent || std::fabs(high) <= 1 ? 0.01 : 1;
    low -= pad, high += pad;
    if (percent) high = std::min(high, std::max(1.0, low + pad));
  }
  double step = nice_step(high - low, 5);
  if (integer) step = std::max(1.0, std::round(step));
  axis.low = widen ? std::floor(low / step + 1e-9) * step : low;
  axis.high = widen ? std::ceil(high / step - 1e-9) * step : high;
  const double shown = percent ? 100 * step : step;
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(shown) - 1e-9)), 0, 8);
  for (double i = std::ceil(axis.low / step - 1e-9); i * step <= axis.high + 1e-9 * step; ++i) {
    // + 0.0 turns -0 into 0.
    const double v = i * step + 0.0;
    axis.ticks.push_back(v);
    axis.names.push_back(percent ? format_percent(v, decimals) : format_fixed(v, decimals));
  }
  return axis;
}

Axis log_axis(double low, double high) {
  Axis axis;
  axis.log = true;
  if (!(low > 0 && low <= high)) low = 0.1, high = 1;
  if (low == high) low /= 2, high *= 2;
  axis.low = low, axis.high = high;
  const int first = static_cast<int>(std::ceil(std::log10(low) - 1e-9)),
            last = static_cast<int>(std::floor(std::log10(high) + 1e-9));
  const int every = std::max(1, (last - first + 6) / 6);
  for (int e = first; e <= last; e += every) {
    axis.ticks.push_back(std::pow(10.0, e));
    axis.names.push_back(e < -4 || e > 5 ? fmt::format("1e{}", e) : format_fixed(std::pow(10.0, e), std::max(0, -e)));
  }
  return axis;
}

struct Frame {
  double left = left_margin, top = 10, right = plot_width - right_margin, bottom = plot_height - bottom_margin;
  double x(double share) const { return left + share * (right - left); }
  double y(double share) const { return bottom - share * (bottom - top); }
};

// Wide enough for the axis label and the longest tick name: about 7.5 px a character.
Frame frame_beside(const Axis& y) {
  Frame frame;
  for (const std::string& name : y.names) frame.left = std::max(frame.left, 28 + 7.5 * display_width(name));
  return frame;
}

struct LegendEntry {
  std::string name;
  int color;
  bool muted;
};

// Names side by side above the plot, wrapped; moves the frame's top down.
std::string legend(const std::vector<LegendEntry>& entries, Frame& frame) {
  std::string out;
  double x = frame.left, y = 14;
  for (const LegendEntry& entry : entries) {
    const double width = 26 + 7.4 * static_cast<double>(entry.name.size());
    if (x > frame.left && x + width > frame.right) x = frame.left, y += 20;
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" rx=\"3\" class=\"{}\"/>\n", number(x),
                       number(y - 10), entry.muted ? "behind" : fmt::format("mark c{}", entry.color));
    out += text_at(x + 18, y + 1, "start", "tick", entry.name);
    x += width;
  }
  if (!entries.empty()) frame.top = y + legend_height - 10;
  return out;
}

std::string axis_labels(const Frame& frame, const std::string& x_label, const std::string& y_label) {
  std::string out = text_at((frame.left + frame.right) / 2, plot_height - 6, "middle", "label", x_label);
  const double middle = (frame.top + frame.bottom) / 2;
  out +=
      fmt::format("<text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\" class=\"label\">{}</text>\n",
                  number(middle), escape_html(y_label));
  return out;
}

std::string y_axis(const Frame& frame, const Axis& axis) {
  std::string out;
  for (std::size_t i = 0; i < axis.ticks.size(); ++i) {
    const double y = frame.y(axis.share(axis.ticks[i]));
    out += line_at(frame.left, y, frame.right, y, "gridline");
    out += text_at(frame.left - 6, y + 4.5, "end", "tick", axis.names[i]);
  }
  return out;
}

std::string x_axis(const Frame& frame, const Axis& axis) {
  std::string out = line_at(frame.left, frame.bottom, frame.right, frame.bottom, "axis");
  for (std::size_t i = 0; i < axis.ticks.size(); ++i) {
    const double x = frame.x(axis.share(axis.ticks[i]));
    out += line_at(x, frame.bottom, x, frame.bottom + 5, "axis");
    out += text_at(x, frame.bottom + 19, "middle", "tick", axis.names[i]);
  }
  return out;
}

bool drawable(const PlotPoint& p, bool log_x) {
  return std::isfinite(p.x) && std::isfinite(p.y) && (!log_x || p.x > 0);
}

bool has_interval(const PlotPoint& p) { return std::isfinite(p.low) && std::isfinite(p.high) && p.low < p.high; }

std::string draw_series(const PlotSeries& series, const Frame& frame, const Axis& ax, const Axis& ay) {
  std::string path, upper, lower, out, marks;
  for (const PlotPoint& p : series.points) {
    if (!drawable(p, ax.log)) continue;
    const double x = frame.x(ax.share(p.x)), y = frame.y(ay.share(p.y));
    path += fmt::format("{}{} {}", path.empty() ? "M" : "L", number(x), number(y));
    const double low = has_interval(p) ? p.low : p.y, high = has_interval(p) ? p.high : p.y;
    upper += fmt::format("{}{} {}", upper.empty() ? "M" : "L", number(x), number(frame.y(ay.share(high))));
    lower = fmt::format("L{} {}", number(x), number(frame.y(ay.share(low)))) + lower;
    std::string bar;
    if (!series.band && has_interval(p)) {
      bar = line_at(x, frame.y(ay.share(low)), x, frame.y(ay.share(high)), "whisker");
    }
    marks += fmt::format("<g class=\"pt\">{}{}<circle cx=\"{}\" cy=\"{}\" r=\"{}\"/></g>\n", title_of(p.tooltip), bar,
                         number(x), number(y), series.points.size() > 60 ? "2" : "4");
  }
  out += fmt::format("<g class=\"c{}\">\n", series.color);
  if (series.band && !upper.empty()) out += "<path class=\"band\" d=\"" + upper + lower + "Z\"/>\n";
  if (series.line && !path.empty()) out += "<path class=\"line\" d=\"" + path + "\"/>\n";
  return out + marks + "</g>\n";
}

}  // namespace

std::string svg_plot(const Plot& plot) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  double x_low = inf, x_high = -inf, y_low = inf, y_high = -inf;
  for (const PlotSeries& series : plot.series) {
    for (const PlotPoint& p : series.points) {
      if (!drawable(p, plot.log_x)) continue;
      x_low = std::min(x_low, p.x), x_high = std::max(x_high, p.x);
      y_low = std::min(y_low, has_interval(p) ? p.low : p.y), y_high = std::max(y_high, has_interval(p) ? p.high : p.y);
    }
  }
  for (const PlotBar& bar : plot.background) {
    if (plot.log_x && bar.left <= 0) continue;
    x_low = std::min(x_low, bar.left), x_high = std::max(x_high, bar.right);
  }
  if (plot.y_from_zero) y_low = 0;
  Axis ax = plot.log_x ? log_axis(x_low, x_high) : linear_axis(x_low, x_high, plot.integer_x, false, false);
  const Axis ay = linear_axis(y_low, y_high, false, plot.y_percent, true);

  std::string out = open_svg(plot_width, plot_height, plot.label);
  Frame frame = frame_beside(ay);
  std::vector<LegendEntry> entries;
  for (const PlotSeries& series : plot.series) {
    if (!series.name.empty()) entries.push_back({series.name, series.color, false});
  }
  if (!plot.background_name.empty()) entries.push_back({plot.background_name, 0, true});
  out += legend(entries, frame);
  // Points at the ends would sit on the axis.
  Frame inner = frame;
  if (plot.background.empty()) inner.left += 10, inner.right -= 8;
  out += y_axis(frame, ay);
  for (const PlotBar& bar : plot.background) {
    if (!std::isfinite(bar.height) || (plot.log_x && bar.left <= 0)) continue;
    const double x1 = inner.x(ax.share(bar.left)), x2 = inner.x(ax.share(bar.right));
    const double top = inner.y(std::clamp(bar.height, 0.0, 1.0) * 0.96);
    out +=
        fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"behind\">{}</rect>\n", number(x1 + 0.5),
                    number(top), number(std::max(0.5, x2 - x1 - 1)), number(inner.bottom - top), title_of(bar.tooltip));
  }
  out += line_at(frame.left, frame.bottom, frame.right, frame.bottom, "axis");
  out += x_axis(inner, ax);
  for (const PlotSeries& series : plot.series) out += draw_series(series, inner, ax, ay);
  return out + axis_labels(frame, plot.x_label, plot.y_label) + "</svg>\n";
}

std::string svg_bars(const BarChart& chart) {
  double high = 0;
  for (const PlotSeries& series : chart.series) {
    KEDGE_CHECK(series.points.size() == chart.categories.size());
    for (const PlotPoint& p : series.points) {
      if (std::isfinite(p.y)) high = std::max({high, p.y, has_interval(p) ? p.high : p.y});
    }
  }
  const Axis ay = linear_axis(0, high > 0 ? high : 1, false, chart.y_percent, true);
  std::string out = open_svg(plot_width, plot_height, chart.label);
  Frame frame = frame_beside(ay);
  std::vector<LegendEntry> entries;
  for (const PlotSeries& series : chart.series) {
    if (!series.name.empty()) entries.push_back({series.name, series.color, false});
  }
  out += legend(entries, frame) + y_axis(frame, ay);
  const double n = std::max<double>(1, static_cast<double>(chart.categories.size()));
  const double slot = (frame.right - frame.left) / n,
               bar = slot * 0.72 / std::max<double>(1, static_cast<double>(chart.series.size()));
  const std::size_t every = static_cast<std::size_t>(std::ceil(n / 12));
  for (std::size_t i = 0; i < chart.categories.size(); ++i) {
    if (i % every != 0 && i + 1 != chart.categories.size()) continue;
    if (i + 1 == chart.categories.size() && i % every != 0 && i % every < (every + 1) / 2) continue;
    out += text_at(frame.left + (static_cast<double>(i) + 0.5) * slot, frame.bottom + 19, "middle", "tick",
                   chart.categories[i]);
  }
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    out += fmt::format("<g class=\"c{}\">\n", chart.series[s].color);
    for (std::size_t i = 0; i < chart.categories.size(); ++i) {
      const PlotPoint& p = chart.series[s].points[i];
      if (!std::isfinite(p.y)) continue;
      const double x = frame.left + (static_cast<double>(i) + 0.14) * slot + static_cast<double>(s) * bar;
      const double top = frame.y(ay.share(p.y));
      out += fmt::format("<g class=\"pt\">{}<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"bar\"/>{}</g>\n",
                         title_of(p.tooltip), number(x), number(top), number(bar * 0.94), number(frame.bottom - top),
                         has_interval(p) ? line_at(x + bar * 0.47, frame.y(ay.share(std::max(0.0, p.low))),
                                                   x + bar * 0.47, frame.y(ay.share(p.high)), "whisker dark")
                                         : std::string());
    }
    out += "</g>\n";
  }
  out += line_at(frame.left, frame.bottom, frame.right, frame.bottom, "axis");
  return out + axis_labels(frame, chart.x_label, chart.y_label) + "</svg>\n";
}

std::string svg_picture(const Picture& picture) {
  KEDGE_CHECK(static_cast<int>(picture.values.size()) == picture.width * picture.height);
  constexpr int kSide = 10;  // of a square: two values never share a pixel of the screen
  std::string out = open_svg(kSide * picture.width, kSide * picture.height, picture.label);
  out += "<g fill=\"currentColor\">\n";
  for (int i = 0; i < picture.width * picture.height; ++i) {
    const double v = picture.values[static_cast<std::size_t>(i)];
    if (!(v >= 0.005)) continue;
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill-opacity=\"{:.2f}\"/>\n",
                       kSide * (i % picture.width), kSide * (i / picture.width), kSide, kSide, std::min(1.0, v));
  }
  return out + "</g>\n</svg>\n";
}

std::string svg_heat_map(const HeatMap& map) {
  const std::size_t rows = map.rows.size(), columns = map.columns.size();
  KEDGE_CHECK(map.values.size() == rows * columns && map.tooltips.size() == rows * columns);
  double scale = map.scale;
  if (scale <= 0) {
    for (double v : map.values) {
      if (std::isfinite(v)) scale = std::max(scale, std::fabs(v));
    }
  }
  const double left = 44, top = 34,
               cell_w = std::clamp(420.0 / std::max<double>(1, static_cast<double>(columns)), 9.0, 40.0);
  const double cell_h = std::clamp(220.0 / std::max<double>(1, static_cast<double>(rows)), 12.0, 30.0);
  const double width = std::max(plot_width, left + cell_w * static_cast<double>(columns) + 12);
  const double height = top + cell_h * static_cast<double>(rows) + 44;
  std::string out = open_svg(width, height, map.label);

  // The colour scale: words, steps, words.
  double x = left + 7.8 * display_width(map.scale_low) + 10;
  out += text_at(left, 15, "start", "tick", map.scale_low);
  for (int i = 0; i <= 8; ++i) {
    const double v = map.diverging ? i / 4.0 - 1 : i / 8.0;
    out += fmt::format("<rect x=\"{}\" y=\"4\" width=\"12\" height=\"12\" class=\"{}\" fill-opacity=\"{:.3f}\"/>\n",
                       number(x), v < 0 ? "cell less" : "cell more", std::fabs(v));
    x += 12;
  }
  out += text_at(x + 8, 15, "start", "tick", map.scale_high);

  const std::size_t every_row = cell_h < 14 ? 2 : 1, every_column = static_cast<std::size_t>(std::ceil(26 / cell_w));
  for (std::size_t r = 0; r < rows; ++r) {
    const double y = top + cell_h * static_cast<double>(r);
    if (r % every_row == 0) out += text_at(left - 6, y + cell_h / 2 + 4.5, "end", "tick", map.rows[r]);
    for (std::size_t c = 0; c < columns; ++c) {
      const double v = map.values[r * columns + c];
      const double opacity = std::isfinite(v) && scale > 0 ? std::min(1.0, std::fabs(v) / scale) : 0;
      out += fmt::format(
          "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"cell {}\" fill-opacity=\"{:.3f}\">{}</rect>\n",
          number(left + cell_w * static_cast<double>(c)), number(y), number(cell_w - 1), number(cell_h - 1),
          map.diverging && v < 0 ? "less" : "more", opacity, title_of(map.tooltips[r * columns + c]));
    }
  }
  const double bottom = top + cell_h * static_cast<double>(rows);
  for (std::size_t c = 0; c < columns; c += every_column) {
    out += text_at(left + cell_w * (static_cast<double>(c) + 0.5), bottom + 16, "middle", "tick", map.columns[c]);
  }
  out += text_at(left + cell_w * static_cast<double>(columns) / 2, bottom + 36, "middle", "label", map.x_label);
  out +=
      fmt::format("<text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\" class=\"label\">{}</text>\n",
                  number((top + bottom) / 2), escape_html(map.y_label));
  return out + "</svg>\n";
}

}  // namespace kedge
