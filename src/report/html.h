// One self-contained HTML page: a verdict, key figures, plots, tables, provenance. Inline style and script, nothing
// from a network, light and dark by the reader's preference, readable at 400 px.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace kedge {

struct KeyFigure {
  std::string label, value, note;
};

struct HtmlTable {
  std::string caption{};
  std::vector<std::string> header{};
  std::vector<std::vector<std::string>> rows{};  ///< what follows " [" in a cell (an interval) goes below, small
  int text_columns = 1;  ///< the first columns, aligned left; the others are numbers, aligned right
  bool last_row_is_total = false;
};

/// Of a row of the page, where the screen is wide enough.
enum class PlotWidth { third, half, full };

/// All texts are escaped; svg is taken as it is.
class HtmlPage {
 public:
  explicit HtmlPage(std::string title);
  void lead(const std::string& eyebrow, const std::string& verdict, const std::string& detail);
  void key_figures(const std::vector<KeyFigure>& figures);
  void section(const std::string& heading, const std::string& text = {});
  /// Plots that follow each other stand side by side.
  void plot(const std::string& heading, const std::string& caption, const std::string& svg,
            PlotWidth width = PlotWidth::half);
  void table(const HtmlTable& table);
  /// Names and values, for definitions and provenance.
  void facts(const std::vector<std::pair<std::string, std::string>>& facts);
  std::string str() const;

 private:
  void close_grid();
  std::string title_, body_;
  bool in_grid_ = false, in_section_ = false;
};

}  // namespace kedge
