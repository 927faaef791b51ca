// The decomposition against the reconstructed weights, and every way of calling it bit for bit over instruction sets,
// threads and batches.
#include "kernels/anchor_gemm/anchor_gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::int64_t kExperts = 4, kRows = 40, kCols = 96, kTokens = 7;

std::vector<float> normals(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(rng.normal());
  return x;
}

AnchorDelta encode(DType anchor, int bits, Manifold manifold = Manifold::sphere, std::int64_t masks = 0) {
  return encode_anchor_delta(normals(kExperts * kRows * kCols, 1), kExperts, kRows, kCols, {anchor, bits, 32, manifold},
                             {manifold == Manifold::sphere, masks, {}}, "up");
}

struct Products {
  std::vector<float> all, one, grouped, rows;
};

// The last expert has rows enough for the tile rows of kernels/gemm, beside others that decode rows serve.
const std::vector<std::int32_t> kOffsets{0, 5, 5, 12, 27},
    kGather{0, 2, 3, 5, 6, 1, 1, 2, 3, 4, 5, 6, 0, 3, 0, 1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1};

Products run(const AnchorDelta& w, AnchorForm form, const LoadOptions& options, int threads) {
  const ExpertMatrices source{{}, &w};
  const PackedExpertMatrices stacked(source, kExperts, kRows, kCols, true, form, options, "up");
  const PackedExpertMatrices apart(source, kExperts, kRows, kCols, false, form, options, "up");
  const bool is_decoded = form == AnchorForm::decoded || is_stiefel(w.args.manifold);
  const bool is_split = form == AnchorForm::split || options.activations == Activations::int8;
  EXPECT_EQ(apart.form(), is_decoded ? AnchorForm::decoded : is_split ? AnchorForm::split : AnchorForm::fused);
  EXPECT_EQ(stacked.form(), is_decoded ? AnchorForm::decoded : AnchorForm::split);
  const std::vector<float> x = normals(kTokens * kCols, 2);
  ThreadPool pool(threads);
  Arena arena;
  const ExecContext ctx{pool, arena};
  const auto pairs = static_cast<std::int64_t>(kGather.size());
  Products out;
  out.all.resize(static_cast<std::size_t>(kTokens * kExperts * kRows));
  out.one.resize(out.all.size());
  out.grouped.resize(static_cast<std::size_t>(pairs * kRows));
  out.rows.resize(out.grouped.size());
  anchor_gemm_all(ctx, x.data(), kTokens, stacked, out.all.data());
  for (std::int64_t e = 0; e < kExperts; ++e) {
    anchor_gemm_one(ctx, x.data(), kCols, kTokens, apart, e, out.one.data() + e * kTokens * kRows);
  }
  anchor_gemm_grouped(ctx, {x.data(), kTokens, kGather, kOffsets}, apart, out.grouped.data());
  // The same rows, gathered by hand, and out of a source with more rows than pairs.
  std::vector<float> gathered;
  for (const std::int32_t t : kGather)
    gathered.insert(gathered.end(), x.begin() + t * kCols, x.begin() + (t + 1) * kCols);
  anchor_gemm_grouped(ctx, {gathered.data(), pairs, {}, kOffsets}, apart, out.rows.data());
  EXPECT_EQ(out.rows, out.grouped);
  std::vector<float> many = x;
  many.resize(static_cast<std::size_t>(30 * kCols));
  anchor_gemm_grouped(ctx, {many.data(), 30, kGather, kOffsets}, apart, out.rows.data());
  EXPECT_EQ(out.rows, out.grouped);
  return out;
}

TEST(AnchorGemm, TheDecompositionIsTheReconstruction) {
  const std::vector<float> x = normals(kTokens * kCols, 2);
  for (const DType anchor : {DType::f16, DType::bf16, DType::i8}) {
    for (const int bits : {4, 2}) {
      for (const Manifold manifold : {Manifold::sphere, Manifold::none, Manifold::stiefel_qr}) {
        for (const std::int64_t masks : {0, 2}) {
          const AnchorDelta w = encode(anchor, bits, manifold, masks);
          std::vector<std::vector<double>> expected(kExperts);
          double square = 0;
          for (std::int64_t e = 0; e < kExperts; ++e) {
            std::vector<float> m(kRows * kCols);
            decode(w, e, m);
            for (std::int64_t t = 0; t < kTokens; ++t) {
              for (std::int64_t n = 0; n < kRows; ++n) {
                double sum = 0;
                for (std::int64_t k = 0; k < kCols; ++k) {
                  sum +=
                      double{x[static_cast<std::size_t>(t * kCols + k)]} * m[static_cast<std::size_t>(n * kCols + k)];
                }
                expected[static_cast<std::size_t>(e)].push_back(sum);
                square += sum * sum;
              }
            }
          }
          const double unit = std::sqrt(square / (kExperts * kTokens * kRows));
          std::vector<float> decoded;
          for (const AnchorForm form : {AnchorForm::decoded, AnchorForm::split, AnchorForm::fused}) {
            const Products out = run(w, form, {}, 1);
            if (form == AnchorForm::decoded) decoded = out.grouped;
            if (form == AnchorForm::fused) {
              EXPECT_EQ(out.grouped, decoded);
            }
            double worst = 0;
            for (std::int64_t e = 0; e < kExperts; ++e) {
              for (std::int64_t t = 0; t < kTokens; ++t) {
                for (std::int64_t n = 0; n < kRows; ++n) {
                  const double value = expected[static_cast<std::size_t>(e)][static_cast<std::size_t>(t * kRows + n)];
                  const float all = out.all[static_cast<std::size_t>((t * kExperts + e) * kRows + n)];
                  const float one = out.one[static_cast<std::size_t>((e * kTokens + t) * kRows + n)];
                  if (form != AnchorForm::fused) {
                    EXPECT_EQ(all, one);
                  }
                  worst = std::max({worst, std::fabs(all - value) / unit, std::fabs(one - value) / unit});
                }
              }
            }
            EXPECT_LE(worst, 1e-5) << dtype_name(anchor) << " " << bits << " " << anchor_form_name(form);
            for (std::int64_t e = 0; e < kExperts; ++e) {
              for (std::int32_t p = kOffsets[static_cast<std::size_t>(e)];
                   p < kOffsets[static_cast<std::size_t>(e) + 1]; ++p) {
                for (std::int64_t n = 0; n < kRows; ++n) {
                  const std::int64_t t = kGather[static_cast<std::size_t>(p)];
                  EXPECT_EQ(out.grouped[static_cast<std::size_t>(p * kRows + n)],
                            out.one[static_cast<std::size_t>((e * kTokens + t) * kRows + n)]);
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST(AnchorGemm, TheSameBitsOnEveryInstructionSetAndThreadCount) {
  for (const DType anchor : {DType::f16, DType::bf16, DType::i8}) {
    const AnchorDelta w = encode(anchor, 4);
    for (const AnchorForm form : {AnchorForm::fused, AnchorForm::split, AnchorForm::decoded}) {
      for (const Activations activations : {Activations::fp32, Activations::int8}) {
        const Products reference = run(w, form, {Isa::scalar, Numerics::consistent, activations}, 1);
        for (const Isa isa : available_isas()) {
          for (const int threads : {1, 3}) {
            const Products out = run(w, form, {isa, Numerics::consistent, activations}, threads);
            EXPECT_EQ(out.all, reference.all) << isa_name(isa) << " " << activations_name(activations);
            EXPECT_EQ(out.grouped, reference.grouped) << isa_name(isa) << " " << activations_name(activations);
          }
        }
      }
    }
  }
}

TEST(AnchorGemm, SizesAndNumbersAreChecked) {
  const AnchorDelta w = encode(DType::f16, 4);
  std::vector<float> plain = normals(2 * 3 * 4, 1);
  const auto pack = [](const ExpertMatrices& source, std::int64_t n) {
    return PackedExpertMatrices(source, 2, n, 4, false, AnchorForm::split, {}, "down");
  };
  EXPECT_THROW(pack({{}, &w}, 3), Error);
  EXPECT_THROW(pack({plain, nullptr}, 5), Error);
  pack({plain, nullptr}, 3);
  plain[4] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(pack({plain, nullptr}, 3), Error);
}

}  // namespace
}  // namespace kedge
