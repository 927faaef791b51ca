#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/cpu.h"

namespace {
std::atomic<long> allocations{0};
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define KEDGE_COUNTS_ALLOCATIONS 1
[[gnu::noinline]] void* operator new(std::size_t size) {
  allocations.fetch_add(1);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

namespace kedge {
namespace {

TEST(ThreadPool, CoversEachIndexOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    for (int64_t n : {0, 1, 2, 7, 64, 1000}) {
      for (int64_t grain : {1, 3, 64, 5000}) {
        std::vector<int> hits(static_cast<std::size_t>(n));
        std::atomic<bool> bad{false};
        pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int thread) {
          if (begin % grain != 0 || end <= begin || end - begin > grain || end > n) bad = true;
          if (end - begin < grain && end != n) bad = true;
          if (thread < 0 || thread >= threads) bad = true;
          for (int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        EXPECT_FALSE(bad);
        for (int hit : hits) ASSERT_EQ(hit, 1);
      }
    }
  }
}

// Results of one call are visible to the next without any lock: what every layer of a forward pass relies on.
TEST(ThreadPool, CallsFollowEachOther) {
  ThreadPool pool(4);
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 5000; ++round) {
    pool.parallel_for(64, 1 + round % 5, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<std::size_t>(i)] += i;
    });
  }
  for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(values[static_cast<std::size_t>(i)], 5000 * i);
}

TEST(ThreadPool, WakesAfterSleep) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int64_t> sum{0};
    pool.parallel_for(100, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
    EXPECT_EQ(sum, 4950);
  }
}

TEST(ThreadPool, StartsAndStopsAtAnyMoment) {
  for (int round = 0; round < 300; ++round) {
    ThreadPool pool(3);
    if (round % 2 == 0) pool.parallel_for(3, 1, [](int64_t, int64_t, int) {});
  }
}

TEST(ThreadPool, UsesSeveralThreads) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  pool.parallel_for(2, 1, [&](int64_t, int64_t, int) {
    ++arrived;
    while (arrived < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
  EXPECT_LT(std::chrono::steady_clock::now(), end);
}

TEST(ThreadPool, NestedCallRunsOnItsThread) {
  ThreadPool pool(3);
  ThreadPool other(2);
  std::atomic<int> inner{0};
  std::atomic<bool> bad{false};
  pool.parallel_for(16, 1, [&](int64_t, int64_t, int thread) {
    const auto id = std::this_thread::get_id();
    other.parallel_for(2, 1, [&](int64_t, int64_t, int) {});
    pool.parallel_for(10, 3, [&](int64_t begin, int64_t end, int nested) {
      if (nested != thread || std::this_thread::get_id() != id) bad = true;
      inner += static_cast<int>(end - begin);
    });
  });
  EXPECT_FALSE(bad);
  EXPECT_EQ(inner, 160);
}

TEST(ThreadPool, CallersTakeTurns) {
  ThreadPool pool(2);
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum{0};
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        pool.parallel_for(32, 2, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * 100 * 32);
}

TEST(ThreadPool, RethrowsAndStaysUsable) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool.parallel_for(100, 1,
                                   [&](int64_t begin, int64_t, int) {
                                     if (begin == 37) throw std::runtime_error("37");
                                   }),
                 std::runtime_error);
    std::atomic<int> count{0};
    pool.parallel_for(100, 1, [&](int64_t, int64_t, int) { ++count; });
    EXPECT_EQ(count, 100);
  }
}

#if defined(__x86_64__)
TEST(ThreadPool, FloatingPointModeIsTheDefaultInside) {
  ThreadPool pool(2);
  const unsigned before = _mm_getcsr();
  const unsigned flush = 0x9FC0;  // FTZ and DAZ, all exceptions masked
  _mm_setcsr(flush);
  std::atomic<bool> bad{false};
  for (int round = 0; round < 200; ++round) {
    pool.parallel_for(4, 1, [&](int64_t, int64_t, int) {
      if ((_mm_getcsr() & 0xFFC0u) != 0x1F80u) bad = true;
    });
  }
  EXPECT_EQ(_mm_getcsr() & 0xFFC0u, flush);
  _mm_setcsr(before);
  EXPECT_FALSE(bad);
}
#endif

#if defined(KEDGE_COUNTS_ALLOCATIONS)
TEST(ThreadPool, CallsAllocateNothing) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  auto call = [&] { pool.parallel_for(100, 1, [&](int64_t begin, int64_t, int) { sum += begin; }); };
  call();
  const long before = allocations.load();
  for (int round = 0; round < 100; ++round) call();
  EXPECT_EQ(allocations.load(), before);
}
#endif

TEST(ThreadPool, DefaultSizeIsWhatTheProcessMayUse) {
  EXPECT_GE(usable_cpus(), 1);
  EXPECT_EQ(ThreadPool().size(), usable_cpus());
}

}  // namespace
}  // namespace kedge
