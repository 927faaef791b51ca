#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/rng.h"
#include "io/safetensors.h"
#include "kedge/error.h"
#include "routing/comparison.h"
#include "routing/recording_probe.h"

namespace kedge {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

RouterSpec router(std::int64_t experts, std::int64_t k) {
  RouterSpec spec;
  spec.num_experts = experts;
  spec.num_experts_per_tok = k;
  return spec;
}

LayerTrace layer_of(int layer, std::int64_t experts, std::int64_t k, std::vector<std::int32_t> ids,
                    std::vector<float> weights, std::vector<float> scores) {
  return {layer, router(experts, k), std::move(ids), std::move(weights), scores, scores, {}, {}};
}

double value(const char* metric, const TokenDiff& diff) {
  const RoutingMetric& m = routing_metrics()[routing_metric_index(metric)];
  return m.numerator(diff) / m.denominator(diff);
}

// S = {2, 0}, S^ = {0, 3}; one expert of two in common.
TEST(Diff, HandComputedSwap) {
  const LayerTrace a = layer_of(0, 4, 2, {2, 0}, {3, 1}, {0.5f, -1, 2, 0.25f});
  const LayerTrace b = layer_of(0, 4, 2, {0, 3}, {0.5f, 0.5f}, {2, -1, 0, 1});
  const TokenDiff diff = diff_layer(a, b).tokens.at(0);
  EXPECT_DOUBLE_EQ(value("jaccard", diff), 1.0 / 3);
  EXPECT_EQ(value("exact_set", diff), 0);
  EXPECT_EQ(value("any_changed", diff), 1);
  EXPECT_EQ(value("selections_changed", diff), 0.5);
  EXPECT_EQ(value("top1", diff), 0);
  EXPECT_EQ(diff.pairs, 0);
  EXPECT_DOUBLE_EQ(value("weighted_agreement", diff), 0.25);  // expert 0: min(1/4, 1/2)
  EXPECT_DOUBLE_EQ(value("margin", diff), 0.25);
  EXPECT_DOUBLE_EQ(value("margin_at_flip", diff), 0.25);
}

TEST(Diff, SameSetInAnotherOrder) {
  const LayerTrace a = layer_of(0, 5, 3, {4, 1, 0}, {0.5f, 0.25f, 0.25f}, {3, 4, 0, 1, 5});
  const LayerTrace b = layer_of(0, 5, 3, {0, 4, 1}, {0.5f, 0.25f, 0.25f}, {6, 4, 0, 1, 5});
  const TokenDiff diff = diff_layer(a, b).tokens.at(0);
  EXPECT_EQ(value("exact_set", diff), 1);
  EXPECT_EQ(value("jaccard", diff), 1);
  EXPECT_EQ(value("top1", diff), 0);
  EXPECT_DOUBLE_EQ(value("order_inversions", diff), 2.0 / 3);  // (4,0) and (1,0) of three pairs
  EXPECT_DOUBLE_EQ(value("weighted_agreement", diff), 0.75);
  EXPECT_EQ(value("margin", diff), 2);
  EXPECT_TRUE(std::isnan(value("margin_at_flip", diff)));
}

// Masked groups are -infinity: the margin is within the groups that survive, or there is none.
TEST(Diff, MarginWithinSurvivingGroups) {
  LayerTrace a = layer_of(0, 4, 2, {1, 0}, {1, 1}, {0.5f, 0.75f, -inf, -inf});
  EXPECT_TRUE(std::isnan(diff_layer(a, a).tokens[0].margin));
  a.scores = {0.5f, 0.75f, 0.125f, -inf};
  EXPECT_EQ(diff_layer(a, a).tokens[0].margin, 0.375);
  const LayerTrace all = layer_of(0, 2, 2, {1, 0}, {1, 1}, {1, 2});
  EXPECT_TRUE(std::isnan(diff_layer(all, all).tokens[0].margin));
}

TEST(Diff, RefusesRoutersThatDiffer) {
  const LayerTrace a = layer_of(3, 4, 2, {0, 1}, {1, 1}, {4, 3, 2, 1});
  LayerTrace b = a;
  b.router.num_experts = 5;
  b.scores.push_back(0);
  try {
    diff_layer(a, b);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_NE(std::string(error.what()).find("number of experts of layer 3: 4 and 5"), std::string::npos)
        << error.what();
  }
  b = a;
  b.layer = 4;
  EXPECT_THROW(diff_layer(a, b), Error);
  b = layer_of(3, 4, 2, {0, 1, 0, 1}, {1, 1, 1, 1}, {4, 3, 2, 1, 4, 3, 2, 1});
  EXPECT_THROW(diff_layer(a, b), Error);
}

LayerTrace random_layer(Rng& rng, int layer, std::int64_t tokens, std::int64_t experts, std::int64_t k,
                        const LayerTrace* near = nullptr, double noise = 0) {
  LayerTrace trace{layer, router(experts, k), {}, {}, {}, {}, {}, {}};
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::vector<float> row;
    for (std::int64_t e = 0; e < experts; ++e) {
      row.push_back(near ? near->scores[static_cast<std::size_t>(t * experts + e)] +
                               static_cast<float>(noise * rng.normal())
                         : static_cast<float>(rng.normal()));
    }
    std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int i, int j) { return row[static_cast<std::size_t>(i)] > row[static_cast<std::size_t>(j)]; });
    for (std::int64_t i = 0; i < k; ++i) {
      trace.expert_ids.push_back(order[static_cast<std::size_t>(i)]);
      trace.weights.push_back(std::exp(row[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]));
    }
    trace.scores.insert(trace.scores.end(), row.begin(), row.end());
  }
  trace.logits = trace.scores;
  return trace;
}

TEST(Diff, Properties) {
  Rng rng(1);
  for (int round = 0; round < 200; ++round) {
    const std::int64_t experts = 2 + static_cast<std::int64_t>(rng.below(12)),
                       k = 1 + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(experts)));
    const LayerTrace a = random_layer(rng, 0, 8, experts, k), b = random_layer(rng, 0, 8, experts, k, &a, 0.5);
    const RoutingDiff ab = diff_layer(a, b), ba = diff_layer(b, a), aa = diff_layer(a, a);
    for (std::size_t t = 0; t < 8; ++t) {
      const TokenDiff &d = ab.tokens[t], &r = ba.tokens[t], &same = aa.tokens[t];
      EXPECT_EQ(d.jaccard, r.jaccard);
      EXPECT_EQ(d.common, r.common);
      EXPECT_EQ(d.inversions, r.inversions);
      EXPECT_NEAR(d.weighted_agreement, r.weighted_agreement, 1e-12);
      EXPECT_GE(d.common, std::max<std::int64_t>(0, 2 * k - experts));
      EXPECT_LE(d.inversions, d.pairs);
      EXPECT_EQ(d.pairs, d.common * (d.common - 1) / 2);
      EXPECT_TRUE(d.weighted_agreement >= 0 && d.weighted_agreement <= 1 + 1e-12);
      EXPECT_EQ(d.exact_set(), d.jaccard == 1);
      EXPECT_TRUE(std::isnan(d.margin) ? k == experts : d.margin >= 0);
      EXPECT_EQ(same.jaccard, 1);
      EXPECT_EQ(same.weighted_agreement, 1);
      EXPECT_EQ(same.inversions, 0);
      EXPECT_TRUE(same.top1);
    }
  }
}

RoutingComparison compare_random(std::uint64_t seed, double noise, int sequences = 6) {
  Rng rng(seed);
  RoutingComparison comparison({{1, router(8, 2)}, {2, router(8, 2)}});
  for (int s = 0; s < sequences; ++s) {
    std::vector<LayerTrace> a, b;
    for (int l = 1; l <= 2; ++l) {
      a.push_back(random_layer(rng, l, 20 + s, 8, 2));
      b.push_back(random_layer(rng, l, 20 + s, 8, 2, &a.back(), noise));
    }
    comparison.add_sequence(a, b);
  }
  return comparison;
}

TEST(Comparison, AModelAgainstItself) {
  const RoutingComparison c = compare_random(2, 0);
  EXPECT_EQ(c.mean_metric(routing_metric_index("jaccard")).mean, 1);
  EXPECT_EQ(c.mean_metric(routing_metric_index("jaccard")).low, 1);
  EXPECT_EQ(c.mean_metric(routing_metric_index("order_inversions")).mean, 0);
  EXPECT_EQ(c.mean_metric(routing_metric_index("margin_at_flip")).n, 0);
  EXPECT_TRUE(std::isnan(c.mean_metric(routing_metric_index("margin_at_flip")).mean));
  EXPECT_EQ(c.mean_load(0).mean, 0);
  EXPECT_EQ(c.mean_load(0).high, 0);
  EXPECT_EQ(c.first_flip().back().mean, 1);
  for (const MarginBin& bin : c.flips_by_margin()) EXPECT_EQ(bin.flips, 0);
}

TEST(Comparison, SumsFitTogether) {
  const RoutingComparison c = compare_random(3, 0.5);
  EXPECT_EQ(c.tokens(), 20 + 21 + 22 + 23 + 24 + 25);
  const std::size_t jaccard = routing_metric_index("jaccard"), changed = routing_metric_index("any_changed");
  const Interval mean = c.mean_metric(jaccard);
  EXPECT_NEAR(mean.mean, (c.layer_metric(0, jaccard).mean + c.layer_metric(1, jaccard).mean) / 2, 1e-12);
  EXPECT_LT(mean.low, mean.mean);
  EXPECT_GT(mean.standard_error, 0);
  EXPECT_EQ(mean.n, 6);
  std::int64_t tokens = 0, flips = 0;
  for (const MarginBin& bin : c.flips_by_margin()) {
    tokens += bin.tokens, flips += bin.flips;
    EXPECT_LT(bin.low, bin.high);
  }
  EXPECT_EQ(tokens, 2 * c.tokens());
  EXPECT_NEAR(static_cast<double>(flips) / static_cast<double>(tokens), c.mean_metric(changed).mean, 1e-12);
  double shares = 0;
  for (const Interval& share : c.first_flip()) shares += share.mean;
  EXPECT_NEAR(shares, 1, 1e-12);
  EXPECT_NEAR(c.first_flip()[0].mean, c.layer_metric(0, changed).mean, 1e-12);
  const auto load = c.tokens_per_expert(1, true);
  EXPECT_EQ(std::accumulate(load.begin(), load.end(), std::int64_t{0}), 2 * c.tokens());
  EXPECT_GT(c.layer_load(0, 0).mean, 0);
  EXPECT_GT(c.layer_load(0, 0).standard_error, 0);
  std::vector<bool> first_half{true, true, true, false, false, false};
  EXPECT_EQ(c.mean_metric(jaccard, first_half).n, 3);
  // A flip needs a margin that the noise can cross: flips sit at smaller margins.
  EXPECT_LT(c.mean_metric(routing_metric_index("margin_at_flip")).mean,
            c.mean_metric(routing_metric_index("margin")).mean);
}

TEST(Comparison, OneSequenceHasNoInterval) {
  const RoutingComparison c = compare_random(4, 0.5, 1);
  const Interval load = c.mean_load(0);
  EXPECT_TRUE(std::isnan(load.standard_error));
  EXPECT_EQ(load.low, load.mean);
}

RoutingTrace sample_trace() {
  Rng rng(5);
  RoutingTrace trace;
  for (int t = 0; t < 10; ++t) {
    trace.token_ids.push_back(t * 7);
    trace.positions.push_back(t % 5);
    trace.phase.push_back(t % 5 < 3 ? Phase::prefill : Phase::decode);
  }
  trace.sequence_offsets = {0, 5, 10};
  trace.layers.push_back(random_layer(rng, 2, 10, 8, 2));
  trace.layers.push_back(random_layer(rng, 11, 10, 8, 2));
  trace.layers[0].errors.assign(10 * 8, 0.25f);
  trace.layers[0].errors[3] = 0.5f;
  trace.layers[0].residual_norms.assign(10, 2.0f);
  trace.layers[1].router.scoring_func = ScoringFunc::sigmoid;
  trace.layers[1].router.n_group = 2;
  for (float& score : trace.layers[1].scores) score = score < -1 ? -inf : score + 1;
  Tensor logits(DType::f32, {2, 5, 3});
  for (int i = 0; i < 30; ++i) logits.data<float>()[i] = static_cast<float>(i);
  trace.extra.emplace("logits", std::move(logits));
  return trace;
}

class TraceFile : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / ("kedge-trace-" + std::to_string(::getpid()) + ".safetensors");
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::filesystem::path path_;
};

TEST_F(TraceFile, RoundTrip) {
  const RoutingTrace trace = sample_trace();
  save_trace(trace, path_, {{"model", "m"}});
  const RoutingTrace read = load_trace(path_);
  EXPECT_EQ(read.token_ids, trace.token_ids);
  EXPECT_EQ(read.sequence_offsets, trace.sequence_offsets);
  EXPECT_EQ(read.positions, trace.positions);
  EXPECT_EQ(read.phase, trace.phase);
  ASSERT_EQ(read.layers.size(), 2u);
  for (std::size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(read.layers[l].layer, trace.layers[l].layer);
    EXPECT_EQ(read.layers[l].router, trace.layers[l].router);
    EXPECT_EQ(read.layers[l].expert_ids, trace.layers[l].expert_ids);
    EXPECT_EQ(read.layers[l].weights, trace.layers[l].weights);
    EXPECT_EQ(read.layers[l].logits, trace.layers[l].logits);
    EXPECT_EQ(read.layers[l].scores, trace.layers[l].scores);
    EXPECT_EQ(read.layers[l].errors, trace.layers[l].errors);
    EXPECT_EQ(read.layers[l].residual_norms, trace.layers[l].residual_norms);
  }
  EXPECT_EQ(read.extra.at("logits").shape(), (Shape{2, 5, 3}));
  EXPECT_EQ(read.extra.at("logits").data<float>()[29], 29);
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.tensor("input_ids").shape, (Shape{2, 5}));
  EXPECT_FALSE(file.has("selection_scores.2"));
  EXPECT_EQ(file.tensor("all_errors.2").shape, (Shape{10, 8}));
  EXPECT_FALSE(file.has("all_errors.11"));
  EXPECT_EQ(file.header().metadata.at("model"), "m");
}

TEST_F(TraceFile, UnequalSequencesAreFlat) {
  RoutingTrace trace = sample_trace();
  trace.sequence_offsets = {0, 4, 10};
  save_trace(trace, path_, {});
  EXPECT_EQ(SafetensorsFile(path_).tensor("input_ids").shape, (Shape{10}));
  EXPECT_EQ(load_trace(path_).sequence_offsets, trace.sequence_offsets);
}

TEST_F(TraceFile, RefusesWhatIsNotATrace) {
  const auto error_of = [&] {
    try {
      load_trace(path_);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  std::map<std::string, Tensor> tensors;
  tensors.emplace("x", Tensor(DType::f32, {1}));
  tensors.at("x").data<float>()[0] = 0;
  write_safetensors(path_, tensors);
  EXPECT_NE(error_of().find("routers"), std::string::npos) << error_of();
  RoutingTrace trace = sample_trace();
  trace.layers[0].expert_ids[4] = 8;
  save_trace(trace, path_, {});
  EXPECT_NE(error_of().find("topk_ids.2 holds 8"), std::string::npos) << error_of();
  trace.layers[0].expert_ids[4] = trace.layers[0].expert_ids[5];
  save_trace(trace, path_, {});
  EXPECT_NE(error_of().find("names an expert twice in row 2"), std::string::npos) << error_of();
}

// Tokens of two sequences, computed one step at a time, land in batch-major order.
TEST(RecordingProbe, ScattersRows) {
  const std::vector<std::pair<int, RouterSpec>> routers{{1, router(3, 1)}};
  RecordingProbe probe(routers, 4, {.logits = true, .vocab_size = 2});
  EXPECT_TRUE(probe.wants(Site::routing));
  EXPECT_FALSE(probe.wants(Site::hidden_state));
  for (std::int64_t step = 0; step < 2; ++step) {
    const float base = static_cast<float>(step);
    const std::vector<std::int32_t> ids{0, 2};
    const std::vector<float> weights{base, base + 10}, logits{base, 0, 0, 0, 0, base + 10}, head{base, 0, base + 10, 0};
    probe.set_rows({step, 2 + step});
    probe.routing(1, {2, 3, 1, ids, weights, logits, logits, {}, {}});
    probe.logits(2, 2, head.data());
  }
  const LayerTrace& layer = probe.trace().layers.at(0);
  EXPECT_EQ(layer.expert_ids, (std::vector<std::int32_t>{0, 0, 2, 2}));
  EXPECT_EQ(layer.weights, (std::vector<float>{0, 1, 10, 11}));
  EXPECT_EQ(layer.logits[11], 11);
  EXPECT_EQ(probe.trace().extra.at("logits").data<float>()[6], 11);
}

}  // namespace
}  // namespace kedge
