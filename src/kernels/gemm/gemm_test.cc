// Every row of the table that this CPU has against the reference, bit for bit; the reference against doubles.
#include "kernels/gemm/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "kedge/error.h"
#include "kernels/gemm/jobs.h"
#include "kernels/gemm/layout.h"
#include "kernels/gemm/table.h"

namespace kedge {
namespace {

struct Case {
  std::int64_t m, n, k;
  int bits;             // 2, 3, 4, 8; 16: bf16, 17: f16, 32: f32
  std::int64_t group;   // -1: channel
  bool symmetric;
  int scale_bits;       // significant bits of the scales: 8 bf16, 11 f16, 24 f32
  float input_scale = 0;  // static scale of int8 rows
};

std::string describe(const Case& c, const char* row) {
  return std::string(row) + " m " + std::to_string(c.m) + " n " + std::to_string(c.n) + " k " + std::to_string(c.k) +
         " bits " + std::to_string(c.bits) + " group " + std::to_string(c.group) + (c.symmetric ? " sym" : " asym") +
         " scale bits " + std::to_string(c.scale_bits) + " input scale " + std::to_string(c.input_scale);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  float normal() { return std::normal_distribution<float>()(engine_); }
  int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(engine_); }

 private:
  std::mt19937_64 engine_;
};

float round_scale(float s, int bits) {
  return bits == 8 ? to_float(to_bfloat16(s)) : bits == 11 ? to_float(to_float16(s)) : s;
}

QuantTensor random_quant(const Case& c, Random& random) {
  QuantTensor q;
  q.args.num_bits = c.bits;
  q.args.symmetric = c.symmetric;
  q.args.strategy = c.group < 0 ? QuantStrategy::channel : QuantStrategy::group;
  q.args.group_size = c.group;
  q.rows = c.n;
  q.input_scale = c.input_scale;
  q.cols = c.k;
  q.codes.resize(static_cast<std::size_t>(c.n * c.k));
  for (auto& code : q.codes) {
    code = static_cast<std::uint8_t>(random.below(1 << c.bits));
  }
  q.scales.resize(static_cast<std::size_t>(c.n * q.groups()));
  for (auto& s : q.scales) {
    s = round_scale(random.normal() * 0.02f, c.scale_bits);  // negative scales happen
  }
  if (!c.symmetric) {
    q.zeros.resize(q.scales.size());
    for (auto& z : q.zeros) {
      z = static_cast<std::uint8_t>(random.below(1 << c.bits));
    }
  }
  return q;
}

PackedWeight random_weight(const Case& c, Random& random, const LoadOptions& options) {
  if (c.bits <= 8) {
    return pack_weight(random_quant(c, random), options);
  }
  Tensor w(c.bits == 16 ? DType::bf16 : c.bits == 17 ? DType::f16 : DType::f32, {c.n, c.k});
  std::vector<float> values(static_cast<std::size_t>(c.n * c.k));
  for (auto& v : values) {
    v = random.normal() * 0.05f;
  }
  convert_from_float(w.dtype(), values.data(), w.size(), w.data<std::byte>());
  return pack_weight(w.view(), options);
}

std::vector<float> random_rows(std::int64_t m, std::int64_t k, Random& random) {
  std::vector<float> x(static_cast<std::size_t>(m * k));
  for (auto& v : x) {
    v = random.below(50) == 0 ? 0.0f : random.normal();
  }
  return x;
}

std::vector<float> run_row(ThreadPool& threads, const GemmRow& row, const PackedWeight& w, const std::vector<float>& x,
                           std::int64_t m) {
  Arena arena;
  ExecContext ctx{threads, arena};
  ArenaScope scope(arena);
  GemmJob job{};
  job.row = &row;
  job.w = weight_view(w);
  job.in = plan_rows(arena, row, job.w, {x.data(), w.k(), nullptr, m});
  const std::int64_t ldy = w.n() + 3;
  std::vector<float> y(static_cast<std::size_t>(m * ldy), -77.0f);
  job.y = y.data();
  job.ldy = ldy;
  pack_all(ctx, {&job.in, 1});
  run_all(ctx, {&job, 1});
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = w.n(); j < ldy; ++j) {
      EXPECT_EQ(y[static_cast<std::size_t>(i * ldy + j)], -77.0f) << row.name << " writes past its outputs";
    }
  }
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) {
      return false;
    }
  }
  return a.size() == b.size();
}

const GemmRow& reference_row(Activations activations) {
  for (const GemmRow& row : gemm_table()) {
    if (row.isa == Isa::scalar && row.activations == activations) {
      return row;
    }
  }
  return gemm_table().back();
}

// Of normal values one in a hundred lies beyond 127 of it.
constexpr float kStaticScale = 0.02f;

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::int64_t ms[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 25, 40, 97};
  const std::int64_t ns[] = {1, 15, 16, 17, 64, 100};
  const std::int64_t ks[] = {1, 3, 8, 31, 64, 96, 128, 257};
  std::size_t i = 0;
  for (int bits : {32, 16, 17}) {
    for (std::int64_t m : ms) {
      for (std::int64_t k : ks) {
        all.push_back({m, ns[i++ % 6], k, bits, 0, true, 0});
      }
    }
  }
  for (int bits : {2, 3, 4, 8}) {
    for (std::int64_t group : {-1, 32, 64, 128}) {
      for (std::int64_t m : ms) {
        const std::int64_t k = group < 0 ? ks[i % 8] : group * (1 + static_cast<std::int64_t>(i) % 5);
        constexpr int kScaleBits[] = {8, 11, 24};
        all.push_back({m, ns[i % 6], k, bits, group, i % 2 == 0, kScaleBits[i % 3]});
        all.push_back({m, ns[(i + 1) % 6], k, bits, group, i % 2 != 0, kScaleBits[(i + 1) % 3]});
        all.push_back({m, ns[(i + 2) % 6], k, bits, group, i % 2 != 0, kScaleBits[(i + 2) % 3], kStaticScale});
        ++i;
      }
    }
  }
  all.push_back({7, 33, 40, 4, 8, false, 11});   // the smallest group that ISA rows take
  all.push_back({7, 33, 33, 4, 11, false, 11});  // and one that they refuse
  return all;
}

TEST(Gemm, RowsEqualTheReferenceBitForBit) {
  ThreadPool one(1), two(2), three(3);
  ThreadPool* pools[] = {&one, &two, &three};
  Random random(1);
  std::vector<int> served(gemm_table().size(), 0);
  std::size_t turn = 0;
  for (const Case& c : cases()) {
    for (Activations activations : {Activations::fp32, Activations::int8}) {
      const LoadOptions options{detect_isa(), Numerics::consistent, activations};
      const PackedWeight w = random_weight(c, random, options);
      if (effective_activations(w.desc(), options) != activations) {
        continue;
      }
      const std::vector<float> x = random_rows(c.m, c.k, random);
      const std::vector<float> expected = run_row(one, reference_row(activations), w, x, c.m);
      for (std::size_t i = 0; i < gemm_table().size(); ++i) {
        const GemmRow& row = gemm_table()[i];
        if (refusal(row, {w.desc(), options, c.m}) == nullptr) {
          ++served[i];
          const std::vector<float> y = run_row(*pools[turn++ % 3], row, w, x, c.m);
          ASSERT_TRUE(same_bits(y, expected)) << describe(c, row.name);
        }
      }
    }
  }
  for (std::size_t i = 0; i < served.size(); ++i) {
    const GemmRow& row = gemm_table()[i];
    EXPECT_TRUE(served[i] > 0 || static_cast<int>(row.isa) > static_cast<int>(detect_isa())) << row.name;
  }
}

TEST(Gemm, DeltasOnAnAnchorEqualTheReferenceBitForBit) {
  ThreadPool one(1), three(3);
  Random random(6);
  const LoadOptions options{detect_isa(), Numerics::consistent, Activations::int8};  // int8 is not for them
  const std::int64_t ns[] = {1, 15, 16, 17, 64, 100};
  std::size_t i = 0;
  for (const int anchor_bits : {16, 17, 8}) {
    for (const std::int64_t group : {32, 64, 128}) {
      for (const std::int64_t m : {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 25, 97}) {
        const std::int64_t n = ns[i % 6], k = group * (1 + static_cast<std::int64_t>(i) % 4);
        const Case delta_case{m, n, k, i % 4 == 3 ? 2 : 4, group, true, i % 2 == 0 ? 8 : 11};
        const QuantTensor delta = random_quant(delta_case, random);
        const auto anchor = pack_anchor(random_weight({m, n, k, anchor_bits, group, true, 11}, random, options));
        std::vector<float> scale(i % 5 == 4 ? 0 : static_cast<std::size_t>(n));
        for (float& s : scale) s = random.normal();
        ++i;
        const PackedWeight w = pack_anchored(delta, anchor, scale, options);
        const WeightView view = weight_view(w);
        for (std::int64_t row = 0; row < n; ++row) {
          for (std::int64_t at = 0; at < k; ++at) {
            const float d = static_cast<float>(delta.codes[static_cast<std::size_t>(row * k + at)] - delta.zero(row, 0)) *
                            delta.scales[static_cast<std::size_t>(row * delta.groups() + at / group)];
            const float sum = weight_at(anchor->view, row, at) + d;
            ASSERT_EQ(weight_at(view, row, at), scale.empty() ? sum : sum * scale[static_cast<std::size_t>(row)]);
          }
        }
        const std::vector<float> x = random_rows(m, k, random);
        const std::vector<float> expected = run_row(one, reference_row(Activations::fp32), w, x, m);
        int rows = 0;
        for (const GemmRow& row : gemm_table()) {
          if (refusal(row, {w.desc(), options, m}) != nullptr) continue;
          ++rows;
          ASSERT_EQ(row.activations, Activations::fp32) << row.name;
          ASSERT_TRUE(same_bits(run_row(three, row, w, x, m), expected)) << describe(delta_case, row.name);
        }
        EXPECT_GE(rows, detect_isa() == Isa::scalar ? 1 : 2);
      }
    }
  }
}

TEST(Gemm, ReferenceEqualsDoubles) {
  ThreadPool one(1);
  Random random(2);
  for (const Case& c : cases()) {
    for (Activations activations : {Activations::fp32, Activations::int8}) {
      const LoadOptions options{Isa::scalar, Numerics::consistent, activations};
      const PackedWeight w = random_weight(c, random, options);
      if (effective_activations(w.desc(), options) != activations) {
        continue;
      }
      const std::vector<float> x = random_rows(c.m, c.k, random);
      std::vector<float> y(static_cast<std::size_t>(c.m * c.n));
      Arena arena;
      gemm({one, arena}, x.data(), c.k, c.m, w, y.data(), c.n);
      const WeightView view = weight_view(w);
      const bool is_static = c.input_scale != 0 && activations == Activations::int8;
      for (std::int64_t i = 0; i < c.m; ++i) {
        for (std::int64_t n = 0; n < c.n; ++n) {
          double sum = 0, magnitude = 0, steps = 0;
          for (std::int64_t k = 0; k < c.k; ++k) {
            const double wk = weight_at(view, n, k);
            double xk = x[static_cast<std::size_t>(i * c.k + k)];
            if (is_static) xk = std::clamp(xk, -127.0 * c.input_scale, 127.0 * c.input_scale);
            sum += xk * wk;
            magnitude += std::fabs(xk * wk);
            steps += std::fabs(wk);
          }
          // fp32: one rounding per step; int8: half a step per element, of the static scale or of 1/127 of the row's
          // maximum (< 6).
          const double step = is_static ? c.input_scale : 6.0 / 127;
          const double tolerance =
              1e-30 + (activations == Activations::fp32 ? magnitude * static_cast<double>(c.k + 1) * 0x1p-24
                                                        : steps * step * 0.51);
          ASSERT_NEAR(y[static_cast<std::size_t>(i * c.n + n)], sum, tolerance) << describe(c, "reference");
        }
      }
    }
  }
}

TEST(Gemm, PackedWeightsKeepTheirValues) {
  Random random(3);
  for (int bits : {2, 3, 4, 8}) {
    const Case c{1, 19, 96, bits, 32, bits % 2 == 0, 24};
    const QuantTensor q = random_quant(c, random);
    const PackedWeight w = pack_weight(q, {});
    const WeightView view = weight_view(w);
    for (std::int64_t n = 0; n < c.n; ++n) {
      for (std::int64_t k = 0; k < c.k; ++k) {
        const std::int64_t g = k / 32;
        const float expected = static_cast<float>(q.codes[static_cast<std::size_t>(n * c.k + k)] - q.zero(n, g)) *
                               q.scales[static_cast<std::size_t>(n * q.groups() + g)];
        ASSERT_EQ(weight_at(view, n, k), expected);
      }
    }
  }
}

class GemmExtremes : public ::testing::TestWithParam<float> {};

TEST_P(GemmExtremes, SameInAllRows) {
  ThreadPool one(1);
  Random random(4);
  const Case c{5, 33, 128, 4, 32, true, 8, GetParam()};
  const LoadOptions options{detect_isa(), Numerics::consistent, Activations::int8};
  const PackedWeight w = random_weight(c, random, options);
  std::vector<float> x = random_rows(c.m, c.k, random);
  for (std::int64_t k = 0; k < 32; ++k) {
    x[static_cast<std::size_t>(k)] = 0.0f;                   // an empty group
    x[static_cast<std::size_t>(c.k + k)] = 1e-38f;           // one too small to be scaled
    x[static_cast<std::size_t>(2 * c.k + k)] = 3e38f;        // near the top
  }
  x[static_cast<std::size_t>(3 * c.k + 5)] = INFINITY;
  x[static_cast<std::size_t>(4 * c.k + 70)] = NAN;
  const std::vector<float> expected = run_row(one, reference_row(Activations::int8), w, x, c.m);
  EXPECT_TRUE(std::isfinite(expected[0]));
  EXPECT_TRUE(std::isnan(expected[static_cast<std::size_t>(3 * (c.n + 3))]));
  EXPECT_TRUE(std::isnan(expected[static_cast<std::size_t>(4 * (c.n + 3))]));
  for (const GemmRow& row : gemm_table()) {
    if (refusal(row, {w.desc(), options, c.m}) == nullptr) {
      const std::vector<float> y = run_row(one, row, w, x, c.m);
      for (std::size_t i = 0; i < y.size(); ++i) {
        EXPECT_TRUE(std::isnan(y[i]) ? std::isnan(expected[i]) : y[i] == expected[i]) << row.name << " " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Scales, GemmExtremes, ::testing::Values(0.0f, kStaticScale));

TEST(Gemm, RefusesImpossibleInputScales) {
  Random random(5);
  for (const float scale : {-0.1f, 1e-37f, INFINITY, NAN}) {
    EXPECT_THROW(pack_weight(random_quant({1, 16, 32, 8, -1, true, 24, scale}, random), {}), Error) << scale;
  }
}

TEST(Gemm, ExplainNamesTheChosenRow) {
  GemmDesc desc;
  desc.n = desc.k = 64;
  const std::string text = explain_gemm(desc, {}, 1);
  EXPECT_NE(text.find("reference-fp32: chosen"), std::string::npos) << text;
  EXPECT_NE(text.find("needs a wider instruction set"), std::string::npos) << text;
}

}  // namespace
}  // namespace kedge
