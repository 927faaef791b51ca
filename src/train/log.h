// OUT/train.jsonl: one line of JSON per step and per measurement, in the order of the steps (docs/formats/training.md).
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace kedge::training {

class Log {
 public:
  /// Keeps the lines up to `step` (what a killed run wrote after its checkpoint is computed again) and appends.
  /// Error(io), Error(bad_file).
  Log(const std::filesystem::path& path, std::int64_t step);
  /// On disk, as far as a kill is concerned, when it returns. NaN becomes null. Error(io).
  void write(const nlohmann::ordered_json& line);

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

/// All lines; a last line that a kill has cut short is left out.
std::vector<nlohmann::ordered_json> read_log(const std::filesystem::path& path);

}  // namespace kedge::training
