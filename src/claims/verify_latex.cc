// The verdicts as a LaTeX document: a function of summary.json alone, as every other table of a bundle.
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "claims/verify_summary.h"
#include "kedge/error.h"
#include "kedge/verify.h"

namespace kedge {
namespace {

// What LaTeX reads as a command, and what kedge's texts hold beyond ASCII.
constexpr std::pair<std::string_view, std::string_view> kEscapes[] = {{"\\", "\\textbackslash{}"},
                                                                      {"{", "\\{"},
                                                                      {"}", "\\}"},
                                                                      {"$", "\\$"},
                                                                      {"&", "\\&"},
                                                                      {"#", "\\#"},
                                                                      {"%", "\\%"},
                                                                      {"_", "\\_"},
                                                                      {"^", "\\^{}"},
                                                                      {"~", "\\~{}"},
                                                                      {"<", "$<$"},
                                                                      {">", "$>$"},
                                                                      {"|", "$|$"},
                                                                      {"\n", " "},
                                                                      {"−", "$-$"},
                                                                      {"≤", "$\\leq$"},
                                                                      {"≥", "$\\geq$"},
                                                                      {"×", "$\\times$"}};

// Letters up to U+017F pass as UTF-8. What pdflatex has no definition for becomes "?": a document that cannot be set
// helps nobody.
std::string latex(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    bool found = false;
    for (const auto& [from, to] : kEscapes) {
      if (!text.starts_with(from)) continue;
      out += to;
      text.remove_prefix(from.size());
      found = true;
      break;
    }
    if (found) continue;
    const auto byte = static_cast<unsigned char>(text.front());
    const bool letter = byte >= 0xC3 && byte <= 0xC5 && text.size() > 1;
    if (letter) {
      out += text.substr(0, 2);
    } else if (byte >= 0xC0) {  // the first byte of a character; the others are dropped
      out += '?';
    } else if (byte >= 0x20 && byte < 0x80) {
      out += text.front();
    }
    text.remove_prefix(letter ? 2 : 1);
  }
  return out;
}

std::string text_of(const Json& object, const char* key) { return object.at(key).get<std::string>(); }

std::string outcome_of(const Json& claim) {
  return latex(text_of(claim, claim.at("estimate").is_null() ? "reason" : "measured"));
}

std::string table(const Json& claims) {
  std::string out =
      "\\small\n\\begin{longtable}{p{0.13\\textwidth}p{0.33\\textwidth}p{0.19\\textwidth}p{0.19\\textwidth}r}\n"
      "\\textbf{verdict} & \\textbf{claim} & \\textbf{measured} & \\textbf{required} & \\textbf{n} \\\\\n"
      "\\hline\n\\endhead\n";
  for (const Json& claim : claims) {
    const bool ran = !claim.at("estimate").is_null();
    const std::string verdict = latex(text_of(claim, "verdict"));
    out += fmt::format("{} & {} ({}, track {}; {}) & {} & {} & {} \\\\\n",
                       verdict == "upheld" ? verdict : "\\textbf{" + verdict + "}", latex(text_of(claim, "statement")),
                       latex(text_of(claim, "name")), latex(text_of(claim, "track")),
                       latex(text_of(claim, "claimed_by")), outcome_of(claim), latex(text_of(claim, "required")),
                       ran ? std::to_string(claim.at("estimate").at("n").get<std::int64_t>()) : "");
  }
  return out + "\\end{longtable}\n\\normalsize\n";
}

std::string section(const char* title, const Json& claims, bool proven) {
  std::string items;
  for (const Json& claim : claims) {
    const std::string verdict = text_of(claim, "verdict");
    if ((verdict == "upheld") != proven) continue;
    items += fmt::format("\\item {}{}: {}\n",
                         proven ? "" : "\\textbf{" + latex(verdict) + "}: ", latex(text_of(claim, "statement")),
                         outcome_of(claim));
  }
  if (items.empty()) items = "\\item nothing\n";
  return fmt::format("\\section*{{{}}}\n\\begin{{itemize}}\n{}\\end{{itemize}}\n", title, items);
}

}  // namespace

std::string latex_report(const std::string& summary_text) {
  const Json summary = parse_summary(summary_text);
  try {
    const Json& claims = summary.at("results").at("claims");
    return "\\documentclass[a4paper]{article}\n\\usepackage[margin=2cm]{geometry}\n\\usepackage{longtable}\n"
           "\\usepackage{textcomp}\n\\setlength{\\emergencystretch}{3em}\n\\begin{document}\n"
           "\\section*{Claims and their verdicts}\n" +
           latex(run_sentence(summary) + " " + counts_sentence(summary) + ".") + "\n\n" + table(claims) +
           section("Proven", claims, true) + section("Not proven", claims, false) + "\\end{document}\n";
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::bad_file, std::string("the summary is none of kedge verify: ") + error.what(),
                "kedge.verify/1");
  }
}

}  // namespace kedge
