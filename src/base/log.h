// Talk to the user on stderr: notes, warnings, progress. stdout is for data only.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kedge {

/// quiet silences note() and Progress; warnings stay. Set once by the command line.
void set_quiet(bool quiet) noexcept;
void note(std::string_view message);
void warn(std::string_view message);
/// Warns the first time it is called with this text.
void warn_once(const std::string& message);

/// For a trip that calls others in a loop and talks for them. While it lives, warnings are kept here; unless verbose,
/// they are not said, and note() and Progress say nothing. One at a time.
class TalkScope {
 public:
  explicit TalkScope(bool verbose);
  ~TalkScope();
  TalkScope(const TalkScope&) = delete;
  TalkScope& operator=(const TalkScope&) = delete;
  std::vector<std::string> warnings() const;

 private:
  bool quiet_before_;
};

/// A line with share done, rate and ETA: rewritten in place on a terminal, a line every few seconds elsewhere.
class Progress {
 public:
  Progress(std::string what, std::int64_t total, std::string unit);
  ~Progress();
  void update(std::int64_t done, std::string_view detail = {});
  void finish();

 private:
  std::string what_, unit_;
  std::int64_t total_;
  std::chrono::steady_clock::time_point start_, last_;
  bool terminal_, finished_ = false;
};

}  // namespace kedge
