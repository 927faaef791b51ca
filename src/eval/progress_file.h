// Scores on disk while an evaluation is under way, so that a run that was stopped goes on behind them.
//
// JSON lines: first {"plan": HASH}, then [request, log-likelihood, greedy, [log-probability of each token], text,
// standard error] as
// requests are answered. Numbers are written so that reading gives the same bits. A torn last line is dropped.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>

#include "comm/communicator.h"
#include "eval/scorer.h"

namespace kedge {

/// One per rank, each written by its rank and read by all: progress.jsonl, progress-1.jsonl, ...
class ProgressFile {
 public:
  /// An empty folder: nothing is kept. Files of the same plan are read, of however many ranks, then that of `ranks`' rank
  /// is continued. All ranks are to call. Error(mismatch): a file of another plan. Error(bad_file), Error(io).
  ProgressFile(const std::filesystem::path& folder, const std::string& plan, Communicator& ranks);
  ~ProgressFile();
  ProgressFile(const ProgressFile&) = delete;
  ProgressFile& operator=(const ProgressFile&) = delete;

  const std::map<std::size_t, RequestScore>& finished() const noexcept { return finished_; }
  void add(std::size_t request, const RequestScore& score);
  void flush();
  /// All is done and written elsewhere: removes the files of all ranks.
  void remove();
  /// Has a run left files there?
  static bool exists(const std::filesystem::path& folder);

 private:
  void read(const std::filesystem::path& file, const std::string& plan, bool own);
  void append(const std::string& line);
  std::filesystem::path folder_, path_;
  std::map<std::size_t, RequestScore> finished_;
  std::FILE* file_ = nullptr;
};

}  // namespace kedge
