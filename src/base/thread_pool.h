// A fixed pool of threads. Workers spin for a bounded time, then sleep on a futex.
//
// Work is split over outputs only, so which thread computes an output changes no bit of it.
// Each worker (and the caller, during a call) runs with MXCSR at its default: round to nearest, no FTZ/DAZ.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace kedge {

class ThreadPool {
 public:
  /// threads >= 1, the caller included. 0: the number of CPUs this process may use.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const noexcept;

  /// Calls fn(begin, end, thread) over disjoint ranges that cover [0, n), each at most `grain` long
  /// (the last may be shorter); ranges start at multiples of grain and are claimed dynamically.
  /// thread is in [0, size()). Returns when all are done. No allocation. Not re-entrant: a call from
  /// inside fn runs on the calling thread alone, with that thread's index.
  /// An exception thrown by fn is rethrown here (the first one).
  template <class F>
  void parallel_for(int64_t n, int64_t grain, F&& fn) {
    using Fn = std::remove_reference_t<F>;
    run(n, grain,
        [](void* f, int64_t begin, int64_t end, int thread) { (*static_cast<Fn*>(f))(begin, end, thread); },
        const_cast<void*>(static_cast<const void*>(std::addressof(fn))));
  }

 private:
  using Task = void (*)(void* fn, int64_t begin, int64_t end, int thread);
  void run(int64_t n, int64_t grain, Task task, void* fn);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
