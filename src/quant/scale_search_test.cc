// The chosen factor against a search in double precision, and what the search must never do.
#include "quant/scale_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "quant/quant_tensor.h"

namespace kedge {
namespace {

std::vector<float> heavy_tailed(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> w(static_cast<std::size_t>(count));
  for (float& value : w) {
    const double x = rng.normal();
    value = static_cast<float>(0.02 * x * x * x);
  }
  return w;
}

double error_of(const std::vector<float>& w, const QuantArgs& args, double scale, double zero,
                const std::vector<float>& h) {
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double lo = -args.mid_code(), hi = args.mid_code() - 1;
    const double code = std::min(hi, std::max(lo, std::nearbyint(w[i] / scale + zero)));
    sum += std::pow(w[i] - (code - zero) * scale, 2) * (h.empty() ? 1.0 : h[i]);
  }
  return sum;
}

double least_error(const std::vector<float>& w, const QuantArgs& args, DType dtype, const std::vector<float>& h) {
  double min = 0, max = 0, best = INFINITY;
  for (float value : w) {
    min = std::min<double>(min, value);
    max = std::max<double>(max, value);
  }
  for (int i = 0; i < 80; ++i) {
    const double p = 1 - i / 100.0, steps = args.max_code();
    const double exact = (args.symmetric ? std::max(-min, max) * 2 : max - min) * p / steps;
    const double zero = args.symmetric ? 0 : std::nearbyint(-args.mid_code() - min * p / exact);
    best = std::min(best, error_of(w, args, storable_scale(static_cast<float>(exact), dtype), zero, h));
  }
  return best;
}

TEST(ScaleSearch, FindsTheLeastSquareOfTheGrid) {
  int shrunk = 0;
  for (int bits : {2, 3, 4, 8}) {
    for (bool symmetric : {true, false}) {
      for (std::int64_t count : {32, 128, 77}) {
        for (bool weighted : {false, true}) {
          const QuantArgs args{bits, symmetric, QuantStrategy::channel, -1};
          const std::vector<float> w = heavy_tailed(count, static_cast<std::uint64_t>(bits * 1000 + count));
          std::vector<float> h;
          if (weighted) {
            for (std::int64_t i = 0; i < count; ++i) h.push_back(i % 5 == 0 ? 30.0f : 0.5f);
          }
          ScaleSearch search;
          search.method = ScaleMethod::mse;
          const float* importance = h.empty() ? nullptr : h.data();
          const GroupScale found = find_scale(w.data(), count, args, DType::bf16, search, importance);
          const GroupScale widest = find_scale(w.data(), count, args, DType::bf16, {}, nullptr);
          const double best = least_error(w, args, DType::bf16, h);
          EXPECT_NEAR(error_of(w, args, found.scale, found.zero, h), best, 1e-4 * best) << bits << symmetric << count;
          shrunk += found.scale < widest.scale ? 1 : 0;
        }
      }
    }
  }
  EXPECT_GE(shrunk, 24) << "of 48";
}

TEST(ScaleSearch, FullRangeGivesTheLargerExtremeTheOutermostCode) {
  ScaleSearch search;
  search.method = ScaleMethod::full_range;
  const QuantArgs args{3, true, QuantStrategy::group, 4};
  const std::vector<float> w = {1.0f, -0.5f, 0.25f, 0.0f, -1.0f, 0.5f, 0.25f, 0.75f};
  const QuantTensor q = quantize_rtn(w, 1, 8, args, DType::f32, search);
  EXPECT_EQ(q.scales, (std::vector<float>{-0.25f, 0.25f}));
  EXPECT_EQ(q.codes, (std::vector<std::uint8_t>{0, 6, 3, 4, 0, 6, 5, 7}));

  // A finer grid than minmax's: a smaller error wherever the other extreme is not nearly as large.
  const std::vector<float> wide = heavy_tailed(4096, 3);
  const QuantArgs grouped{3, true, QuantStrategy::group, 128};
  const auto error = [&](const ScaleSearch& how) {
    std::vector<float> decoded(wide.size());
    dequantize(quantize_rtn(wide, 1, 4096, grouped, DType::f32, how), decoded);
    double sum = 0;
    for (std::size_t i = 0; i < wide.size(); ++i) sum += (double(decoded[i]) - wide[i]) * (double(decoded[i]) - wide[i]);
    return sum;
  };
  EXPECT_LT(error(search), 0.9 * error({}));

  const QuantArgs asymmetric{3, false, QuantStrategy::group, 128};
  EXPECT_EQ(quantize_rtn(wide, 1, 4096, asymmetric, DType::f32, search).codes,
            quantize_rtn(wide, 1, 4096, asymmetric, DType::f32).codes);
}

TEST(ScaleSearch, LeavesAGroupOfZerosAlone) {
  const std::vector<float> w(64, 0.0f);
  ScaleSearch search;
  search.method = ScaleMethod::mse;
  for (bool symmetric : {true, false}) {
    const QuantArgs args{4, symmetric, QuantStrategy::group, 64};
    const QuantTensor plain = quantize_rtn(w, 1, 64, args, DType::f16);
    const QuantTensor searched = quantize_rtn(w, 1, 64, args, DType::f16, search);
    EXPECT_EQ(plain.scales, searched.scales);
    EXPECT_EQ(plain.codes, searched.codes);
  }
}

TEST(ScaleSearch, RoundToNearestTakesEachGroupsImportance) {
  const std::int64_t rows = 3, cols = 128;
  const QuantArgs args{3, false, QuantStrategy::group, 64};
  const std::vector<float> w = heavy_tailed(rows * cols, 5);
  std::vector<float> h;
  for (std::int64_t i = 0; i < cols; ++i) h.push_back(static_cast<float>(i));
  ScaleSearch search;
  search.method = ScaleMethod::mse;
  search.importance = h;
  const QuantTensor q = quantize_rtn(w, rows, cols, args, DType::bf16, search);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t g = 0; g < 2; ++g) {
      const GroupScale one = find_scale(&w[r * cols + g * 64], 64, args, DType::bf16, search, &h[g * 64]);
      EXPECT_EQ(q.scales[r * 2 + g], one.scale);
      EXPECT_EQ(q.zero(r, g), static_cast<int>(one.zero) + 4);
    }
  }
}

}  // namespace
}  // namespace kedge
