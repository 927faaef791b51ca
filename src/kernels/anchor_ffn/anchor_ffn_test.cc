// Experts on shared anchors against plain loops in double over their decoded weights, and bit for bit over instruction
// sets, threads, batches and ways to their rows.
#include "kernels/anchor_ffn/anchor_ffn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "base/rng.h"

namespace kedge {
namespace {

constexpr std::int64_t kExperts = 4, kHidden = 64, kSize = 96, kTokens = 9, kTopK = 2, kPairs = kTokens * kTopK;

std::vector<float> normals(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(0.3 * rng.normal());
  return x;
}

struct Stacks {
  explicit Stacks(const AnchorDeltaArgs& args)
      : gate(make(kSize, kHidden, args, 1)), up(make(kSize, kHidden, args, 2)), down(make(kHidden, kSize, args, 3)) {}
  static AnchorDelta make(std::int64_t n, std::int64_t k, const AnchorDeltaArgs& args, std::uint64_t seed) {
    return encode_anchor_delta(normals(kExperts * n * k, seed), kExperts, n, k, args, {true, 0, {}}, "experts");
  }
  AnchorFfnWeights pack(AnchorForm form, const LoadOptions& options) const {
    AnchorFfnWeights w;
    w.gate = {{{}, &gate}, kExperts, kSize, kHidden, false, form, options, "gate"};
    w.up = {{{}, &up}, kExperts, kSize, kHidden, false, form, options, "up"};
    w.down = {{{}, &down}, kExperts, kHidden, kSize, false, form, options, "down"};
    return w;
  }
  AnchorDelta gate, up, down;
};

/// Token t goes to experts t % 3 and (t + 1) % 3: the last expert has no token.
struct Routing {
  Routing() {
    std::vector<std::vector<std::int32_t>> of(kExperts);
    for (std::int32_t t = 0; t < kTokens; ++t) {
      for (std::int32_t s = 0; s < kTopK; ++s) of[static_cast<std::size_t>((t + s) % 3)].push_back(t * kTopK + s);
    }
    pair_of.resize(kPairs);
    offsets.push_back(0);
    for (const auto& pairs : of) {
      for (const std::int32_t at : pairs) {
        pair_of[static_cast<std::size_t>(at)] = static_cast<std::int32_t>(token.size());
        token.push_back(at / kTopK);
      }
      offsets.push_back(static_cast<std::int32_t>(token.size()));
    }
    weights = normals(kPairs, 7);
  }
  TokenPermutation view() const { return {offsets, token, pair_of, kTokens, kTopK}; }
  std::vector<std::int32_t> offsets, token, pair_of;
  std::vector<float> weights;
};

const AnchorFfnDesc kDesc{kExperts, kHidden, kSize, FfnActivation::silu, true};

std::vector<double> expected(const Stacks& stacks, const std::vector<float>& x, const Routing& routing) {
  std::vector<double> y(kTokens * kHidden, 0);
  std::vector<float> gate(kSize * kHidden), up(gate.size()), down(gate.size());
  for (std::size_t t = 0; t < kTokens; ++t) {
    for (std::size_t s = 0; s < kTopK; ++s) {
      const std::int64_t e = static_cast<std::int64_t>((t + s) % 3);
      decode(stacks.gate, e, gate);
      decode(stacks.up, e, up);
      decode(stacks.down, e, down);
      std::vector<double> h(kSize);
      for (std::size_t i = 0; i < kSize; ++i) {
        double g = 0, u = 0;
        for (std::size_t k = 0; k < kHidden; ++k) {
          g += double(x[t * kHidden + k]) * double(gate[i * kHidden + k]);
          u += double(x[t * kHidden + k]) * double(up[i * kHidden + k]);
        }
        h[i] = g / (1 + std::exp(-g)) * u;
      }
      for (std::size_t n = 0; n < kHidden; ++n) {
        double sum = 0;
        for (std::size_t i = 0; i < kSize; ++i) sum += h[i] * double(down[n * kSize + i]);
        y[t * kHidden + n] += double(routing.weights[t * kTopK + s]) * sum;
      }
    }
  }
  return y;
}

class AnchorFfn : public testing::TestWithParam<std::tuple<AnchorDeltaArgs, AnchorForm>> {};

TEST_P(AnchorFfn, IsTheFfnOfTheDecodedWeightsAndTheSameBitsEverywhere) {
  const auto [args, form] = GetParam();
  const Stacks stacks(args);
  const Routing routing;
  const std::vector<float> x = normals(kTokens * kHidden, 9);
  const auto run = [&](const LoadOptions& load, int threads, ExpertRows rows, std::vector<float>* h = nullptr) {
    const AnchorFfnWeights weights = stacks.pack(form, load);
    ThreadPool pool(threads);
    Arena arena;
    std::vector<float> y(x.size());
    if (h != nullptr) h->assign(kPairs * kSize, 0);
    anchor_ffn({pool, arena}, x.data(), routing.view(), routing.weights.data(), kDesc, weights, y.data(),
               {load.isa, h != nullptr ? h->data() : nullptr, rows});
    return y;
  };
  std::vector<float> inner, other;
  const std::vector<float> y = run({Isa::scalar}, 1, ExpertRows::in_place, &inner);
  const std::vector<double> exact = expected(stacks, x, routing);
  double largest = 0;
  for (const double value : exact) largest = std::max(largest, std::fabs(value));
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], exact[i], 1e-5 * largest);

  for (const Activations activations : {Activations::fp32, Activations::int8}) {
    const std::vector<float> first = run({Isa::scalar, Numerics::consistent, activations}, 1, ExpertRows::in_place);
    for (const Isa isa : available_isas()) {
      for (const int threads : {1, 3}) {
        for (const ExpertRows rows : {ExpertRows::in_place, ExpertRows::copied}) {
          EXPECT_EQ(run({isa, Numerics::consistent, activations}, threads, rows, &other), first) << isa_name(isa);
          if (activations == Activations::fp32) {
            EXPECT_EQ(other, inner) << isa_name(isa);
          }
        }
      }
    }
  }

  // The last token by itself.
  const AnchorFfnWeights weights = stacks.pack(form, {detect_isa()});
  ThreadPool pool(2);
  Arena arena;
  const std::int64_t t = kTokens - 1;
  const std::vector<std::int32_t> offsets{0, 0, 0, 0, 0}, token{0, 0};
  std::vector<std::int32_t> counts = offsets, pair_of(2);
  for (std::int64_t e = 0, p = 0; e < kExperts; ++e) {
    for (std::int64_t s = 0; s < kTopK; ++s) {
      if ((t + s) % 3 == e) pair_of[static_cast<std::size_t>(s)] = static_cast<std::int32_t>(p++);
    }
    counts[static_cast<std::size_t>(e) + 1] = static_cast<std::int32_t>(p);
  }
  std::vector<float> alone(kHidden);
  anchor_ffn({pool, arena}, x.data() + t * kHidden, {counts, token, pair_of, 1, kTopK},
             routing.weights.data() + t * kTopK, kDesc, weights, alone.data(), {detect_isa()});
  EXPECT_EQ(alone, std::vector<float>(y.end() - kHidden, y.end()));
}
INSTANTIATE_TEST_SUITE_P(All, AnchorFfn,
                         testing::Combine(testing::Values(AnchorDeltaArgs{DType::f16, 4, 32, Manifold::none},
                                                          AnchorDeltaArgs{DType::i8, 2, 32, Manifold::none},
                                                          AnchorDeltaArgs{DType::bf16, 4, 32, Manifold::sphere}),
                                          testing::Values(AnchorForm::fused, AnchorForm::split)));

}  // namespace
}  // namespace kedge
