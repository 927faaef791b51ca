#include "base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/cpu.h"
#include "kedge/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kedge {
namespace {

// Longer than the gaps between the operations of one forward pass, much shorter than a user notices.
constexpr auto kSpinTime = std::chrono::microseconds(50);
constexpr int kPausesPerClockRead = 16;

inline void pause() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

#if defined(__x86_64__)
constexpr unsigned kDefaultMxcsr = 0x1F80;  // all exceptions masked, round to nearest, no FTZ, no DAZ
class DefaultMxcsr {
 public:
  DefaultMxcsr() noexcept : saved_(_mm_getcsr()) { _mm_setcsr(kDefaultMxcsr); }
  ~DefaultMxcsr() { _mm_setcsr(saved_); }
  DefaultMxcsr(const DefaultMxcsr&) = delete;
  DefaultMxcsr& operator=(const DefaultMxcsr&) = delete;

 private:
  unsigned saved_;
};
#else
struct DefaultMxcsr {
  DefaultMxcsr() noexcept {}
};
#endif

// Spins while value == old, for a bounded time. True: it changed.
template <class T>
bool spin_while(const std::atomic<T>& value, T old) noexcept {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (value.load(std::memory_order_acquire) != old) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// The pools whose work this thread is inside of, innermost first: how a nested call is recognised.
struct Frame {
  const void* pool;
  int thread;
  const Frame* outer;
};
thread_local const Frame* innermost_frame = nullptr;

class EnterFrame {
 public:
  EnterFrame(const void* pool, int thread) noexcept : frame_{pool, thread, innermost_frame} {
    innermost_frame = &frame_;
  }
  ~EnterFrame() { innermost_frame = frame_.outer; }
  EnterFrame(const EnterFrame&) = delete;
  EnterFrame& operator=(const EnterFrame&) = delete;

 private:
  Frame frame_;
};

}  // namespace

// A job is open while `generation` is odd. A worker first counts itself in `active`, then looks at the generation;
// the caller first closes the job, then waits for active == 0 before it touches the job again. Both sides are
// sequentially consistent, so a worker either sees the job closed and leaves, or is waited for. A worker that sleeps
// through a whole job costs the caller nothing.
struct ThreadPool::Impl {
  std::vector<std::thread> workers;
  std::mutex callers;  // threads outside the pool take turns

  alignas(64) std::atomic<std::uint32_t> generation{0};
  std::atomic<bool> stop{false};
  int64_t n = 0, grain = 1;
  Task task = nullptr;
  void* fn = nullptr;

  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<std::int32_t> active{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;

  void claim_chunks(int thread) noexcept {
    EnterFrame enter(this, thread);
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) return;
      try {
        task(fn, begin, n - begin < grain ? n : begin + grain, thread);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
        next.store(n, std::memory_order_relaxed);
      }
    }
  }

  void work(int thread) noexcept {
    DefaultMxcsr mxcsr;
    std::uint32_t done = 0;  // the job this thread last saw the end of
    for (;;) {
      const std::uint32_t now = generation.load();
      if (stop.load()) return;  // after the generation: a stop that comes later also changes what wait() compares
      if (!(now & 1u) || now == done) {
        if (!spin_while(generation, now)) generation.wait(now);
        continue;
      }
      active.fetch_add(1);
      done = generation.load();
      if (done & 1u) claim_chunks(thread);
      if (active.fetch_sub(1) == 1) active.notify_one();
    }
  }

  ~Impl() {
    stop.store(true);
    generation.fetch_add(2);
    generation.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  void wait_for_workers() noexcept {
    for (std::int32_t busy; (busy = active.load()) != 0;) {
      if (!spin_while(active, busy)) active.wait(busy);
    }
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  KEDGE_CHECK(threads >= 0);
  if (threads == 0) threads = usable_cpus();
  impl_->workers.reserve(static_cast<std::size_t>(threads - 1));
  try {
    for (int i = 1; i < threads; ++i) impl_->workers.emplace_back([impl = impl_.get(), i] { impl->work(i); });
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::io, "cannot start " + std::to_string(threads) + " threads: " + error.what(), "",
                "use fewer threads");
  }
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::size() const noexcept { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::run(int64_t n, int64_t grain, Task task, void* fn) {
  KEDGE_CHECK(grain > 0);
  if (n <= 0) return;
  DefaultMxcsr mxcsr;
  Impl& impl = *impl_;

  for (const Frame* frame = innermost_frame; frame != nullptr; frame = frame->outer) {
    if (frame->pool != &impl) continue;
    for (int64_t begin = 0; begin < n; begin += grain) {
      task(fn, begin, n - begin < grain ? n : begin + grain, frame->thread);
    }
    return;
  }

  std::lock_guard lock(impl.callers);
  if (impl.workers.empty() || n <= grain) {
    EnterFrame enter(&impl, 0);
    for (int64_t begin = 0; begin < n; begin += grain) task(fn, begin, n - begin < grain ? n : begin + grain, 0);
    return;
  }
  impl.n = n;
  impl.grain = grain;
  impl.task = task;
  impl.fn = fn;
  impl.next.store(0, std::memory_order_relaxed);
  impl.generation.fetch_add(1);
  impl.generation.notify_all();
  impl.claim_chunks(0);
  impl.generation.fetch_add(1);
  impl.wait_for_workers();
  if (impl.failed.exchange(false)) {
    std::exception_ptr error = std::move(impl.error);
    impl.error = nullptr;
    std::rethrow_exception(error);
  }
}

}  // namespace kedge
