// Scores on disk while an evaluation is under way, so that a run that was stopped goes on behind them.
//
// JSON lines: first {"plan": HASH}, then [request, log-likelihood, greedy, [log-probability of each token], text] as
// requests are answered. Numbers are written so that reading gives the same bits. A torn last line is dropped.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>

#include "eval/scorer.h"

namespace kedge {

class ProgressFile {
 public:
  /// An empty path: nothing is kept. A file of the same plan is read, then continued; Error(mismatch): one of another
  /// plan. Error(bad_file), Error(io).
  ProgressFile(const std::filesystem::path& path, const std::string& plan);
  ~ProgressFile();
  ProgressFile(const ProgressFile&) = delete;
  ProgressFile& operator=(const ProgressFile&) = delete;

  const std::map<std::size_t, RequestScore>& finished() const noexcept { return finished_; }
  void add(std::size_t request, const RequestScore& score);
  void flush();
  /// All is done and written elsewhere.
  void remove();

 private:
  void read(const std::string& plan);
  void append(const std::string& line);
  std::filesystem::path path_;
  std::map<std::size_t, RequestScore> finished_;
  std::FILE* file_ = nullptr;
};

}  // namespace kedge
