#include "report/table.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/check.h"
#include "report/text.h"

namespace kedge {
namespace {

struct Range {
  std::uint32_t first, last;
};

// Combining marks and joiners of the scripts that names of files and models use (Unicode general category Mn).
constexpr Range zero_width[] = {{0x0300, 0x036f}, {0x0483, 0x0489}, {0x0591, 0x05bd}, {0x0610, 0x061a},
                                {0x064b, 0x065f}, {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x200b, 0x200f},
                                {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}};
// East Asian Width W and F (Unicode annex 11), in coarse blocks.
constexpr Range wide[] = {{0x1100, 0x115f}, {0x2e80, 0x303e},   {0x3041, 0x33ff},   {0x3400, 0x4dbf},  {0x4e00, 0x9fff},
                          {0xa000, 0xa4cf}, {0xac00, 0xd7a3},   {0xf900, 0xfaff},   {0xfe30, 0xfe6f},  {0xff00, 0xff60},
                          {0xffe0, 0xffe6}, {0x1f300, 0x1f64f}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};

template <std::size_t N>
bool in(const Range (&ranges)[N], std::uint32_t c) {
  return std::any_of(std::begin(ranges), std::end(ranges), [c](Range r) { return c >= r.first && c <= r.last; });
}

void append_padded(std::string& line, const std::string& cell, int width, Align align) {
  const std::string blanks(static_cast<std::size_t>(std::max(0, width - display_width(cell))), ' ');
  if (align == Align::left) {
    line += cell + blanks;
  } else {
    line += blanks + cell;
  }
}

void finish_line(std::string& out, std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  out += line;
  out += '\n';
}

}  // namespace

int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    const Utf8Char c = next_utf8(text);
    text.remove_prefix(static_cast<std::size_t>(c.bytes));
    width += in(zero_width, c.code) ? 0 : in(wide, c.code) ? 2 : 1;
  }
  return width;
}

TextTable::TextTable(std::vector<std::string> header, std::vector<Align> align)
    : header_(std::move(header)), align_(std::move(align)) {
  while (align_.size() < header_.size()) align_.push_back(align_.empty() ? Align::left : Align::right);
}

void TextTable::add_row(std::vector<std::string> cells) {
  KEDGE_CHECK(cells.size() <= header_.size());
  cells.resize(header_.size());
  rows_.push_back(std::move(cells));
}

void TextTable::add_rule() { rows_.emplace_back(); }

std::string TextTable::str() const {
  std::vector<int> widths;
  for (const std::string& cell : header_) widths.push_back(display_width(cell));
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  int total = 0;
  for (int width : widths) total += width + 2;
  std::string rule;
  for (int i = 0; i < total - 2; ++i) rule += "─";

  std::string out;
  auto emit = [&](const std::vector<std::string>& row) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      append_padded(line, row[i], widths[i], align_[i]);
    }
    finish_line(out, std::move(line));
  };
  emit(header_);
  finish_line(out, rule);
  for (const auto& row : rows_) {
    if (row.empty()) {
      finish_line(out, rule);
    } else {
      emit(row);
    }
  }
  return out;
}

}  // namespace kedge
