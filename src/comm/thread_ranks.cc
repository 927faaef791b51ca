#include <condition_variable>
#include <mutex>
#include <utility>

#include "comm/communicator.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// One meeting at a time: all ranks bring bytes, the last to come completes it, all take what they need.
struct Meeting {
  explicit Meeting(int ranks) : brought(static_cast<std::size_t>(ranks)) {}
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> brought, complete;
  int here = 0;
  long number = 0;
  int failed = -1;
};

class ThreadRank final : public Communicator {
 public:
  ThreadRank(std::shared_ptr<Meeting> meeting, int rank) : meeting_(std::move(meeting)), rank_(rank) {}

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return static_cast<int>(meeting_->brought.size()); }
  std::vector<std::string> gather(std::string_view bytes) override {
    std::vector<std::string> all = meet(bytes);
    return rank_ == 0 ? std::move(all) : std::vector<std::string>{};
  }
  std::string broadcast(std::string_view bytes) override { return meet(rank_ == 0 ? bytes : std::string_view()).front(); }
  void abort(int) noexcept override {
    const std::lock_guard lock(meeting_->mutex);
    if (meeting_->failed < 0) meeting_->failed = rank_;
    meeting_->changed.notify_all();
  }

 private:
  std::vector<std::string> meet(std::string_view bytes) {
    std::unique_lock lock(meeting_->mutex);
    const long mine = meeting_->number;
    meeting_->brought[static_cast<std::size_t>(rank_)] = bytes;
    if (++meeting_->here == size()) {
      meeting_->complete = std::exchange(meeting_->brought, std::vector<std::string>(meeting_->brought.size()));
      meeting_->here = 0;
      ++meeting_->number;
      meeting_->changed.notify_all();
    } else {
      meeting_->changed.wait(lock, [&] { return meeting_->number != mine || meeting_->failed >= 0; });
    }
    if (meeting_->number == mine) throw Error(ErrorCode::io, "rank " + std::to_string(meeting_->failed) + " has failed");
    // The next meeting cannot be complete before this rank has come to it.
    return meeting_->complete;
  }

  std::shared_ptr<Meeting> meeting_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> thread_ranks(int size) {
  const auto meeting = std::make_shared<Meeting>(size);
  std::vector<std::unique_ptr<Communicator>> out;
  for (int rank = 0; rank < size; ++rank) out.push_back(std::make_unique<ThreadRank>(meeting, rank));
  return out;
}

}  // namespace kedge
