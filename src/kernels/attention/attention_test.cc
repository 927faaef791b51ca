// Against a double-precision formula; and bit for bit over ISAs, thread counts, and ways to cut a sequence.
#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace kedge {
namespace {

struct Case {
  std::int64_t heads, kv_heads, head_dim, value_dim, length, window;
  bool causal = true;
};

class AttentionTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    c = GetParam();
    desc = {c.heads, c.kv_heads, c.head_dim, c.value_dim, 1.0f / std::sqrt(static_cast<float>(c.head_dim)), c.window, c.causal};
    capacity = c.length + 5;
    Rng rng(21);
    const auto fill = [&](std::vector<float>& x, std::int64_t n) {
      x.resize(static_cast<std::size_t>(n));
      for (float& value : x) value = static_cast<float>(rng.normal());
    };
    fill(q, c.length * c.heads * c.head_dim);
    fill(k, c.kv_heads * capacity * c.head_dim);
    fill(v, c.kv_heads * capacity * c.value_dim);
    // What is not filled yet must not matter.
    for (std::int64_t h = 0; h < c.kv_heads; ++h) {
      for (std::int64_t j = c.length; j < capacity; ++j) {
        std::fill_n(&k[(h * capacity + j) * c.head_dim], c.head_dim, std::nanf(""));
        std::fill_n(&v[(h * capacity + j) * c.value_dim], c.value_dim, std::nanf(""));
      }
    }
  }

  std::vector<float> run(Isa isa, int threads, std::int64_t step) const {
    ThreadPool pool(threads);
    Arena scratch;
    std::vector<float> out(static_cast<std::size_t>(c.length * c.heads * c.value_dim), std::nanf(""));
    for (std::int64_t begin = 0; begin < c.length; begin += step) {
      const std::int64_t count = std::min(step, c.length - begin);
      attention({pool, scratch}, desc, q.data() + begin * c.heads * c.head_dim, count, begin, k.data(), v.data(),
                capacity, out.data() + begin * c.heads * c.value_dim, isa);
    }
    return out;
  }

  Case c;
  AttentionDesc desc;
  std::int64_t capacity = 0;
  std::vector<float> q, k, v;
};

TEST_P(AttentionTest, FollowsTheFormula) {
  const auto out = run(detect_isa(), 1, c.length);
  for (std::int64_t t = 0; t < c.length; ++t) {
    for (std::int64_t h = 0; h < c.heads; ++h) {
      const std::int64_t kv = h / (c.heads / c.kv_heads),
                         first = c.window > 0 ? std::max<std::int64_t>(0, t - c.window + 1) : 0;
      std::vector<double> s;
      for (std::int64_t j = first; j < (c.causal ? t + 1 : c.length); ++j) {
        double dot = 0;
        for (std::int64_t d = 0; d < c.head_dim; ++d) {
          dot += static_cast<double>(q[(t * c.heads + h) * c.head_dim + d]) * k[(kv * capacity + j) * c.head_dim + d];
        }
        s.push_back(dot * static_cast<double>(desc.scale));
      }
      const double largest = *std::max_element(s.begin(), s.end());
      double sum = 0;
      for (double& x : s) sum += x = std::exp(x - largest);
      for (std::int64_t d = 0; d < c.value_dim; ++d) {
        double exact = 0;
        for (std::int64_t j = first; j < (c.causal ? t + 1 : c.length); ++j)
          exact += s[j - first] / sum * v[(kv * capacity + j) * c.value_dim + d];
        ASSERT_NEAR(out[(t * c.heads + h) * c.value_dim + d], exact, 1e-5) << t << " " << h << " " << d;
      }
    }
  }
}

TEST_P(AttentionTest, SameBitsOnEveryIsaThreadCountAndCut) {
  const auto reference = run(Isa::scalar, 1, c.length);
  std::vector<std::int64_t> cuts = {c.length};
  if (c.causal) cuts.insert(cuts.end(), {1, 7, 33});
  for (Isa isa : available_isas()) {
    for (int threads : {1, 3}) {
      for (std::int64_t step : cuts) {
        const auto out = run(isa, threads, step);
        ASSERT_EQ(std::memcmp(out.data(), reference.data(), out.size() * sizeof(float)), 0)
            << isa_name(isa) << " threads " << threads << " step " << step;
      }
    }
  }
}

/// A later token full of NaN leaves earlier tokens alone, whatever tile they share.
TEST_P(AttentionTest, LaterTokensDoNotLeak) {
  if (!c.causal) return;  // they are to be seen
  const auto before = run(detect_isa(), 1, c.length);
  const std::int64_t last = c.length - 1;
  for (std::int64_t h = 0; h < c.kv_heads; ++h) {
    std::fill_n(&k[(h * capacity + last) * c.head_dim], c.head_dim, std::nanf(""));
    std::fill_n(&v[(h * capacity + last) * c.value_dim], c.value_dim, std::numeric_limits<float>::infinity());
  }
  for (Isa isa : available_isas()) {
    const auto after = run(isa, 1, c.length);
    EXPECT_EQ(std::memcmp(before.data(), after.data(),
                          static_cast<std::size_t>(last * c.heads * c.value_dim) * sizeof(float)),
              0);
    EXPECT_TRUE(std::isnan(after.back()));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         testing::Values(Case{4, 4, 64, 64, 130, 0}, Case{8, 2, 128, 128, 75, 0},
                                         Case{6, 2, 24, 24, 70, 0}, Case{4, 1, 32, 32, 100, 0},
                                         Case{3, 3, 192, 128, 67, 0}, Case{16, 2, 16, 16, 20, 0},
                                         Case{2, 2, 5, 3, 37, 0}, Case{4, 4, 64, 72, 150, 20},
                                         Case{8, 2, 32, 32, 140, 3}, Case{2, 1, 48, 80, 90, 1},
                                         Case{4, 2, 64, 64, 200, 70}, Case{1, 1, 8, 8, 2, 0},
                                         Case{4, 2, 64, 64, 90, 0, false}, Case{3, 3, 24, 40, 33, 0, false},
                                         Case{2, 1, 16, 16, 1, 0, false}));

}  // namespace
}  // namespace kedge
