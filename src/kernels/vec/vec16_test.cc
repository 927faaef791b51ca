// The scalar backend is included here; elementwise_test.cc and attention_test.cc hold the other backends to its bits.
#include "kernels/vec/vec16.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace kedge {
namespace {

float one_exp(float x) {
  float out[kLanes];
  store(out, exp(set1(x)));
  return out[3];
}

/// Distance from the exact value in units of the last place of the rounded one.
double ulps(float got, double exact) {
  const float rounded = static_cast<float>(exact);
  const float next = std::nextafter(std::fabs(rounded), std::numeric_limits<float>::infinity());
  return std::fabs(got - exact) / (static_cast<double>(next) - std::fabs(rounded));
}

TEST(Vec16, ExpIsWithinOneUlp) {
  double worst = 0;
  for (int i = 0; i < 2'000'000; ++i) {
    const float x = -104.0f + static_cast<float>(i) * (192.7f / 2'000'000);
    worst = std::max(worst, ulps(one_exp(x), std::exp(static_cast<double>(x))));
  }
  for (int i = -2000; i < 2000; ++i) {
    const float x = static_cast<float>(i) * 1e-7f;
    worst = std::max(worst, ulps(one_exp(x), std::exp(static_cast<double>(x))));
  }
  EXPECT_LT(worst, 1.0);
  EXPECT_GT(worst, 0.5);  // else the comparison compares nothing
}

TEST(Vec16, ExpAtTheEnds) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(one_exp(0.0f), 1.0f);
  EXPECT_EQ(one_exp(-infinity), 0.0f);
  EXPECT_EQ(one_exp(-std::numeric_limits<float>::max()), 0.0f);
  EXPECT_EQ(one_exp(infinity), infinity);
  EXPECT_EQ(one_exp(88.73f), infinity);
  EXPECT_LT(one_exp(88.72f), infinity);
  EXPECT_EQ(one_exp(-104.0f), 0.0f);
  EXPECT_EQ(one_exp(-103.9f), std::numeric_limits<float>::denorm_min());
  EXPECT_TRUE(std::isnan(one_exp(std::nanf(""))));
}

TEST(Vec16, HalfErfcFollowsLibm) {
  for (int i = 0; i < 100'000; ++i) {
    const float z = static_cast<float>(i) * 9e-5f;
    float out[kLanes];
    store(out, half_erfc(set1(z)));
    const double exact = 0.5 * std::erfc(static_cast<double>(z));
    EXPECT_NEAR(out[0], exact, 1e-6 * exact) << z;
  }
}

TEST(Vec16, HorizontalSumIsTheFixedTree) {
  Rng rng(1);
  for (int round = 0; round < 100; ++round) {
    float x[kLanes], tree[kLanes];
    for (float& value : x) value = static_cast<float>(rng.normal());
    std::copy(x, x + kLanes, tree);
    for (int step : {8, 4, 2, 1}) {
      for (int l = 0; l < step; ++l) tree[l] = tree[l] + tree[l + step];
    }
    EXPECT_EQ(hsum(load(x)), tree[0]);
    EXPECT_EQ(hmax(load(x)), *std::max_element(x, x + kLanes));
  }
}

TEST(Vec16, TailsReadAndWriteOnlyTheirLanes) {
  for (std::int64_t n = 0; n <= kLanes; ++n) {
    std::vector<float> exact(static_cast<std::size_t>(n), 2.0f);  // of exactly n: a sanitizer sees a read behind it
    float lanes[kLanes], out[kLanes + 1];
    store(lanes, load_tail(exact.data(), n, -1.0f));
    std::fill(out, out + kLanes + 1, 7.0f);
    store_tail(out, n, set1(3.0f));
    for (int l = 0; l < kLanes; ++l) {
      EXPECT_EQ(lanes[l], l < n ? 2.0f : -1.0f);
      EXPECT_EQ(out[l], l < n ? 3.0f : 7.0f);
    }
    EXPECT_EQ(out[kLanes], 7.0f);
  }
}

}  // namespace
}  // namespace kedge
