#include "base/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "kedge/error.h"

namespace kedge {
namespace {

std::atomic<int> interrupted{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch lock-free atomics only");

void on_signal(int) {
  if (interrupted.exchange(1) != 0) ::_exit(static_cast<int>(ErrorCode::interrupted));
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void throw_if_interrupted() {
  if (interrupted.load(std::memory_order_relaxed) != 0) throw Error(ErrorCode::interrupted, "interrupted");
}

}  // namespace kedge
