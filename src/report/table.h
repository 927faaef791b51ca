// Tables for a terminal: plain text, columns aligned by display width (UTF-8), no colour.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kedge {

/// Columns that a terminal gives to this UTF-8 text: 0 for combining marks, 2 for wide East Asian characters and
/// emoji, 1 for each invalid byte.
int display_width(std::string_view text);

enum class Align { left, right };

class TextTable {
 public:
  /// Columns without an alignment are right-aligned, the first is left-aligned.
  explicit TextTable(std::vector<std::string> header, std::vector<Align> align = {});
  /// Missing cells are empty; more cells than columns are a bug (CHECK).
  void add_row(std::vector<std::string> cells);
  /// A line between the rows before and after.
  void add_rule();
  /// Ends with a newline. Two spaces between columns, no trailing blanks.
  std::string str() const;

 private:
  std::vector<std::string> header_;
  std::vector<Align> align_;
  std::vector<std::vector<std::string>> rows_;  ///< an empty row is a rule
};

}  // namespace kedge
