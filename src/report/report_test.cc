#include <gtest/gtest.h>

#include <limits>

#include "report/html.h"
#include "report/svg.h"
#include "report/table.h"
#include "report/text.h"

namespace kedge {
namespace {

// Opening and closing tags must nest; void elements have no end. Returns the first thing that is wrong.
std::string first_markup_error(const std::string& page) {
  std::vector<std::string> open;
  for (std::size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at + 1)) {
    if (page.compare(at, 2, "<!") == 0) continue;
    const std::size_t end = page.find('>', at);
    if (end == std::string::npos) return "tag without end";
    const bool closing = page[at + 1] == '/', self = page[end - 1] == '/';
    const std::size_t begin = at + (closing ? 2 : 1);
    const std::string name = page.substr(begin, page.find_first_of(" />", begin) - begin);
    if (closing) {
      if (open.empty() || open.back() != name)
        return "</" + name + "> closes <" + (open.empty() ? "" : open.back()) + ">";
      open.pop_back();
      continue;
    }
    if (name == "script" || name == "style") {
      at = page.find("</" + name, end) - 1;
      open.push_back(name);
      continue;
    }
    if (!self && name != "meta" && name != "link") open.push_back(name);
  }
  return open.empty() ? "" : "<" + open.back() + "> stays open";
}

TEST(Text, Escapes) {
  EXPECT_EQ(escape_html("<a href=\"x\">'&'"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;");
  EXPECT_EQ(escape_html("na\xc3\xafve \xff\x01"), "na\xc3\xafve \xef\xbf\xbd\xef\xbf\xbd");
}

TEST(Text, RejectsBrokenUtf8) {
  EXPECT_FALSE(next_utf8("\xc0\xaf").valid);          // overlong
  EXPECT_FALSE(next_utf8("\xed\xa0\x80").valid);      // surrogate
  EXPECT_FALSE(next_utf8("\xf4\x90\x80\x80").valid);  // above U+10FFFF
  EXPECT_FALSE(next_utf8("\xe6\x9d").valid);          // cut
  EXPECT_EQ(next_utf8("\xe6\x9d\xb1x").code, 0x6771u);
}

TEST(Text, Numbers) {
  EXPECT_EQ(format_number(0.0036807), "0.00368");
  EXPECT_EQ(format_number(102.4368, 4), "102.4");
  EXPECT_EQ(format_number(1.234e-7), "1.23e-07");
  EXPECT_EQ(format_number(0), "0");
  EXPECT_EQ(format_number(std::numeric_limits<double>::quiet_NaN()), "n/a");
  EXPECT_EQ(format_percent(0.02347), "2.35 %");
  EXPECT_EQ(format_count(8192), "8,192");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
  EXPECT_EQ(format_count(999), "999");
}

TEST(Table, AlignsByDisplayWidth) {
  EXPECT_EQ(display_width("東京"), 4);
  EXPECT_EQ(display_width("e\xcc\x81"), 1);
  TextTable table({"name", "n"});
  table.add_row({"東京", "1"});
  table.add_row({"a", "1000"});
  table.add_rule();
  table.add_row({"naïve"});
  EXPECT_EQ(table.str(),
            "name      n\n"
            "───────────\n"
            "東京      1\n"
            "a      1000\n"
            "───────────\n"
            "naïve\n");
}

Plot sample_plot() {
  Plot plot{.label = "J <by> layer", .x_label = "layer", .y_label = "J"};
  plot.series.push_back(
      {.name = "a & b", .points = {{0, 0.99, 0.98, 1.0, "layer 0"}, {1, 0.95, 0.95, 0.95, "layer 1"}}});
  return plot;
}

TEST(Svg, PlotIsWellFormedAndLabelled) {
  const std::string svg = svg_plot(sample_plot());
  EXPECT_EQ(first_markup_error(svg), "");
  EXPECT_NE(svg.find("<title>layer 0</title>"), std::string::npos);
  EXPECT_NE(svg.find("a &amp; b"), std::string::npos);
  EXPECT_NE(svg.find("class=\"whisker\""), std::string::npos);
}

TEST(Svg, LeavesOutWhatIsNotFinite) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  Plot plot = sample_plot();
  plot.log_x = true;
  plot.series[0].points = {{0, 1}, {nan, 1}, {1, inf}, {10, 2, nan, nan}, {100, 3}};
  plot.background = {{0, 1, 1, ""}, {1, 10, nan, ""}, {10, 100, 0.5, ""}};
  const std::string svg = svg_plot(plot);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_EQ(first_markup_error(svg), "");
}

TEST(Svg, DrawsEmptyAndConstantData) {
  EXPECT_EQ(first_markup_error(svg_plot(Plot{})), "");
  EXPECT_EQ(first_markup_error(svg_bars(BarChart{})), "");
  EXPECT_EQ(first_markup_error(svg_heat_map(HeatMap{})), "");
  Plot plot = sample_plot();
  for (PlotPoint& p : plot.series[0].points) p = {3, 1, 1, 1, ""};
  plot.y_percent = true;
  const std::string svg = svg_plot(plot);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_NE(svg.find("100.0 %"), std::string::npos);
  plot.series[0].points = {{0, 0.001}, {1, 0.05}};
  plot.y_from_zero = true;
  EXPECT_NE(svg_plot(plot).find(">0 %<"), std::string::npos);
}

// The label's glyphs end about 18 px from the left; a digit takes at most 7.5.
TEST(Svg, LongTickNamesStayClearOfTheAxisLabel) {
  for (const double high : {1.0, 1e-3, 1e-6}) {
    Plot plot = sample_plot();
    plot.series[0].points = {{0, 0.1 * high}, {1, high}};
    plot.y_from_zero = true;
    const std::string svg = svg_plot(plot);
    int ticks = 0;
    for (std::size_t at = 0; (at = svg.find("text-anchor=\"end\"", at)) != std::string::npos; ++at, ++ticks) {
      const double x = std::stod(svg.substr(svg.rfind("x=\"", at) + 3));
      const std::size_t begin = svg.find('>', at) + 1;
      EXPECT_GT(x - 7.5 * static_cast<double>(svg.find('<', begin) - begin), 18) << svg.substr(begin, 12);
    }
    EXPECT_GE(ticks, 3);
  }
}

TEST(Svg, HeatMapShadesByValue) {
  HeatMap map{.rows = {"0"}, .columns = {"0", "1"}, .values = {1.0, -0.5}, .tooltips = {"a", "b"}, .diverging = true};
  const std::string svg = svg_heat_map(map);
  EXPECT_NE(svg.find("class=\"cell less\" fill-opacity=\"0.500\"><title>b"), std::string::npos);
}

TEST(Svg, PicturesDarkenByValue) {
  const std::string svg = svg_picture({.label = "<mean>", .width = 2, .height = 2, .values = {0, 0.5, 1, 0.001}});
  EXPECT_NE(svg.find("&lt;mean&gt;"), std::string::npos);
  EXPECT_NE(svg.find("x=\"10\" y=\"0\" width=\"10\" height=\"10\" fill-opacity=\"0.50\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("x=\"0\" y=\"10\" width=\"10\" height=\"10\" fill-opacity=\"1.00\""), std::string::npos);
  EXPECT_EQ(svg.find("x=\"10\" y=\"10\""), std::string::npos);
}

TEST(Html, IsWellFormedSelfContainedAndEscaped) {
  HtmlPage page("<script>alert(1)</script>");
  page.lead("a", "b < c by 4.7e-05, one-to-one", "d");
  page.key_figures({{"label", "1", "note"}});
  page.section("plots");
  page.plot("one", "caption", svg_plot(sample_plot()));
  page.plot("two", "caption", svg_plot(sample_plot()), PlotWidth::full);
  page.section("tables", "text");
  page.table({.caption = "t", .header = {"layer", "x"}, .rows = {{"0", "<1 [0, 2]"}}, .last_row_is_total = true});
  page.facts({{"key", "value"}});
  std::string html = page.str();
  EXPECT_EQ(first_markup_error(html), "");
  EXPECT_EQ(html.find("<script>alert"), std::string::npos);
  EXPECT_NE(html.find("b &lt; c by 4.7e-\xe2\x81\xa0"
                      "05, one-to-one</h1>"),
            std::string::npos);
  EXPECT_NE(html.find("<td>&lt;1<span class=\"ci\">[0, 2]</span></td>"), std::string::npos);
  const std::string name_space = "http://www.w3.org/2000/svg";
  for (std::size_t at; (at = html.find(name_space)) != std::string::npos;) html.erase(at, name_space.size());
  EXPECT_EQ(html.find("http:"), std::string::npos);
  EXPECT_EQ(html.find("https:"), std::string::npos);
  EXPECT_EQ(html.find("url("), std::string::npos);
}

}  // namespace
}  // namespace kedge
