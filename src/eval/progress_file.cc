#include "eval/progress_file.h"

#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge {

namespace fs = std::filesystem;

namespace {

fs::path file_of(const fs::path& folder, int rank) {
  return folder / (rank == 0 ? "progress.jsonl" : "progress-" + std::to_string(rank) + ".jsonl");
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("progress") && name.ends_with(".jsonl")) files.push_back(entry.path());
  }
  return files;
}

}  // namespace

bool ProgressFile::exists(const fs::path& folder) { return !files_in(folder).empty(); }

ProgressFile::ProgressFile(const fs::path& folder, const std::string& plan, Communicator& ranks) : folder_(folder) {
  if (folder_.empty()) return;
  path_ = file_of(folder_, ranks.rank());
  for (const fs::path& file : files_in(folder_)) read(file, plan, file == path_);
  ranks.barrier();  // nobody writes before all have read
  file_ = std::fopen(path_.c_str(), "ab");
  if (file_ == nullptr) {
    throw Error(ErrorCode::io, "cannot write " + path_.string() + ": " + std::strerror(errno));
  }
  if (fs::file_size(path_) == 0) {
    append(Json{{"plan", plan}}.dump());
    flush();
  }
}

ProgressFile::~ProgressFile() {
  if (file_ != nullptr) std::fclose(file_);
}

void ProgressFile::read(const fs::path& file, const std::string& plan, bool own) {
  const std::string text = read_file(file);
  const std::size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  std::string_view rest = std::string_view(text).substr(0, whole);
  bool first = true;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    const Json line = parse_json(rest.substr(0, end), file.string());
    rest.remove_prefix(end + 1);
    if (std::exchange(first, false)) {
      if (!line.is_object() || json_get<std::string>(line, "plan", file.string()) != plan) {
        throw Error(ErrorCode::mismatch,
                    file.string() + " is of an evaluation of another model, other tasks or settings", {},
                    "choose another folder, or delete the file to begin anew");
      }
      continue;
    }
    if (!line.is_array() || line.size() != 6 || !line[0].is_number_unsigned() || !line[1].is_number() ||
        !line[2].is_boolean() || !line[3].is_array() || !line[4].is_string() ||
        !line[5].is_number()) {
      throw Error(ErrorCode::bad_file, file.string() + " is damaged", "a line that kedge wrote",
                  "delete the file to begin anew");
    }
    RequestScore score{line[1].get<double>(), line[2].get<bool>(), {}, line[4].get<std::string>(),
                       line[5].get<double>()};
    for (const Json& value : line[3]) score.token_logprobs.push_back(value.is_number() ? value.get<double>() : 0.0);
    finished_[line[0].get<std::size_t>()] = std::move(score);
  }
  if (!own) return;
  std::error_code error;
  fs::resize_file(path_, whole, error);
  if (error) throw Error(ErrorCode::io, "cannot write " + file.string() + ": " + error.message());
}

void ProgressFile::append(const std::string& line) {
  if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fputc('\n', file_) == EOF) {
    throw Error(ErrorCode::io, "cannot write " + path_.string() + ": " + std::strerror(errno));
  }
}

void ProgressFile::add(std::size_t request, const RequestScore& score) {
  if (file_ == nullptr) return;
  append(Json::array({request, score.loglikelihood, score.is_greedy, score.token_logprobs, score.text, score.standard_error})
             .dump(-1, ' ', false, Json::error_handler_t::replace));
}

void ProgressFile::flush() {
  if (file_ != nullptr && std::fflush(file_) != 0) {
    throw Error(ErrorCode::io, "cannot write " + path_.string() + ": " + std::strerror(errno));
  }
}

void ProgressFile::remove() {
  if (file_ == nullptr) return;
  std::fclose(std::exchange(file_, nullptr));
  std::error_code ignored;
  for (const fs::path& file : files_in(folder_)) fs::remove(file, ignored);
}

}  // namespace kedge
