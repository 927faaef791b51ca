// Plots as SVG fragments for report/html.h: lines and points with intervals, bars, heat maps.
//
// A fragment has a viewBox and no size, so that it scales with its box; at 360 px its text is still 10 px high.
// Colours come from the page's classes (c0, c1, ..., gridline, axis, tick), so that light and dark are the page's
// matter. Every mark has a <title>. Values that are not finite are left out.
#pragma once

#include <string>
#include <vector>

namespace kedge {

struct PlotPoint {
  double x = 0, y = 0;
  double low = 0, high = 0;  ///< the interval; low == high draws none
  std::string tooltip{};
};

struct PlotSeries {
  std::string name{};  ///< in the legend; empty: not there
  std::vector<PlotPoint> points{};
  int color = 0;      ///< 0..5
  bool line = true;   ///< joined in the order given
  bool band = false;  ///< the interval as a band, else as a bar
};

struct PlotBar {
  double left = 0, right = 0;  ///< in x
  double height = 0;           ///< share of the plot's height: 0..1
  std::string tooltip{};
};

struct Plot {
  std::string label{};  ///< for screen readers
  std::string x_label{}, y_label{};
  std::vector<PlotSeries> series{};
  std::vector<PlotBar> background{};  ///< bars behind the series, on a scale of their own
  std::string background_name{};      ///< in the legend
  bool log_x = false;
  bool integer_x = false;  ///< ticks at whole numbers only
  bool y_from_zero = false;
  bool y_percent = false;  ///< y values are shares; ticks in percent
};
std::string svg_plot(const Plot& plot);

struct BarChart {
  std::string label{}, x_label{}, y_label{};
  std::vector<std::string> categories{};
  std::vector<PlotSeries> series{};  ///< points[i].y belongs to categories[i]; x is not read
  bool y_percent = false;
};
std::string svg_bars(const BarChart& chart);

struct HeatMap {
  std::string label{}, x_label{}, y_label{};
  std::vector<std::string> rows{}, columns{};
  std::vector<double> values{};           ///< [rows, columns]
  std::vector<std::string> tooltips{};    ///< [rows, columns]
  bool diverging = false;                 ///< two colours around 0, else one from 0
  double scale = 0;                       ///< value of the full colour; 0: the largest there is
  std::string scale_low{}, scale_high{};  ///< the words at the ends of the colour scale
};
/// Wider than the other plots when there are many columns; the page then lets it scroll.
std::string svg_heat_map(const HeatMap& map);

/// A small grey picture: values [height, width] from 0 to 1, each a square as dark as its value (as light, on a dark
/// page).
struct Picture {
  std::string label{};
  int width = 0, height = 0;
  std::vector<double> values{};
};
std::string svg_picture(const Picture& picture);

}  // namespace kedge
