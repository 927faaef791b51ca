#include "moe/permutation.h"

#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace kedge {
namespace {

TEST(Permutation, SortsByExpertStably) {
  Rng rng(7);
  for (const std::int64_t tokens : {0, 1, 5, 64}) {
    const std::int64_t k = 3, experts = 10;
    std::vector<std::int32_t> ids;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto first = static_cast<std::int32_t>(rng.below(8));  // experts 8 and 9 stay empty now and then
      for (std::int32_t s = 0; s < k; ++s) ids.push_back(static_cast<std::int32_t>((first + s * 3) % experts));
    }
    Arena arena;
    ArenaScope scope(arena);
    const TokenPermutation p = make_permutation(ids.data(), tokens, k, experts, arena);
    ASSERT_EQ(p.offsets.size(), 11u);
    EXPECT_EQ(p.offsets[0], 0);
    EXPECT_EQ(p.offsets[10], tokens * k);
    EXPECT_EQ(p.tokens, tokens);
    EXPECT_EQ(p.top_k, k);
    for (std::size_t e = 0; e < 10; ++e) {
      for (std::int32_t pair = p.offsets[e]; pair + 1 < p.offsets[e + 1]; ++pair) {
        EXPECT_LT(p.token[static_cast<std::size_t>(pair)], p.token[static_cast<std::size_t>(pair) + 1]);
      }
    }
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::int32_t pair = p.pair_of[i];
      EXPECT_GE(pair, p.offsets[static_cast<std::size_t>(ids[i])]);
      EXPECT_LT(pair, p.offsets[static_cast<std::size_t>(ids[i]) + 1]);
      EXPECT_EQ(p.token[static_cast<std::size_t>(pair)], static_cast<std::int32_t>(i) / k);
    }
  }
}

}  // namespace
}  // namespace kedge
