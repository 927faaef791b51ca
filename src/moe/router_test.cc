#include "moe/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace kedge {
namespace {

struct Routed {
  std::vector<std::int32_t> ids;
  std::vector<float> weights, scores;
};

Routed run(const RouterSpec& spec, const std::vector<float>& logits, const std::vector<float>& bias,
           Isa isa = Isa::scalar) {
  const std::int64_t tokens = static_cast<std::int64_t>(logits.size()) / spec.num_experts;
  Routed out;
  out.ids.resize(static_cast<std::size_t>(tokens * spec.num_experts_per_tok));
  out.weights.resize(out.ids.size());
  out.scores.resize(logits.size());
  route(spec, logits.data(), tokens, bias, out.ids.data(), out.weights.data(), out.scores.data(), isa);
  return out;
}

std::vector<float> normals(std::size_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> out(count);
  for (float& x : out) x = static_cast<float>(rng.normal());
  return out;
}

/// Every row of the table, in plain, normalised, scaled, and (where it has them) biased and grouped form.
std::vector<RouterSpec> all_specs() {
  std::vector<RouterSpec> specs;
  for (const RouterRow& row : routers()) {
    for (const bool norm : {false, true}) {
      RouterSpec spec;
      spec.scoring_func = row.scoring_func;
      spec.num_experts = 16;
      spec.num_experts_per_tok = 4;
      spec.norm_topk_prob = norm;
      specs.push_back(spec);
      spec.routed_scaling_factor = 2.5f;
      specs.push_back(spec);
      if (row.scoring_func != ScoringFunc::sigmoid) continue;
      spec.selection_bias = true;
      specs.push_back(spec);
      spec.n_group = 4;
      spec.topk_group = 2;
      specs.push_back(spec);
      spec.n_group = 16;
      spec.topk_group = 4;
      specs.push_back(spec);
    }
  }
  return specs;
}

std::vector<float> bias_for(const RouterSpec& spec) {
  return spec.selection_bias ? normals(static_cast<std::size_t>(spec.num_experts), 99) : std::vector<float>();
}

TEST(Routers, EachScoringFunctionHasOneRow) {
  ASSERT_EQ(routers().size(), 2u);
  EXPECT_STREQ(routers()[0].name, "softmax");
  EXPECT_STREQ(routers()[1].name, "sigmoid");
}

TEST(Routers, SlotsAreDistinctSortedByScoreAndWithinTheBestGroups) {
  for (const RouterSpec& spec : all_specs()) {
    const auto logits = normals(static_cast<std::size_t>(64 * spec.num_experts), 1);
    const Routed out = run(spec, logits, bias_for(spec));
    const std::int64_t k = spec.num_experts_per_tok, experts = spec.num_experts;
    for (std::int64_t t = 0; t < 64; ++t) {
      const float* scores = out.scores.data() + t * experts;
      std::set<std::int32_t> ids, groups;
      for (std::int64_t s = 0; s < k; ++s) {
        const std::int32_t id = out.ids[static_cast<std::size_t>(t * k + s)];
        ids.insert(id);
        groups.insert(static_cast<std::int32_t>(id / (experts / spec.n_group)));
        if (s > 0) {
          EXPECT_GE(scores[out.ids[static_cast<std::size_t>(t * k + s - 1)]], scores[id]);
        }
      }
      EXPECT_EQ(static_cast<std::int64_t>(ids.size()), k);
      EXPECT_LE(static_cast<std::int64_t>(groups.size()), spec.topk_group);
      float weakest = std::numeric_limits<float>::infinity();
      for (const std::int32_t id : ids) weakest = std::min(weakest, scores[id]);
      for (std::int32_t e = 0; e < experts; ++e) {
        if (!ids.contains(e)) {
          EXPECT_LE(scores[e], weakest);
        }
      }
    }
  }
}

TEST(Routers, WeightsAreTheFormulas) {
  for (const RouterSpec& spec : all_specs()) {
    const std::int64_t k = spec.num_experts_per_tok, experts = spec.num_experts;
    const auto logits = normals(static_cast<std::size_t>(8 * experts), 2);
    const Routed out = run(spec, logits, bias_for(spec));
    for (std::int64_t t = 0; t < 8; ++t) {
      const float* z = logits.data() + t * experts;
      double total = 0, selected = 0;
      std::vector<double> value(static_cast<std::size_t>(experts));
      for (std::int64_t e = 0; e < experts; ++e) {
        value[static_cast<std::size_t>(e)] =
            spec.scoring_func == ScoringFunc::softmax ? std::exp(double{z[e]}) : 1.0 / (1.0 + std::exp(-double{z[e]}));
        total += value[static_cast<std::size_t>(e)];
      }
      if (spec.scoring_func == ScoringFunc::softmax) {
        for (double& v : value) v /= total;
      }
      for (std::int64_t s = 0; s < k; ++s)
        selected += value[static_cast<std::size_t>(out.ids[static_cast<std::size_t>(t * k + s)])];
      double sum = 0;
      for (std::int64_t s = 0; s < k; ++s) {
        const auto slot = static_cast<std::size_t>(t * k + s);
        double expected = value[static_cast<std::size_t>(out.ids[slot])];
        if (spec.norm_topk_prob) expected /= selected;
        expected *= double{spec.routed_scaling_factor};
        EXPECT_NEAR(out.weights[slot], expected, 1e-6);
        sum += out.weights[slot];
      }
      if (spec.norm_topk_prob) {
        EXPECT_NEAR(sum, spec.routed_scaling_factor, 1e-5);
      }
    }
  }
}

TEST(Routers, TiesGoToTheLowerIndex) {
  for (const RouterSpec& spec : all_specs()) {
    if (spec.selection_bias) continue;
    const Routed out = run(spec, std::vector<float>(static_cast<std::size_t>(spec.num_experts), 0.25f), {});
    for (std::int32_t s = 0; s < spec.num_experts_per_tok; ++s) EXPECT_EQ(out.ids[static_cast<std::size_t>(s)], s);
  }
  RouterSpec grouped;
  grouped.scoring_func = ScoringFunc::sigmoid;
  grouped.num_experts = 8;
  grouped.num_experts_per_tok = 2;
  grouped.n_group = 4;
  grouped.topk_group = 2;
  EXPECT_EQ(run(grouped, {0, 0, 1, 1, 1, 1, 1, 1}, {}).ids, (std::vector<std::int32_t>{2, 3}));
}

TEST(Routers, RenamingExpertsRenamesTheChoice) {
  for (const RouterSpec& spec : all_specs()) {
    if (spec.n_group != 1) continue;
    const auto experts = static_cast<std::size_t>(spec.num_experts);
    const auto logits = normals(experts, 3);
    const auto bias = bias_for(spec);
    std::vector<std::size_t> to(experts);
    for (std::size_t e = 0; e < experts; ++e) to[e] = (e * 5 + 3) % experts;
    std::vector<float> moved(experts), moved_bias(bias.size());
    for (std::size_t e = 0; e < experts; ++e) moved[to[e]] = logits[e];
    for (std::size_t e = 0; e < bias.size(); ++e) moved_bias[to[e]] = bias[e];
    const Routed a = run(spec, logits, bias), b = run(spec, moved, moved_bias);
    for (std::size_t s = 0; s < a.ids.size(); ++s) {
      EXPECT_EQ(to[static_cast<std::size_t>(a.ids[s])], static_cast<std::size_t>(b.ids[s]));
      EXPECT_NEAR(a.weights[s], b.weights[s], 1e-6);
    }
  }
}

TEST(Routers, SameBitsOnEveryIsaAndAnySplit) {
  for (const RouterSpec& spec : all_specs()) {
    const auto logits = normals(static_cast<std::size_t>(32 * spec.num_experts), 4);
    const auto bias = bias_for(spec);
    const Routed all = run(spec, logits, bias);
    for (const Isa isa : available_isas()) {
      const Routed other = run(spec, logits, bias, isa);
      EXPECT_EQ(all.ids, other.ids) << isa_name(isa);
      EXPECT_EQ(all.weights, other.weights) << isa_name(isa);
    }
    const Routed last = run(spec, {logits.end() - static_cast<std::ptrdiff_t>(spec.num_experts), logits.end()}, bias);
    EXPECT_TRUE(std::equal(last.weights.begin(), last.weights.end(),
                           all.weights.end() - static_cast<std::ptrdiff_t>(last.weights.size())));
  }
}

TEST(Routers, BiasSteersSelectionOnly) {
  RouterSpec spec;
  spec.scoring_func = ScoringFunc::sigmoid;
  spec.num_experts = 4;
  spec.num_experts_per_tok = 1;
  spec.selection_bias = true;
  const Routed out = run(spec, {2, 1, 0, -1}, {0, 0, 0, 10});
  EXPECT_EQ(out.ids[0], 3);
  EXPECT_NEAR(out.weights[0], 1.0 / (1.0 + std::exp(1.0)), 1e-7);
}

TEST(Routers, ExcludedGroupsLoseEvenWhenAllScoresAreNegative) {
  RouterSpec spec;
  spec.scoring_func = ScoringFunc::sigmoid;
  spec.num_experts = 4;
  spec.num_experts_per_tok = 2;
  spec.n_group = 2;
  spec.topk_group = 1;
  spec.selection_bias = true;
  const Routed out = run(spec, {0, 0, 0, 0}, {-9, -9, -5, -6});
  EXPECT_EQ(out.ids, (std::vector<std::int32_t>{2, 3}));
  EXPECT_TRUE(std::isinf(out.scores[0]));
}

TEST(Routers, ValidityOfSpecs) {
  RouterSpec spec;
  spec.num_experts = 8;
  spec.num_experts_per_tok = 2;
  EXPECT_TRUE(is_valid(spec));
  RouterSpec bad = spec;
  bad.num_experts_per_tok = 9;
  EXPECT_FALSE(is_valid(bad));
  bad = spec;
  bad.num_experts = kMaxExperts + 1;
  EXPECT_FALSE(is_valid(bad));
  bad = spec;
  bad.selection_bias = true;
  EXPECT_FALSE(is_valid(bad)) << "a softmax router has no bias";
  bad = spec;
  bad.scoring_func = ScoringFunc::sigmoid;
  bad.n_group = 4;
  bad.topk_group = 1;
  EXPECT_TRUE(is_valid(bad));
  bad.num_experts_per_tok = 3;
  EXPECT_FALSE(is_valid(bad)) << "three experts do not fit a group of two";
}

}  // namespace
}  // namespace kedge
