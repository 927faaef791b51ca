#include "kernels/topk/topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace kedge {
namespace {

std::vector<std::int32_t> by_sorting(const std::vector<float>& scores, std::size_t k) {
  std::vector<std::int32_t> ids(scores.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](std::int32_t a, std::int32_t b) {
    if (std::isnan(scores[b])) return !std::isnan(scores[a]);
    return scores[a] > scores[b];
  });
  ids.resize(k);
  return ids;
}

TEST(TopK, EqualsAStableSort) {
  Rng rng(3);
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> scores(1 + rng.below(round % 10 == 0 ? 400 : 40));
    // Few different values: many ties.
    for (float& s : scores) s = static_cast<float>(rng.below(round % 2 == 0 ? 5 : 1000)) - 2.0f;
    if (round % 3 == 0) scores[rng.below(scores.size())] = std::nanf("");
    if (round % 5 == 0) scores[rng.below(scores.size())] = -std::numeric_limits<float>::infinity();
    const std::size_t k = 1 + rng.below(scores.size());
    std::vector<std::int32_t> ids(k);
    topk(scores.data(), static_cast<std::int64_t>(scores.size()), static_cast<std::int64_t>(k), ids.data());
    EXPECT_EQ(ids, by_sorting(scores, k));
  }
}

TEST(TopK, ZerosOfBothSignsTie) {
  const std::vector<float> scores = {-0.0f, 0.0f, -0.0f};
  std::vector<std::int32_t> ids(3);
  topk(scores.data(), 3, 3, ids.data());
  EXPECT_EQ(ids, (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(TopK, NansLastInOrder) {
  const float nan = std::nanf("");
  const std::vector<float> scores = {nan, 1.0f, nan, -std::numeric_limits<float>::infinity()};
  std::vector<std::int32_t> ids(4);
  topk(scores.data(), 4, 4, ids.data());
  EXPECT_EQ(ids, (std::vector<std::int32_t>{1, 3, 0, 2}));
}

}  // namespace
}  // namespace kedge
