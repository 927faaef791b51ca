// Each group equals gemm of its rows, bit for bit; empty experts and gathers included.
#include "kernels/grouped_gemm/grouped_gemm.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace kedge {
namespace {

QuantTensor random_quant(std::int64_t n, std::int64_t k, std::mt19937& engine) {
  QuantTensor q;
  q.args.group_size = 32;
  q.rows = n;
  q.cols = k;
  q.codes.resize(static_cast<std::size_t>(n * k));
  for (auto& code : q.codes) {
    code = static_cast<std::uint8_t>(engine() & 15u);
  }
  q.scales.resize(static_cast<std::size_t>(n * k / 32));
  for (auto& s : q.scales) {
    s = to_float(to_bfloat16(static_cast<float>(engine() % 1000) * 1e-4f));
  }
  return q;
}

TEST(GroupedGemm, EqualsGemmPerExpert) {
  constexpr std::int64_t kN = 50, kK = 96;
  std::mt19937 engine(5);
  ThreadPool threads(2);
  Arena arena, other;
  const std::vector<std::int32_t> offsets = {0, 0, 1, 6, 6, 9, 130, 130};
  const auto pairs = static_cast<std::size_t>(offsets.back());
  std::vector<float> x(40 * kK);
  for (auto& v : x) {
    v = static_cast<float>(engine() % 2001) * 1e-3f - 1.0f;
  }
  std::vector<std::int32_t> gather(pairs);
  for (auto& g : gather) {
    g = static_cast<std::int32_t>(engine() % 40);
  }
  for (Isa isa : available_isas()) {
    for (Activations activations : {Activations::fp32, Activations::int8}) {
      std::vector<PackedWeight> weights;
      std::vector<const PackedWeight*> experts;
      for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
        weights.push_back(pack_weight(random_quant(kN, kK, engine), {isa, Numerics::consistent, activations}));
      }
      for (const PackedWeight& w : weights) {
        experts.push_back(&w);
      }
      std::vector<float> gathered(pairs * kK), expected(pairs * kN), y(pairs * kN), direct(pairs * kN);
      for (std::size_t p = 0; p < pairs; ++p) {
        std::memcpy(&gathered[p * kK], &x[static_cast<std::size_t>(gather[p]) * kK], kK * sizeof(float));
      }
      for (std::size_t e = 0; e < experts.size(); ++e) {
        const auto begin = static_cast<std::size_t>(offsets[e]);
        gemm({threads, other}, &gathered[begin * kK], kK, offsets[e + 1] - offsets[e], *experts[e],
             &expected[begin * kN], kN);
      }
      grouped_gemm({threads, arena}, x.data(), gather, offsets, experts, y.data());
      grouped_gemm({threads, arena}, gathered.data(), {}, offsets, experts, direct.data());
      EXPECT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0) << isa_name(isa);
      EXPECT_EQ(std::memcmp(direct.data(), expected.data(), y.size() * sizeof(float)), 0) << isa_name(isa);
    }
  }
}

TEST(GroupedGemm, NoRows) {
  ThreadPool threads(1);
  Arena arena;
  const std::vector<std::int32_t> offsets = {0, 0};
  std::mt19937 engine(1);
  const PackedWeight w = pack_weight(random_quant(16, 32, engine), {});
  const PackedWeight* experts[] = {&w};
  grouped_gemm({threads, arena}, nullptr, {}, offsets, experts, nullptr);
}

}  // namespace
}  // namespace kedge
