#include "report/html.h"

#include "report/text.h"

namespace kedge {
namespace {

constexpr const char* style = R"css(
:root{color-scheme:light dark;--bg:#f4f5f7;--card:#fff;--text:#1b2027;--muted:#586270;--line:#dfe3e8;--soft:#eef1f4;
--behind:#dfe4ea;--shade:#00000026;--c0:#0b66c3;--c1:#c2410c;--c2:#15803d;--c3:#7c3aed;--c4:#b45309;--c5:#be185d}
@media (prefers-color-scheme:dark){:root{--bg:#0e1216;--card:#161b21;--text:#e7eaee;--muted:#9ba6b3;--line:#2a323b;--soft:#1d242c;
--behind:#2b343e;--shade:#ffffff2e;--c0:#6cb4ff;--c1:#ff9457;--c2:#5bd08f;--c3:#bb9af7;--c4:#f2b44c;--c5:#f78fb8}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 56px}
.eyebrow{margin:0 0 6px;color:var(--muted);font-size:14px;overflow-wrap:anywhere}
h1{margin:0 0 8px;font-size:clamp(22px,3.4vw,32px);line-height:1.22;font-weight:650;letter-spacing:-.01em;text-wrap:balance}
.detail{margin:0 0 20px;color:var(--muted);max-width:75ch}
h2{margin:40px 0 4px;font-size:20px;font-weight:650}
section>p:not(.caption){margin:0 0 14px;color:var(--muted);max-width:75ch}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0}
.figures div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.figures dt{color:var(--muted);font-size:13px}
.figures dd{margin:0}
.figures .value{font-size:24px;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums}
.figures .note{color:var(--muted);font-size:13px;font-variant-numeric:tabular-nums}
.grid{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 14px 10px;min-width:0;grid-column:span 3}
figure.full{grid-column:1/-1}
figure.third{grid-column:span 2}
figure h3{margin:0 0 2px;font-size:16px;font-weight:600}
figcaption{color:var(--muted);font-size:13.5px;margin-bottom:8px}
.draw{overflow-x:auto}
svg{display:block;width:100%;height:auto}
@media (max-width:820px){.grid{grid-template-columns:minmax(0,1fr)}figure,figure.third,figure.full{grid-column:auto}main{padding:20px 14px 40px}figure{padding:12px 10px 8px}}
/* A shade at the right edge, covered by a layer that moves with the table, where more columns follow. */
.scroll{overflow-x:auto;background:linear-gradient(90deg,transparent,var(--card) 60%) right/48px 100% no-repeat local,
linear-gradient(90deg,transparent,var(--shade)) right/16px 100% no-repeat scroll,var(--card);border:1px solid var(--line);border-radius:10px;margin:0 0 14px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
.caption{margin:20px 0 8px;font-weight:600;font-size:15px}
.ci{display:block;color:var(--muted);font-size:12px;font-weight:400}
th,td{padding:6px 10px;vertical-align:top;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
thead th{color:var(--muted);font-weight:500;border-top:0;vertical-align:bottom}
.t{text-align:left}
tbody tr:hover{background:var(--soft)}
tbody tr.total td{font-weight:650;border-top:2px solid var(--line)}
th:first-child,td:first-child{position:sticky;left:0;background:var(--card)}
tbody tr:hover td:first-child{background:var(--soft)}
.facts{display:grid;grid-template-columns:minmax(120px,max-content) minmax(0,1fr);gap:4px 18px;margin:0;background:var(--card);
border:1px solid var(--line);border-radius:10px;padding:12px 14px;font-size:14px}
.facts dt{color:var(--muted)}
.facts dd{margin:0;overflow-wrap:anywhere}
@media (max-width:520px){th,td{padding:6px 8px}td.t{white-space:normal;overflow-wrap:anywhere;min-width:84px}.facts{grid-template-columns:minmax(0,1fr);gap:0}.facts dd{margin-bottom:8px}}
text{font:14px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--muted)}
.tick{font-size:13px;font-variant-numeric:tabular-nums}
.gridline{stroke:var(--line);stroke-width:1}
.axis{stroke:var(--muted);stroke-width:1}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.band{fill:currentColor;opacity:.18}
.mark,.bar{fill:currentColor}
.pt circle{fill:currentColor;stroke:var(--card);stroke-width:1}
.pt:hover circle{stroke:currentColor;stroke-width:5;stroke-opacity:.35}
.whisker{stroke:currentColor;stroke-width:2;stroke-opacity:.55}
.whisker.dark{stroke:var(--text)}
.behind{fill:var(--behind)}
.cell{stroke:var(--line);stroke-width:.5}
.more{fill:var(--c0)}.less{fill:var(--c1)}
.pt:hover .bar,.cell:hover,.behind:hover{stroke:var(--text);stroke-width:1.5}
#tip{position:fixed;z-index:9;pointer-events:none;max-width:min(280px,80vw);padding:6px 10px;border-radius:7px;background:var(--text);
color:var(--card);font-size:13px;line-height:1.4;white-space:pre-line;opacity:0}
footer{margin-top:36px;color:var(--muted);font-size:13px}
@media print{body{background:#fff}figure,.scroll,.facts{break-inside:avoid}}
)css";

// Shows an element's <title> at once and on touch, where browsers would wait or show nothing. Without scripts the
// browser's own tooltips stay.
constexpr const char* script = R"js(
(function () {
  var tip = document.createElement('div');
  tip.id = 'tip';
  document.body.appendChild(tip);
  document.querySelectorAll('svg title').forEach(function (t) {
    t.parentNode.setAttribute('data-tip', t.textContent);
    t.remove();
  });
  function show(e) {
    var el = e.target.closest ? e.target.closest('[data-tip]') : null;
    if (!el) { tip.style.opacity = 0; return; }
    tip.textContent = el.getAttribute('data-tip');
    var w = tip.offsetWidth, h = tip.offsetHeight;
    var x = Math.min(Math.max(8, e.clientX - w / 2), document.documentElement.clientWidth - w - 8);
    var y = e.clientY - h - 14;
    tip.style.left = x + 'px';
    tip.style.top = (y < 8 ? e.clientY + 18 : y) + 'px';
    tip.style.opacity = 1;
  }
  document.addEventListener('pointermove', show);
  document.addEventListener('pointerdown', show);
  document.addEventListener('scroll', function () { tip.style.opacity = 0; }, true);
})();
)js";

std::string element(const char* tag, const char* css, const std::string& text) {
  const std::string attribute = *css ? std::string(" class=\"") + css + "\"" : std::string();
  return std::string("<") + tag + attribute + ">" + escape_html(text) + "</" + tag + ">";
}

std::string cell(const char* css, const std::string& text) {
  const std::size_t at = text.find(" [");
  if (at == std::string::npos) return element("td", css, text);
  std::string td = element("td", css, text.substr(0, at));
  return td.insert(td.size() - 5, element("span", "ci", text.substr(at + 1)));
}

// "4.7e-05" in running text: browsers break lines after a hyphen, a word joiner (U+2060) forbids it.
std::string unbroken_numbers(std::string text) {
  for (std::size_t at = 0; (at = text.find("e-", at)) != std::string::npos; at += 2) {
    const auto digit = [&](std::size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
    if (at > 0 && digit(at - 1) && digit(at + 2)) text.insert(at + 2, "\xe2\x81\xa0");
  }
  return text;
}

}  // namespace

HtmlPage::HtmlPage(std::string title) : title_(std::move(title)) {}

void HtmlPage::close_grid() {
  if (in_grid_) body_ += "</div>\n";
  in_grid_ = false;
}

void HtmlPage::lead(const std::string& eyebrow, const std::string& verdict, const std::string& detail) {
  body_ += element("p", "eyebrow", eyebrow) + "\n" + element("h1", "", unbroken_numbers(verdict)) + "\n" +
           element("p", "detail", detail) + "\n";
}

void HtmlPage::key_figures(const std::vector<KeyFigure>& figures) {
  close_grid();
  body_ += "<dl class=\"figures\">\n";
  for (const KeyFigure& f : figures) {
    body_ += "<div>" + element("dt", "", f.label) + element("dd", "value", f.value) + element("dd", "note", f.note) +
             "</div>\n";
  }
  body_ += "</dl>\n";
}

void HtmlPage::section(const std::string& heading, const std::string& text) {
  close_grid();
  if (in_section_) body_ += "</section>\n";
  in_section_ = true;
  body_ += "<section>\n" + element("h2", "", heading) + "\n";
  if (!text.empty()) body_ += element("p", "", text) + "\n";
}

void HtmlPage::plot(const std::string& heading, const std::string& caption, const std::string& svg, PlotWidth width) {
  const char* css[] = {" class=\"third\"", "", " class=\"full\""};
  if (!in_grid_) body_ += "<div class=\"grid\">\n";
  in_grid_ = true;
  body_ += std::string("<figure") + css[static_cast<int>(width)] + ">" + element("h3", "", heading) +
           (caption.empty() ? std::string() : element("figcaption", "", caption)) + "\n<div class=\"draw\">" + svg +
           "</div></figure>\n";
}

void HtmlPage::table(const HtmlTable& table) {
  close_grid();
  if (!table.caption.empty()) body_ += element("p", "caption", table.caption) + "\n";
  body_ += "<div class=\"scroll\" tabindex=\"0\"><table>\n";
  const auto css = [&](std::size_t column) { return static_cast<int>(column) < table.text_columns ? "t" : ""; };
  body_ += "<thead><tr>";
  for (std::size_t i = 0; i < table.header.size(); ++i) body_ += element("th", css(i), table.header[i]);
  body_ += "</tr></thead>\n<tbody>\n";
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    body_ += table.last_row_is_total && r + 1 == table.rows.size() ? "<tr class=\"total\">" : "<tr>";
    for (std::size_t i = 0; i < table.rows[r].size(); ++i) body_ += cell(css(i), table.rows[r][i]);
    body_ += "</tr>\n";
  }
  body_ += "</tbody></table></div>\n";
}

void HtmlPage::facts(const std::vector<std::pair<std::string, std::string>>& facts) {
  close_grid();
  body_ += "<dl class=\"facts\">\n";
  for (const auto& [name, value] : facts) body_ += element("dt", "", name) + element("dd", "", value) + "\n";
  body_ += "</dl>\n";
}

std::string HtmlPage::str() const {
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
  out += "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n";
  // Without this a browser asks for /favicon.ico when the page is served.
  out += "<link rel=\"icon\" href=\"data:,\">\n";
  out += element("title", "", title_) + "\n<style>" + style + "</style>\n</head>\n<body>\n<main>\n" + body_;
  if (in_grid_) out += "</div>\n";
  if (in_section_) out += "</section>\n";
  out += std::string("</main>\n<script>") + script + "</script>\n</body>\n</html>\n";
  return out;
}

}  // namespace kedge
