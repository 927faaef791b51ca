// Every row of the table against the scalar reference, bit for bit: routings with empty experts, mixed formats,
// threads, batches, the intermediate output; and the reference against plain loops.
#include "kernels/moe_ffn/moe_ffn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/gemm/layout.h"
#include "kernels/moe_ffn/rows.h"
#include "kernels/swiglu/swiglu.h"

namespace kedge {
namespace {

struct Layer {
  std::int64_t experts, hidden, size, tokens, top_k;
  bool mixed;  // expert e has its own format
  int bits;    // 4, 8 or 32
  FfnActivation activation;
};

struct Routing {
  std::vector<std::int32_t> offsets, token, pair_of;
  std::vector<float> weights;
  std::int64_t tokens, top_k;
  TokenPermutation view() const { return {offsets, token, pair_of, tokens, top_k}; }
};

Routing random_routing(const Layer& s, std::mt19937& engine) {
  Routing r;
  r.tokens = s.tokens;
  r.top_k = s.top_k;
  std::vector<std::vector<std::pair<std::int32_t, std::int32_t>>> of(static_cast<std::size_t>(s.experts));
  for (std::int64_t t = 0; t < s.tokens; ++t) {
    std::vector<bool> taken(static_cast<std::size_t>(s.experts), false);
    for (std::int64_t slot = 0; slot < s.top_k;) {
      const std::size_t e = engine() % static_cast<std::size_t>(s.experts - 1);  // the last expert stays empty
      if (!taken[e]) {
        taken[e] = true;
        of[e].push_back({static_cast<std::int32_t>(t), static_cast<std::int32_t>(slot++)});
      }
    }
  }
  r.pair_of.resize(static_cast<std::size_t>(s.tokens * s.top_k));
  r.offsets.push_back(0);
  for (const auto& rows : of) {
    for (const auto& [t, slot] : rows) {
      r.pair_of[static_cast<std::size_t>(t * s.top_k + slot)] = static_cast<std::int32_t>(r.token.size());
      r.token.push_back(t);
    }
    r.offsets.push_back(static_cast<std::int32_t>(r.token.size()));
  }
  for (std::size_t i = 0; i < r.pair_of.size(); ++i) {
    r.weights.push_back(static_cast<float>(engine() % 1000) * 1e-3f);
  }
  return r;
}

PackedWeight random_weight(std::int64_t n, std::int64_t k, int bits, std::uint32_t seed, const LoadOptions& options) {
  std::mt19937 engine(seed);
  if (bits == 32) {
    Tensor w(DType::f32, {n, k});
    for (std::int64_t i = 0; i < n * k; ++i) {
      w.data<float>()[i] = static_cast<float>(engine() % 2001) * 1e-4f - 0.1f;
    }
    return pack_weight(w.view(), options);
  }
  QuantTensor q;
  q.args.num_bits = bits;
  q.args.symmetric = seed % 2 == 0;
  q.args.group_size = 32;
  q.rows = n;
  q.cols = k;
  for (std::int64_t i = 0; i < n * k; ++i) {
    q.codes.push_back(static_cast<std::uint8_t>(engine() & static_cast<unsigned>(q.args.max_code())));
  }
  for (std::int64_t i = 0; i < n * k / 32; ++i) {
    q.scales.push_back(to_float(to_bfloat16(static_cast<float>(engine() % 1000) * 1e-5f)));
    if (!q.args.symmetric) {
      q.zeros.push_back(static_cast<std::uint8_t>(engine() & static_cast<unsigned>(q.args.max_code())));
    }
  }
  return pack_weight(q, options);
}

PackedExperts make_experts(const Layer& s, const LoadOptions& options) {
  PackedExperts experts;
  for (std::int64_t e = 0; e < s.experts; ++e) {
    constexpr int kBits[] = {4, 8, 32, 3};
    const int bits = s.mixed ? kBits[e % 4] : s.bits;
    const auto seed = static_cast<std::uint32_t>(e * 10);
    ExpertWeights weights{random_weight(s.size, s.hidden, bits, seed, options),
                          random_weight(s.size, s.hidden, bits, seed + 1, options),
                          random_weight(s.hidden, s.size, bits, seed + 2, options)};
    if (e == 0) {
      experts = PackedExperts(s.experts, std::move(weights));
    } else {
      experts.set(e, std::move(weights));
    }
  }
  return experts;
}

ExpertFfnDesc describe(const Layer& s) { return {s.experts, s.hidden, s.size, s.activation}; }

std::vector<float> random_rows(std::int64_t count, std::mt19937& engine) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (auto& v : x) {
    v = static_cast<float>(engine() % 4001) * 1e-3f - 2.0f;
  }
  return x;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

const std::vector<Layer>& setups() {
  static const std::vector<Layer> all = {
      {8, 64, 32, 1, 2, false, 4, FfnActivation::silu},     {8, 96, 160, 5, 3, false, 4, FfnActivation::gelu},
      {5, 64, 96, 40, 2, true, 0, FfnActivation::silu},     {9, 128, 64, 33, 8, false, 8, FfnActivation::gelu_tanh},
      {4, 32, 32, 150, 3, true, 0, FfnActivation::relu2},   {3, 40, 24, 7, 1, false, 32, FfnActivation::silu},
      {16, 160, 96, 2, 4, false, 8, FfnActivation::silu},   {2, 64, 64, 230, 1, false, 4, FfnActivation::silu},
  };
  return all;
}

TEST(MoeFfn, RowsEqualTheScalarReferenceBitForBit) {
  std::mt19937 engine(11);
  ThreadPool one(1), two(2), three(3);
  for (const Layer& s : setups()) {
    const Routing routing = random_routing(s, engine);
    const TokenPermutation permutation = routing.view();
    const std::vector<float> x = random_rows(s.tokens * s.hidden, engine);
    const ExpertFfnDesc desc = describe(s);
    const auto pairs = static_cast<std::size_t>(s.tokens * s.top_k);
    for (Activations activations : {Activations::fp32, Activations::int8}) {
      const PackedExperts scalar = make_experts(s, {Isa::scalar, Numerics::consistent, activations});
      std::vector<float> expected(x.size()), h(pairs * static_cast<std::size_t>(s.size));
      Arena arena;
      moe_ffn_reference({one, arena}, {x.data(), &permutation, routing.weights.data(), &desc, &scalar, expected.data(),
                                       h.data()});
      for (Isa isa : available_isas()) {
        const PackedExperts experts = make_experts(s, {isa, Numerics::consistent, activations});
        for (const MoeFfnRow& row : moe_ffn_table()) {
          if (row.run != moe_ffn_reference && row.refusal(desc, experts) != nullptr) continue;
          for (ThreadPool* threads : {&one, &two, &three}) {
            std::vector<float> y(x.size(), -1.0f), again(x.size(), -1.0f), inner(h.size(), -1.0f);
            MoeFfnCall call{x.data(), &permutation, routing.weights.data(), &desc, &experts, y.data(), nullptr};
            row.run({*threads, arena}, call);
            ASSERT_TRUE(same(y, expected)) << row.name << " " << isa_name(isa) << " tokens " << s.tokens;
            call.y = again.data();
            call.intermediate = inner.data();
            row.run({*threads, arena}, call);
            ASSERT_TRUE(same(again, expected)) << row.name << " " << isa_name(isa);
            ASSERT_TRUE(same(inner, h)) << row.name << " " << isa_name(isa);
            std::fill(inner.begin(), inner.end(), -1.0f);
            call.y = nullptr;
            row.run({*threads, arena}, call);
            ASSERT_TRUE(same(inner, h)) << row.name << " " << isa_name(isa) << ", h alone";
          }
        }
      }
    }
  }
}

TEST(MoeFfn, TokensDoNotDependOnTheirBatch) {
  std::mt19937 engine(12);
  ThreadPool threads(2);
  const Layer s{6, 64, 64, 37, 2, false, 4, FfnActivation::silu};
  const Routing routing = random_routing(s, engine);
  const std::vector<float> x = random_rows(s.tokens * s.hidden, engine);
  const PackedExperts experts = make_experts(s, {detect_isa(), Numerics::consistent, Activations::int8});
  std::vector<float> all(x.size());
  Arena arena;
  moe_ffn({threads, arena}, x.data(), routing.view(), routing.weights.data(), describe(s), experts, all.data());
  const std::int64_t t = 20;
  Routing single;
  single.tokens = 1;
  single.top_k = s.top_k;
  single.pair_of.resize(static_cast<std::size_t>(s.top_k));
  single.offsets.push_back(0);
  for (std::int64_t e = 0; e < s.experts; ++e) {
    for (std::int64_t slot = 0; slot < s.top_k; ++slot) {
      const std::int32_t pair = routing.pair_of[static_cast<std::size_t>(t * s.top_k + slot)];
      if (pair >= routing.offsets[static_cast<std::size_t>(e)] && pair < routing.offsets[static_cast<std::size_t>(e) + 1]) {
        single.pair_of[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(single.token.size());
        single.token.push_back(0);
      }
    }
    single.offsets.push_back(static_cast<std::int32_t>(single.token.size()));
  }
  std::vector<float> y(static_cast<std::size_t>(s.hidden));
  moe_ffn({threads, arena}, x.data() + t * s.hidden, single.view(), routing.weights.data() + t * s.top_k, describe(s),
          experts, y.data());
  EXPECT_EQ(std::memcmp(y.data(), all.data() + t * s.hidden, y.size() * sizeof(float)), 0);
}

TEST(MoeFfn, ReferenceEqualsDoubles) {
  std::mt19937 engine(13);
  ThreadPool threads(1);
  const Layer s{5, 64, 96, 9, 2, true, 0, FfnActivation::silu};
  const Routing routing = random_routing(s, engine);
  const std::vector<float> x = random_rows(s.tokens * s.hidden, engine);
  const PackedExperts experts = make_experts(s, {});
  std::vector<float> y(x.size());
  Arena arena;
  moe_ffn({threads, arena}, x.data(), routing.view(), routing.weights.data(), describe(s), experts, y.data());
  for (std::int64_t t = 0; t < s.tokens; ++t) {
    std::vector<double> expected(static_cast<std::size_t>(s.hidden), 0.0);
    for (std::int64_t slot = 0; slot < s.top_k; ++slot) {
      const std::size_t at = static_cast<std::size_t>(t * s.top_k + slot);
      std::int64_t e = 0;
      while (routing.offsets[static_cast<std::size_t>(e) + 1] <= routing.pair_of[at]) {
        ++e;
      }
      const WeightView gate = weight_view(experts[e].gate), up = weight_view(experts[e].up);
      const WeightView down = weight_view(experts[e].down);
      for (std::int64_t i = 0; i < s.size; ++i) {
        double a = 0, b = 0;
        for (std::int64_t k = 0; k < s.hidden; ++k) {
          const double value = x[static_cast<std::size_t>(t * s.hidden + k)];
          a += value * weight_at(gate, i, k);
          b += value * weight_at(up, i, k);
        }
        const double h = a / (1 + std::exp(-a)) * b;
        for (std::int64_t n = 0; n < s.hidden; ++n) {
          expected[static_cast<std::size_t>(n)] += routing.weights[at] * h * weight_at(down, n, i);
        }
      }
    }
    for (std::int64_t n = 0; n < s.hidden; ++n) {
      const double want = expected[static_cast<std::size_t>(n)];
      ASSERT_NEAR(y[static_cast<std::size_t>(t * s.hidden + n)], want, 2e-5 * (1 + std::fabs(want)));
    }
  }
}

TEST(MoeFfn, WarmCallsTakeNoMemory) {
  std::mt19937 engine(14);
  ThreadPool threads(2);
  const Layer s{8, 64, 64, 12, 2, false, 4, FfnActivation::silu};
  const Routing routing = random_routing(s, engine);
  const std::vector<float> x = random_rows(s.tokens * s.hidden, engine);
  const PackedExperts experts = make_experts(s, {detect_isa(), Numerics::consistent, Activations::int8});
  std::vector<float> y(x.size());
  Arena arena;
  std::size_t held = 0;
  for (int i = 0; i < 3; ++i) {
    moe_ffn({threads, arena}, x.data(), routing.view(), routing.weights.data(), describe(s), experts, y.data());
    EXPECT_TRUE(i < 2 || arena.capacity() == held);
    held = arena.capacity();
  }
}

}  // namespace
}  // namespace kedge
