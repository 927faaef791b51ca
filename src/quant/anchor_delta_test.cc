// The value format against its formulas in double precision: norms, scales, masks, bits; and what it refuses.
#include "quant/anchor_delta.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "base/rng.h"

namespace kedge {
namespace {

/// Experts that share half of what they are.
std::vector<float> related(std::int64_t experts, std::int64_t size, std::uint64_t seed, double own = 0.5) {
  Rng rng(seed);
  std::vector<float> common(static_cast<std::size_t>(size)), out;
  for (float& value : common) value = static_cast<float>(rng.normal());
  for (std::int64_t e = 0; e < experts; ++e) {
    for (const float value : common) out.push_back(static_cast<float>(0.3 * (value + own * rng.normal())));
  }
  return out;
}

AnchorDelta encode(const AnchorDeltaArgs& args, const AnchorDeltaOptions& options = {}, std::int64_t experts = 5,
                   std::int64_t rows = 12, std::int64_t cols = 128) {
  return encode_anchor_delta(related(experts, rows * cols, 3), experts, rows, cols, args, options, "experts.up_proj");
}

template <class F>
void expect_error(ErrorCode code, const char* part, F&& run) {
  try {
    run();
    ADD_FAILURE() << "no error; expected one about: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(AnchorDelta, EveryRowHasItsNormOnEveryAnchorAndWidth) {
  for (const DType anchor : {DType::f16, DType::bf16, DType::i8}) {
    for (const int bits : {4, 2}) {
      for (const std::int64_t group : {32, 64, 128}) {
        for (const bool keep : {false, true}) {
          const AnchorDelta w = encode({anchor, bits, group, Manifold::sphere}, {keep, 0, {}});
          EXPECT_EQ(w.target_norm.empty(), !keep);
          EXPECT_LE(manifold_error(w), 1e-6) << dtype_name(anchor) << " " << bits << " " << group;
          check_anchor_delta(w, "encoded");
        }
      }
    }
  }
}

TEST(AnchorDelta, DecodesToTheFormula) {
  const AnchorDelta w = encode({DType::bf16, 4, 64, Manifold::sphere}, {true, 0, {}});
  std::vector<float> out(static_cast<std::size_t>(w.rows * w.cols));
  for (std::int64_t e = 0; e < w.experts(); ++e) {
    decode(w, e, out);
    const QuantTensor& delta = w.deltas[static_cast<std::size_t>(e)];
    for (std::int64_t n = 0; n < w.rows; ++n) {
      std::vector<double> sum(static_cast<std::size_t>(w.cols));
      double square = 0;
      for (std::int64_t k = 0; k < w.cols; ++k) {
        float a = 0;
        convert_to_float(DType::bf16, w.anchor.data<std::uint16_t>() + n * w.cols + k, 1, &a);
        const double d = (delta.codes[static_cast<std::size_t>(n * w.cols + k)] - 8.0) *
                         delta.scales[static_cast<std::size_t>(n * 2 + k / 64)];
        sum[static_cast<std::size_t>(k)] = a + d;
        square += (a + d) * (a + d);
      }
      const double scale = w.target_norm[static_cast<std::size_t>(e * w.rows + n)] / std::sqrt(square);
      for (std::int64_t k = 0; k < w.cols; ++k) {
        EXPECT_NEAR(out[static_cast<std::size_t>(n * w.cols + k)], scale * sum[static_cast<std::size_t>(k)], 1e-6);
      }
    }
  }
}

TEST(AnchorDelta, TheFinerDeltaIsNearer) {
  const std::vector<float> weights = related(5, 12 * 128, 3);
  double last = 0;
  for (const int bits : {4, 2}) {
    const AnchorDelta w = encode({DType::f16, bits, 32, Manifold::none});
    double error = 0, total = 0;
    std::vector<float> out(12 * 128);
    for (std::int64_t e = 0; e < 5; ++e) {
      decode(w, e, out);
      for (std::size_t i = 0; i < out.size(); ++i) {
        const double value = weights[static_cast<std::size_t>(e) * out.size() + i];
        error += (out[i] - value) * (out[i] - value);
        total += value * value;
      }
    }
    EXPECT_LT(error / total, bits == 4 ? 2e-3 : 1e-1);
    EXPECT_GT(error / total, 4 * last);
    last = error / total;
  }
}

TEST(AnchorDelta, StiefelRowsAreOrthonormal) {
  for (const Manifold manifold : {Manifold::stiefel_polar, Manifold::stiefel_qr}) {
    const AnchorDelta w = encode({DType::f16, 4, 32, manifold});
    EXPECT_LE(manifold_error(w), 1e-6) << manifold_name(manifold);
    EXPECT_TRUE(w.row_scale.empty());
  }
}

TEST(Retraction, PolarIsTheNearestOrthonormalMatrixAndQrIsGramSchmidt) {
  const std::int64_t rows = 6, cols = 40;
  const std::vector<float> m = related(1, rows * cols, 7);
  const auto retracted = [&](Manifold manifold) {
    std::vector<float> w = m;
    retract(manifold, rows, cols, "w", w);
    return w;
  };
  const std::vector<float> polar = retracted(Manifold::stiefel_polar), qr = retracted(Manifold::stiefel_qr);
  const auto inner = [&](const std::vector<float>& w, std::int64_t i, std::int64_t j) {  // (W M^T)[i, j]
    double sum = 0;
    for (std::int64_t k = 0; k < cols; ++k) {
      sum += double{w[static_cast<std::size_t>(i * cols + k)]} * m[static_cast<std::size_t>(j * cols + k)];
    }
    return sum;
  };
  double trace = 0, other = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    trace += inner(polar, i, i);
    other += inner(qr, i, i);
    EXPECT_GT(inner(qr, i, i), 0);
    for (std::int64_t j = 0; j < i; ++j) {
      EXPECT_NEAR(inner(polar, i, j), inner(polar, j, i), 1e-5);  // M = P W with P symmetric
      EXPECT_NEAR(inner(qr, i, j), 0, 1e-5);                      // M = L W with L lower triangular
    }
  }
  EXPECT_GT(trace, other);  // the nearest has the largest inner product with M
}

TEST(AnchorDelta, MasksKeepTwoOfFour) {
  const AnchorDelta w = encode({DType::f16, 4, 32, Manifold::sphere}, {false, 2, {}});
  ASSERT_EQ(w.masks.size(), 2u);
  EXPECT_EQ(w.mask_of, (std::vector<std::int32_t>{0, 1, 0, 1, 0}));
  for (std::size_t e = 0; e < 5; ++e) {
    const TwoFourMask& mask = w.masks[static_cast<std::size_t>(w.mask_of[e])];
    for (std::size_t i = 0; i < w.deltas[e].codes.size(); ++i) {
      EXPECT_EQ(std::popcount(mask[i / 4]), 2);
      if ((mask[i / 4] >> (i % 4) & 1) == 0) {
        EXPECT_EQ(w.deltas[e].codes[i], 8);
      }
    }
  }
  EXPECT_LE(manifold_error(w), 1e-6);
  check_anchor_delta(w, "masked");
}

TEST(AnchorDelta, BitsPerWeight) {
  const double row_scales = 32.0 / 128;
  EXPECT_DOUBLE_EQ(bits_per_weight(encode({DType::f16, 4, 64, Manifold::none}, {}, 4)), 8.25);
  EXPECT_DOUBLE_EQ(bits_per_weight(encode({DType::f16, 4, 64, Manifold::sphere}, {}, 4)), 8.25 + row_scales);
  EXPECT_DOUBLE_EQ(bits_per_weight(encode({DType::f16, 4, 64, Manifold::sphere}, {true, 0, {}}, 4)),
                   8.25 + 2 * row_scales);
  EXPECT_DOUBLE_EQ(bits_per_weight(encode({DType::i8, 2, 128, Manifold::none}, {}, 5)), 8.125 / 5 + 2.125);
  EXPECT_DOUBLE_EQ(bits_per_weight(encode({DType::bf16, 4, 32, Manifold::none}, {false, 1, {}}, 8)),
                   2 + 2 + 0.5 + 1.0 / 8);
}

TEST(AnchorDelta, RefusesWhatCannotBe) {
  const auto encoded = [](AnchorDeltaArgs args, std::vector<float> weights, std::int64_t rows, std::int64_t cols) {
    return encode_anchor_delta(weights, 2, rows, cols, args, {}, "experts.up_proj");
  };
  const std::vector<float> good = related(2, 4 * 96, 1);
  expect_error(ErrorCode::usage, "groups of 64 do not divide rows of 96",
               [&] { encoded({DType::f16, 4, 64, Manifold::sphere}, good, 4, 96); });
  expect_error(ErrorCode::usage, "3 bits", [&] { encoded({DType::f16, 3, 32, Manifold::sphere}, good, 4, 96); });
  expect_error(ErrorCode::usage, "F32", [&] { encoded({DType::f32, 4, 32, Manifold::sphere}, good, 4, 96); });
  expect_error(ErrorCode::usage, "cannot be orthonormal",
               [&] { encoded({DType::f16, 4, 32, Manifold::stiefel_qr}, related(2, 64 * 32, 1), 64, 32); });
  std::vector<float> zero_row = good;
  std::fill(zero_row.begin() + 4 * 96 + 96, zero_row.begin() + 4 * 96 + 2 * 96, 0.0f);
  for (const Manifold manifold : {Manifold::sphere, Manifold::stiefel_polar, Manifold::stiefel_qr}) {
    expect_error(ErrorCode::bad_file, "expert 1: row 1 is zero",
                 [&] { encoded({DType::f16, 4, 32, manifold}, zero_row, 4, 96); });
  }
  std::vector<float> twice = good;
  std::copy(twice.begin(), twice.begin() + 96, twice.begin() + 96);
  for (const Manifold manifold : {Manifold::stiefel_polar, Manifold::stiefel_qr}) {
    expect_error(ErrorCode::bad_file, "linearly", [&] { encoded({DType::f16, 4, 32, manifold}, twice, 4, 96); });
  }
  std::vector<float> nan = good;
  nan[5] = std::numeric_limits<float>::quiet_NaN();
  expect_error(ErrorCode::bad_file, "NaN", [&] { encoded({DType::f16, 4, 32, Manifold::none}, nan, 4, 96); });
  std::vector<float> large = good;
  for (float& value : large) value *= 1e7f;
  expect_error(ErrorCode::bad_file, "range of F16",
               [&] { encoded({DType::f16, 4, 32, Manifold::none}, large, 4, 96); });

  AnchorDelta w = encode({DType::f16, 4, 32, Manifold::sphere});
  w.anchor.data<std::uint16_t>()[7] = 0x7e00;  // NaN
  expect_error(ErrorCode::bad_file, "the anchor holds a NaN", [&] { check_anchor_delta(w, "w"); });
  w = encode({DType::f16, 4, 32, Manifold::sphere});
  w.row_scale[17] *= 1.00001f;
  expect_error(ErrorCode::mismatch, "expert 1: the scale of row 5", [&] { check_anchor_delta(w, "w"); });
  expect_error(ErrorCode::usage, "no manifold", [] { parse_manifold("torus"); });
  EXPECT_EQ(parse_manifold("stiefel-qr"), Manifold::stiefel_qr);
}

}  // namespace
}  // namespace kedge
