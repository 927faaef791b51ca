#include "base/log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <unordered_set>
#include <utility>

#include "base/check.h"

namespace kedge {
namespace {

std::atomic<bool> quiet_flag{false};

// Of the TalkScope that lives.
struct Kept {
  std::mutex mutex;
  bool active = false, verbose = false;
  std::vector<std::string> warnings;
} kept;

constexpr std::chrono::milliseconds kTerminalInterval{100};
constexpr std::chrono::milliseconds kPlainInterval{5000};

// One call, so that lines of several threads do not mix.
void put(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stderr); }

std::string duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::min(seconds, 1e9) + 0.5);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

std::string rate_text(double rate) {
  return rate >= 100 ? fmt::format("{:.0f}", rate)
         : rate >= 1 ? fmt::format("{:.1f}", rate)
                     : fmt::format("{:.2g}", rate);
}

}  // namespace

void set_quiet(bool quiet) noexcept { quiet_flag.store(quiet); }

void note(std::string_view message) {
  if (!quiet_flag.load()) put(fmt::format("{}\n", message));
}

void warn(std::string_view message) {
  {
    const std::lock_guard lock(kept.mutex);
    if (kept.active) kept.warnings.emplace_back(message);
    if (kept.active && !kept.verbose) return;
  }
  put(fmt::format("warning: {}\n", message));
}

TalkScope::TalkScope(bool verbose) : quiet_before_(quiet_flag.load()) {
  if (!verbose) quiet_flag.store(true);
  const std::lock_guard lock(kept.mutex);
  KEDGE_CHECK(!kept.active);
  kept.active = true;
  kept.verbose = verbose;
  kept.warnings.clear();
}

TalkScope::~TalkScope() {
  quiet_flag.store(quiet_before_);
  const std::lock_guard lock(kept.mutex);
  kept.active = false;
}

std::vector<std::string> TalkScope::warnings() const {
  const std::lock_guard lock(kept.mutex);
  return kept.warnings;
}

void warn_once(const std::string& message) {
  static std::mutex mutex;
  static std::unordered_set<std::string> said;
  {
    std::lock_guard lock(mutex);
    if (!said.insert(message).second) return;
  }
  warn(message);
}

Progress::Progress(std::string what, std::int64_t total, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      start_(std::chrono::steady_clock::now()),
      last_(start_),
      terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (!finished_ && terminal_ && last_ != start_ && !quiet_flag.load()) put("\n");
}

void Progress::update(std::int64_t done, std::string_view detail) {
  const auto now = std::chrono::steady_clock::now();
  if (finished_ || quiet_flag.load()) return;
  if (now - last_ < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  std::string line = fmt::format("{}: {}/{} {}", what_, done, total_, unit_);
  if (total_ > 0) line += fmt::format(" ({:.0f} %)", 100.0 * static_cast<double>(done) / static_cast<double>(total_));
  if (rate > 0) {
    line += fmt::format(", {} {}/s", rate_text(rate), unit_);
    if (total_ > done) line += fmt::format(", {} left", duration(static_cast<double>(total_ - done) / rate));
  }
  if (!detail.empty()) line += fmt::format(", {}", detail);
  put(terminal_ ? "\r\033[K" + line : line + "\n");
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (quiet_flag.load()) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(total_) / seconds : 0;
  put(fmt::format("{}{}: {} {} in {} ({} {}/s)\n", terminal_ ? "\r\033[K" : "", what_, total_, unit_, duration(seconds),
                  rate_text(rate), unit_));
}

}  // namespace kedge
