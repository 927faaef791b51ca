// The alternating fit and the alignment on matrices whose common part is known.
#include "ptq/anchor/fit.h"

#include <cmath>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "kedge/error.h"
#include "ptq/anchor/align.h"

namespace kedge {
namespace {

constexpr std::int64_t kExperts = 6, kRows = 48, kCols = 64;

std::vector<float> normals(std::int64_t count, std::uint64_t seed, double deviation = 1) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(deviation * rng.normal());
  return x;
}

/// A common matrix and `own` of each expert's own.
std::vector<float> alike(double own) {
  const std::vector<float> common = normals(kRows * kCols, 1);
  std::vector<float> w = normals(kExperts * kRows * kCols, 2, own);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] += common[i % common.size()];
  return w;
}

AnchorFit job(std::span<const float> weights, const AnchorDeltaArgs& args) {
  AnchorFit fit;
  fit.weights = weights;
  fit.experts = kExperts;
  fit.rows = kRows;
  fit.cols = kCols;
  fit.args = args;
  fit.round_in_parallel = true;
  fit.round = [args](std::int64_t, std::span<const float> delta, std::span<const float>) {
    return quantize_rtn(delta, kRows, kCols, args.delta_args(), DType::f16);
  };
  return fit;
}

double relative_error(const AnchorDelta& w, std::span<const float> weights, std::span<const float> importance = {}) {
  double error = 0, all = 0;
  std::vector<float> one(static_cast<std::size_t>(kRows * kCols));
  for (std::int64_t e = 0; e < kExperts; ++e) {
    decode(w, e, one);
    for (std::size_t i = 0; i < one.size(); ++i) {
      const double original = weights[static_cast<std::size_t>(e) * one.size() + i];
      const double h = importance.empty() ? 1 : double(importance[static_cast<std::size_t>(e * kCols) + i % kCols]);
      error += h * (original - one[i]) * (original - one[i]);
      all += h * original * original;
    }
  }
  return std::sqrt(error / all);
}

TEST(AnchorFit, TakesAwayWhatExpertsShare) {
  ThreadPool threads(2);
  const std::vector<float> weights = alike(0.1);
  for (const DType anchor : {DType::f16, DType::bf16}) {
    const FittedAnchor fitted = fit_anchor(job(weights, {anchor, 4, 32, Manifold::none}), threads, "up");
    // The mean of six leaves 5/6 of what is each one's own: 1 - 0.01 / 1.01 * 5/6.
    EXPECT_NEAR(fitted.shared, 1 - 0.01 / 1.01 * 5 / 6, 0.001);
    const QuantTensor plain =
        quantize_rtn(weights, kExperts * kRows, kCols, {4, true, QuantStrategy::group, 32}, DType::f16);
    std::vector<float> decoded(weights.size());
    dequantize(plain, decoded);
    double error = 0, all = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      error += double(weights[i] - decoded[i]) * double(weights[i] - decoded[i]);
      all += double(weights[i]) * double(weights[i]);
    }
    EXPECT_LT(relative_error(fitted.stack, weights), 0.15 * std::sqrt(error / all));
    check_anchor_delta(fitted.stack, "up");
  }
}

TEST(AnchorFit, AlternatingIsBetterThanTheMean) {
  ThreadPool threads(2);
  const std::vector<float> weights = alike(1.0);
  for (const int bits : {2, 4}) {
    const AnchorDeltaArgs args{DType::f16, bits, 32, Manifold::none};
    const FittedAnchor fitted = fit_anchor(job(weights, args), threads, "up");
    const AnchorDelta mean = encode_anchor_delta(weights, kExperts, kRows, kCols, args, {}, "up");
    EXPECT_GT(fitted.steps, 1);
    EXPECT_LT(relative_error(fitted.stack, weights), (bits == 2 ? 0.97 : 0.999) * relative_error(mean, weights));
  }
}

TEST(AnchorFit, InputsThatMatterAreFittedBetter) {
  ThreadPool threads(2);
  const std::vector<float> weights = alike(1.0);
  std::vector<float> importance(static_cast<std::size_t>(kExperts * kCols), 0.01f);
  for (std::int64_t e = 0; e < kExperts; ++e) {
    for (std::int64_t k = 0; k < kCols; ++k) {
      if (k % kExperts == e) importance[static_cast<std::size_t>(e * kCols + k)] = 10;
    }
  }
  AnchorFit weighted = job(weights, {DType::f16, 2, 32, Manifold::none});
  const double plain = relative_error(fit_anchor(weighted, threads, "up").stack, weights, importance);
  weighted.importance = importance;
  EXPECT_LT(relative_error(fit_anchor(weighted, threads, "up").stack, weights, importance), 0.8 * plain);
}

TEST(AnchorFit, TheSphereKeepsTheNorms) {
  ThreadPool threads(2);
  const std::vector<float> weights = alike(1.0);
  const FittedAnchor fitted = fit_anchor(job(weights, {DType::i8, 2, 32, Manifold::sphere}), threads, "up");
  check_anchor_delta(fitted.stack, "up");
  EXPECT_LT(manifold_error(fitted.stack), 1e-6);
  std::vector<float> norms(static_cast<std::size_t>(kExperts * kRows));
  row_norms(weights, kExperts * kRows, kCols, norms);
  EXPECT_EQ(fitted.stack.target_norm, norms);
}

TEST(AnchorFit, ThreadsChangeNoBit) {
  const std::vector<float> weights = alike(0.5);
  std::vector<AnchorDelta> results;
  for (const int count : {1, 3}) {
    ThreadPool threads(count);
    results.push_back(fit_anchor(job(weights, {DType::f16, 4, 64, Manifold::sphere}), threads, "up").stack);
  }
  for (std::int64_t e = 0; e < kExperts; ++e) {
    std::vector<float> a(static_cast<std::size_t>(kRows * kCols)), b(a.size());
    decode(results[0], e, a);
    decode(results[1], e, b);
    EXPECT_EQ(a, b);
  }
}

TEST(AnchorFit, RefusesAnAnchorBeyondItsType) {
  ThreadPool threads(1);
  std::vector<float> weights = alike(0.1);
  for (std::int64_t e = 0; e < kExperts; ++e) weights[static_cast<std::size_t>(e * kRows * kCols)] = 1e6f;
  try {
    fit_anchor(job(weights, {DType::f16, 4, 32, Manifold::none}), threads, "up");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_file);
    EXPECT_NE(std::string(error.what()).find("bfloat16"), std::string::npos);
  }
  fit_anchor(job(weights, {DType::bf16, 4, 32, Manifold::none}), threads, "up");
}

/// Experts of one layer whose hidden units are those of one expert, shuffled and disturbed.
class Shuffled : public WeightSource {
 public:
  explicit Shuffled(double own) {
    Rng rng(9);
    for (std::int64_t e = 0; e < kExperts; ++e) {
      std::vector<std::int32_t> order(kRows);
      std::iota(order.begin(), order.end(), 0);
      for (std::size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[rng.below(i + 1)]);
      for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
        const bool down = std::string(part) == "down_proj";
        Tensor w(DType::f32, down ? Shape{kCols, kRows} : Shape{kRows, kCols});
        const std::vector<float> common = normals(kRows * kCols, 20 + std::string(part).size() + (down ? 7 : 0));
        const std::vector<float> noise = normals(kRows * kCols, rng.next(), own);
        for (std::int64_t i = 0; i < kRows; ++i) {
          for (std::int64_t k = 0; k < kCols; ++k) {
            const std::int64_t from = order[static_cast<std::size_t>(i)] * kCols + k;
            w.data<float>()[down ? k * kRows + i : i * kCols + k] =
                common[static_cast<std::size_t>(from)] + noise[static_cast<std::size_t>(i * kCols + k)];
          }
        }
        matrices_.emplace("experts." + std::to_string(e) + "." + part, std::move(w));
      }
      orders.push_back(std::move(order));
    }
  }
  WeightData weight(const std::string& module, std::int64_t, std::int64_t) const override {
    return matrices_.at(module).view();
  }
  std::vector<float> vector(const std::string&, std::int64_t) const override { return {}; }
  void done(const std::string&) const noexcept override {}

  std::vector<std::vector<std::int32_t>> orders;

 private:
  std::map<std::string, Tensor> matrices_;
};

TEST(Alignment, FindsShuffledUnitsAgain) {
  ThreadPool threads(2);
  Arena arena;
  const Shuffled source(0.5);
  for (const Isa isa : available_isas()) {
    const Alignment a = align_experts({threads, arena}, isa, source, "experts", {kExperts, kCols, kRows});
    // The common part has 1 / 1.25 of the square; of the rest the mean holds a sixth.
    EXPECT_NEAR(a.shared_after, (1 + 0.25 / kExperts) / 1.25, 0.01);
    EXPECT_LT(a.shared_before, 0.4);
    for (std::size_t e = 1; e < kExperts; ++e) {
      for (std::size_t j = 0; j < kRows; ++j) {
        const auto unit = [&](std::size_t expert) {
          return source.orders[expert][static_cast<std::size_t>(a.order[expert][j])];
        };
        ASSERT_EQ(unit(e), unit(0)) << "expert " << e << ", place " << j;
      }
    }
  }
}

}  // namespace
}  // namespace kedge
