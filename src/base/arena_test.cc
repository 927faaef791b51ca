#include "base/arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>

namespace kedge {
namespace {

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 64 == 0; }

void one_pass(Arena& arena) {
  ArenaScope pass(arena);
  float* residual = arena.take<float>(1000);
  std::memset(residual, 1, 4000);
  for (int layer = 0; layer < 5; ++layer) {
    ArenaScope scope(arena);
    float* small = arena.take<float>(17 + layer);
    char* large = arena.take<char>(3 << 20);
    EXPECT_TRUE(aligned(small) && aligned(large));
    std::memset(small, 2, 4 * 17);
    std::memset(large, 3, 3 << 20);
  }
  EXPECT_EQ(reinterpret_cast<unsigned char*>(residual)[3999], 1);
}

TEST(Arena, StopsGrowingAfterItsPeak) {
  Arena arena;
  EXPECT_EQ(arena.capacity(), 0u);
  one_pass(arena);
  const std::size_t capacity = arena.capacity();
  EXPECT_GE(capacity, std::size_t{3} << 20);
  for (int pass = 0; pass < 10; ++pass) one_pass(arena);
  EXPECT_EQ(arena.capacity(), capacity);
}

TEST(Arena, ScopeGivesBackWhatItTook) {
  Arena arena;
  ArenaScope outer(arena);
  arena.take<int>(4);
  void* first;
  {
    ArenaScope scope(arena);
    first = arena.take<int>(100);
  }
  ArenaScope scope(arena);
  EXPECT_EQ(first, arena.take<int>(100));
}

TEST(Arena, PiecesDoNotOverlap) {
  Arena arena;
  ArenaScope scope(arena);
  unsigned char* pieces[64];
  for (int i = 0; i < 64; ++i) {
    pieces[i] = arena.take<unsigned char>(i * 997 + 1);
    std::memset(pieces[i], i, static_cast<std::size_t>(i) * 997 + 1);
  }
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j <= i * 997; ++j) ASSERT_EQ(pieces[i][j], i);
  }
}

TEST(Arena, ZeroElementsIsAPointer) {
  Arena arena;
  ArenaScope scope(arena);
  EXPECT_NE(arena.take<float>(0), nullptr);
}

}  // namespace
}  // namespace kedge
