#include "eval/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/compressed_file.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "eval/embedded.h"
#include "generate/tokenizer/regex.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPackings[] = {"", ".gz", ".xz"};

void add_record(Json record, const std::string& where, Documents& out) {
  if (!record.is_object()) throw Error(ErrorCode::bad_file, where + " is no record", "a JSON object");
  out.records.push_back(std::move(record));
}

void read_lines(std::string_view text, Documents& out) {
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (number % 1024 == 0) throw_if_interrupted();
    const std::string where = fmt::format("{}, line {}", out.path, number);
    add_record(parse_json(line, where), where, out);
  }
}

void read_list(std::string_view text, Documents& out) {
  Json list = parse_json(text, out.path);
  if (!list.is_array()) throw Error(ErrorCode::bad_file, out.path + " is no list", "a JSON list of objects");
  for (std::size_t i = 0; i < list.size(); ++i) {
    add_record(std::move(list[i]), fmt::format("{}, entry {}", out.path, i), out);
  }
}

void read_texts(std::string_view bytes, const std::string& split_pattern, Documents& out) {
  const std::string text = unicode::to_valid(bytes);
  std::vector<std::size_t> starts = {0};
  if (!split_pattern.empty()) {
    const Regex regex(split_pattern, "split_pattern");
    RegexScratch scratch;
    regex.for_each_match(text, scratch, [&](Span match) {
      if (match.begin > 0) starts.push_back(match.begin);
    });
  }
  starts.push_back(text.size());
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    const std::string document = text.substr(starts[i], starts[i + 1] - starts[i]);
    if (document.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    out.records.push_back(Json{{"text", document}});
  }
}

void parse_records(std::string_view bytes, const std::string& name, const std::string& split_pattern, Documents& out) {
  out.sha256 = sha256_hex(bytes);
  const std::string ending = fs::path(name).extension().string();
  if (ending == ".json") {
    read_list(bytes, out);
  } else if (ending == ".txt" || ending == ".raw" || ending == ".tokens") {
    read_texts(bytes, split_pattern, out);
  } else {
    read_lines(bytes, out);
  }
  if (out.records.empty()) throw Error(ErrorCode::usage, out.path + " holds no record", "one or more");
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

bool read_bundled(const std::vector<std::string>& names, Documents& out) {
  for (const std::string& name : names) {
    for (const EmbeddedFile& file : embedded_task_data()) {
      if (file.name != name) continue;
      out.path = "bundled:" + name;
      out.bundled = true;
      parse_records(file.bytes, name, {}, out);
      return true;
    }
  }
  return false;
}

}  // namespace

Documents read_documents(const std::vector<std::string>& names, const std::vector<fs::path>& folders,
                         const std::string& split_pattern) {
  Documents out;
  std::string looked;
  for (const fs::path& folder : folders) {
    for (const std::string& name : names) {
      for (const char* packing : kPackings) {
        const fs::path path = folder / (name + packing);
        std::error_code ignored;
        if (!fs::is_regular_file(path, ignored)) continue;
        out.path = path.string();
        parse_records(read_data_file(path), name, split_pattern, out);
        return out;
      }
    }
    looked += (looked.empty() ? "" : " and ") + folder.string();
  }
  if (folders.empty() && read_bundled(names, out)) return out;
  throw Error(ErrorCode::not_found,
              folders.empty() ? "the program has no records of its own for this task"
                              : fmt::format("no file of this task's records is in {}", looked),
              joined(names) + ", perhaps with .gz or .xz behind", "name their folder with --data-dir");
}

}  // namespace kedge
