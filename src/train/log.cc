#include "train/log.h"

#include <cerrno>
#include <cstring>
#include <string>

#include "base/file.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge::training {
namespace {

[[noreturn]] void throw_io(const std::filesystem::path& path, int error) {
  throw Error(ErrorCode::io, "cannot write " + path.string() + ": " + std::strerror(error), "",
              error == ENOSPC || error == EDQUOT ? "free some space there and run the same command again" : "");
}

}  // namespace

Log::Log(const std::filesystem::path& path, std::int64_t step) : path_(path) {
  std::string kept;
  if (step > 0 && std::filesystem::exists(path)) {
    for (const Json& line : read_log(path)) {
      if (json_get<std::int64_t>(line, "step", path.string()) <= step) kept += line.dump() + "\n";
    }
  }
  write_file_atomically(path, kept);
  file_.reset(std::fopen(path.c_str(), "ab"));
  if (!file_) throw_io(path, errno);
}

void Log::write(const Json& line) {
  const std::string text = line.dump() + "\n";
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() || std::fflush(file_.get()) != 0) {
    throw_io(path_, errno);
  }
}

std::vector<Json> read_log(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<Json> lines;
  for (std::size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    lines.push_back(parse_json(std::string_view(text).substr(begin, end - begin),
                               path.string() + ", line " + std::to_string(lines.size() + 1)));
  }
  return lines;
}

}  // namespace kedge::training
