#include "kernels/rope/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"

namespace kedge {
namespace {

std::vector<float> frequencies(std::int64_t half, double theta) {
  std::vector<float> f(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i) f[i] = static_cast<float>(std::pow(theta, -static_cast<double>(i) / half));
  return f;
}

TEST(RopeTable, AnglesAreFp32AndGrowingChangesNothing) {
  const auto freq = frequencies(24, 1e6);
  RopeTable table(freq, 1.25f), grown(freq, 1.25f);
  table.reserve(5000);
  grown.reserve(3);
  grown.reserve(5000);
  grown.reserve(100);
  ASSERT_EQ(grown.positions(), 5000);
  for (std::int64_t p : {0, 1, 2, 3, 77, 4999}) {
    for (std::int64_t i = 0; i < 24; ++i) {
      const float angle = static_cast<float>(p) * freq[i];
      EXPECT_FLOAT_EQ(table.cos(p)[i], static_cast<float>(std::cos(static_cast<double>(angle))) * 1.25f);
      EXPECT_FLOAT_EQ(table.sin(p)[i], static_cast<float>(std::sin(static_cast<double>(angle))) * 1.25f);
      EXPECT_EQ(table.cos(p)[i], grown.cos(p)[i]);
      EXPECT_EQ(table.sin(p)[i], grown.sin(p)[i]);
    }
  }
}

struct RopeCase {
  std::int64_t head_dim, offset, half;
  bool interleaved;
};

class Rope : public testing::TestWithParam<RopeCase> {};

TEST_P(Rope, FollowsTheFormulaOnEveryIsa) {
  const RopeCase c = GetParam();
  const std::int64_t tokens = 33, heads = 3, ld = heads * c.head_dim + 5;
  RopeTable table(frequencies(c.half, 10000.0), 1.0f);
  table.reserve(300);
  Rng rng(9);
  std::vector<float> x(static_cast<std::size_t>(tokens * ld));
  for (float& value : x) value = static_cast<float>(rng.normal());
  std::vector<std::int32_t> positions(tokens);
  for (auto& p : positions) p = static_cast<std::int32_t>(rng.below(300));

  std::vector<float> expected = x;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* in = &x[t * ld + h * c.head_dim + c.offset];
      float* out = &expected[t * ld + h * c.head_dim + c.offset];
      for (std::int64_t i = 0; i < c.half; ++i) {
        const float a = c.interleaved ? in[2 * i] : in[i], b = c.interleaved ? in[2 * i + 1] : in[c.half + i];
        const float cos = table.cos(positions[t])[i], sin = table.sin(positions[t])[i];
        out[i] = a * cos - b * sin;
        out[c.half + i] = b * cos + a * sin;
      }
    }
  }
  for (Isa isa : available_isas()) {
    for (int threads : {1, 3}) {
      ThreadPool pool(threads);
      Arena scratch;
      auto y = x;
      rope({pool, scratch}, y.data(), ld, tokens, heads, c.head_dim, c.offset, positions.data(), table, c.interleaved,
           isa);
      EXPECT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0) << isa_name(isa);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Rope,
                         testing::Values(RopeCase{128, 0, 64, false}, RopeCase{24, 0, 12, false},
                                         RopeCase{40, 8, 16, false}, RopeCase{7, 1, 3, false},
                                         RopeCase{2048, 0, 1024, false}, RopeCase{192, 128, 32, true},
                                         RopeCase{64, 0, 32, true}, RopeCase{25, 3, 11, true}));

}  // namespace
}  // namespace kedge
