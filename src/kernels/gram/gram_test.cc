// Against one scalar FMA chain per output, bit for bit, over ISAs, thread counts, and ways to cut the tokens.
#include "kernels/gram/gram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"

namespace kedge {
namespace {

std::vector<float> normals(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(rng.normal());
  return x;
}

struct Case {
  std::int64_t rows, n, m;  ///< m = 0: symmetric
  bool weighted, gathered;
};

struct Data {
  explicit Data(const Case& c) : c(c), ldx(c.n + 3), ldy(c.m + 1), ldg((c.m == 0 ? c.n : c.m) + 2) {
    const std::int64_t stored = c.rows + 9;
    x = normals(stored * ldx, 1);
    y = normals(stored * ldy, 2);
    w = normals(c.rows, 3);
    g = normals(c.n * ldg, 4);
    for (std::int64_t t = 0; t < c.rows; ++t) ids.push_back(static_cast<std::int32_t>((t * 7 + 5) % stored));
  }
  /// Tokens [begin, end).
  GramJob job(std::vector<float>& out, std::int64_t begin, std::int64_t end) const {
    GramJob j;
    j.x = x.data() + (c.gathered ? 0 : begin * ldx);
    j.ldx = ldx;
    if (c.m > 0) j.y = y.data() + (c.gathered ? 0 : begin * ldy);
    j.ldy = ldy;
    if (c.weighted) j.weights = w.data() + begin;
    if (c.gathered) j.row_ids = ids.data() + begin;
    j.rows = end - begin;
    j.n = c.n;
    j.m = c.m;
    j.g = out.data();
    j.ldg = ldg;
    return j;
  }
  float expected(std::int64_t i, std::int64_t j) const {
    float sum = g[i * ldg + j];
    for (std::int64_t t = 0; t < c.rows; ++t) {
      const std::int64_t row = c.gathered ? ids[t] : t;
      const float a = x[row * ldx + i] * (c.weighted ? w[t] : 1.0f);
      sum = std::fma(a, c.m == 0 ? x[row * ldx + j] : y[row * ldy + j], sum);
    }
    return sum;
  }
  Case c;
  std::int64_t ldx, ldy, ldg;
  std::vector<float> x, y, w, g;
  std::vector<std::int32_t> ids;
};

constexpr Case kCases[] = {
    {5, 40, 0, false, false},    {300, 100, 0, true, true}, {1, 7, 0, true, false},      {17, 33, 65, true, true},
    {260, 70, 31, false, false}, {3, 520, 0, true, true},   {64, 300, 290, false, true},
};

TEST(Gram, EveryOutputIsOneChain) {
  for (const Case& c : kCases) {
    const Data data(c);
    for (Isa isa : available_isas()) {
      for (int threads : {1, 3}) {
        ThreadPool pool(threads);
        Arena scratch;
        std::vector<float> out = data.g;
        const GramJob job = data.job(out, 0, c.rows);
        gram({pool, scratch}, isa, {&job, 1});
        for (std::int64_t i = 0; i < c.n; ++i) {
          const std::int64_t width = c.m == 0 ? c.n : c.m;
          for (std::int64_t j = c.m == 0 ? i : 0; j < width; ++j) {
            ASSERT_EQ(out[i * data.ldg + j], data.expected(i, j))
                << isa_name(isa) << " " << c.n << " " << i << " " << j;
          }
          for (std::int64_t j = width; j < data.ldg; ++j) ASSERT_EQ(out[i * data.ldg + j], data.g[i * data.ldg + j]);
        }
      }
    }
  }
}

TEST(Gram, BatchesAndCutsChangeNoBit) {
  ThreadPool pool(2);
  Arena scratch;
  const ExecContext ctx{pool, scratch};
  std::vector<Data> data;
  for (const Case& c : kCases) data.emplace_back(c);
  std::vector<std::vector<float>> alone, batched;
  for (const Data& d : data) {
    alone.push_back(d.g);
    batched.push_back(d.g);
  }
  for (std::size_t i = 0; i < data.size(); ++i) {
    const GramJob job = data[i].job(alone[i], 0, data[i].c.rows);
    gram(ctx, detect_isa(), {&job, 1});
  }
  for (int part = 0; part < 2; ++part) {
    std::vector<GramJob> jobs;
    for (std::size_t i = 0; i < data.size(); ++i) {
      const std::int64_t half = data[i].c.rows / 2;
      jobs.push_back(part == 0 ? data[i].job(batched[i], 0, half) : data[i].job(batched[i], half, data[i].c.rows));
    }
    gram(ctx, detect_isa(), jobs);
  }
  for (std::size_t i = 0; i < data.size(); ++i) {
    const Case& c = data[i].c;
    for (std::int64_t r = 0; r < c.n; ++r) {
      for (std::int64_t j = c.m == 0 ? r : 0; j < (c.m == 0 ? c.n : c.m); ++j) {
        ASSERT_EQ(alone[i][r * data[i].ldg + j], batched[i][r * data[i].ldg + j]) << i;
      }
    }
  }
}

TEST(Gram, Mirror) {
  ThreadPool pool(2);
  Arena scratch;
  const std::int64_t n = 75, ld = 80;
  const std::vector<float> g = normals(n * ld, 8);
  std::vector<float> out = g;
  mirror_upper({pool, scratch}, n, out.data(), ld);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < ld; ++j) EXPECT_EQ(out[i * ld + j], j < i ? g[j * ld + i] : g[i * ld + j]);
  }
}

}  // namespace
}  // namespace kedge
