#include "ptq/balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "base/rng.h"
#include "generate/session.h"
#include "kedge/error.h"
#include "routing/recording_probe.h"

namespace kedge {
namespace {

using Indices = std::vector<std::int64_t>;

ExpertCounts one_layer(std::int64_t experts, std::vector<std::int32_t> counts) {
  const auto sequences = static_cast<std::int64_t>(counts.size()) / experts;
  return {.layers = {0}, .sequences = sequences, .num_experts = experts, .counts = std::move(counts)};
}

Indices first(std::int64_t n) {
  Indices indices(static_cast<std::size_t>(n));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

// Expert popularities fall off as 1 / rank^2, and each sequence prefers some experts of its own (its topic).
ExpertCounts skewed(std::uint64_t seed, std::int64_t sequences, int layers, std::int64_t experts) {
  Rng rng(seed);
  ExpertCounts counts{.layers = {}, .sequences = sequences, .num_experts = experts, .counts = {}};
  for (int l = 0; l < layers; ++l) counts.layers.push_back(l);
  for (std::int64_t s = 0; s < sequences; ++s) {
    for (int l = 0; l < layers; ++l) {
      const auto topic = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(experts)));
      for (std::int64_t e = 0; e < experts; ++e) {
        const double popular = 200.0 / static_cast<double>((e + 1) * (e + 1));
        counts.counts.push_back(static_cast<std::int32_t>(rng.uniform() * popular) + (e == topic ? 20 : 0));
      }
    }
  }
  return counts;
}

// Fewest tokens among the experts that the pool has any token for.
std::int64_t least_of_seen(const ExpertCounts& counts, const Indices& chosen) {
  const auto pool = counts.total(first(counts.sequences)), total = counts.total(chosen);
  std::int64_t least = -1;
  for (std::size_t i = 0; i < pool.size(); ++i) {
    if (pool[i] > 0 && (least < 0 || total[i] < least)) least = total[i];
  }
  return least;
}

TEST(Balance, TakesTheSequencesOfDifferentExperts) {
  const ExpertCounts counts = one_layer(3, {8, 0, 0, 8, 0, 0, 0, 8, 0, 8, 0, 0, 0, 0, 8});
  EXPECT_EQ(choose_balanced(counts, 3), (Indices{0, 2, 4}));
  EXPECT_EQ(counts.total(Indices{0, 2, 4}), (Indices{8, 8, 8}));
}

TEST(Balance, LowerIndexOnTies) {
  EXPECT_EQ(choose_balanced(one_layer(2, {4, 4, 4, 4, 4, 4}), 3), (Indices{0, 1, 2}));
  EXPECT_EQ(choose_balanced(one_layer(2, {0, 4, 4, 0, 0, 4, 4, 0}), 4), (Indices{0, 1, 2, 3}));
}

TEST(Balance, SpreadBeatsPile) {
  // tau = 1: F({0}) = 1/9 + 1/1, F({1}) = 1/5 + 1/5.
  EXPECT_EQ(choose_balanced(one_layer(2, {8, 0, 4, 4}), 1), (Indices{1}));
}

TEST(Balance, LayersCountAlike) {
  const ExpertCounts counts{
      .layers = {1, 3}, .sequences = 3, .num_experts = 2, .counts = {6, 0, 6, 0, /**/ 6, 0, 6, 0, /**/ 6, 0, 0, 6}};
  EXPECT_EQ(choose_balanced(counts, 2), (Indices{0, 2}));
}

TEST(Balance, AllWhenThereAreNoMore) {
  EXPECT_EQ(choose_balanced(one_layer(1, {1, 2}), 5).size(), 2u);
  EXPECT_THROW(choose_balanced(one_layer(1, {1, 2}), 0), Error);
}

// The best of all pairs and triples bounds what greedy must reach: 1 - 1/e of its decrease of F.
TEST(Balance, GreedyIsNearTheBestChoice) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const ExpertCounts counts = skewed(seed, 14, 2, 8);
    double tau = 0;
    for (const std::int32_t c : counts.counts) tau += c;
    tau = std::max(1.0, tau / static_cast<double>(counts.counts.size()) / 10);
    const auto objective = [&](const Indices& chosen) {
      double f = 0;
      for (const std::int64_t c : counts.total(chosen)) f += 1 / (tau + static_cast<double>(c));
      return f;
    };
    double best = objective({});
    const double empty = best;
    for (std::int64_t a = 0; a < 14; ++a) {
      for (std::int64_t b = a + 1; b < 14; ++b) {
        for (std::int64_t c = b + 1; c < 14; ++c) best = std::min(best, objective({a, b, c}));
      }
    }
    EXPECT_GE(empty - objective(choose_balanced(counts, 3)), (1 - 1 / 2.718281828) * (empty - best));
    EXPECT_LE(objective(choose_balanced(counts, 3)), objective(first(3)));
  }
}

TEST(Balance, LiftsTheLeastExpertOfSkewedCounts) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const ExpertCounts counts = skewed(seed, 256, 4, 32);
    const Indices chosen = choose_balanced(counts, 32), plain = first(32);
    EXPECT_GT(least_of_seen(counts, chosen), least_of_seen(counts, plain) + 5) << seed;
    EXPECT_GT(expert_balance(counts, chosen).entropy, expert_balance(counts, plain).entropy) << seed;
    EXPECT_LE(expert_balance(counts, chosen).unseen, 1) << seed;
    EXPECT_GT(expert_balance(counts, plain).unseen, 10) << seed;
  }
}

TEST(Balance, KnownBalance) {
  const ExpertCounts counts = one_layer(4, {5, 5, 5, 5, 1, 0, 0, 0, 2, 2, 0, 0});
  EXPECT_DOUBLE_EQ(expert_balance(counts, Indices{0}).entropy, 1);
  EXPECT_DOUBLE_EQ(expert_balance(counts, Indices{1}).entropy, 0);
  EXPECT_DOUBLE_EQ(expert_balance(counts, Indices{2}).entropy, 0.5);
  EXPECT_EQ(expert_balance(counts, Indices{1, 2}).least, 0);
  EXPECT_EQ(expert_balance(counts, Indices{1, 2}).unseen, 2);
}

class BalanceOfModel : public testing::Test {
 protected:
  BalanceOfModel()
      : folder_(std::filesystem::path(KEDGE_SOURCE_DIR) / "models/demo-4m"),
        loaded_(load_model(folder_, make_load_options({}), threads_)) {}

  CalibrationData data(std::int64_t nsamples, std::int64_t seqlen) const {
    const ModelSpec& spec = loaded_.model.spec();
    return read_calibration({.nsamples = nsamples, .seqlen = seqlen}, Tokenizer::open(folder_),
                            {spec.max_position_embeddings, spec.vocab_size});
  }

  std::filesystem::path folder_;
  ThreadPool threads_{2};
  LoadedModel loaded_;
};

// Against the routing trace, whose ids are checked with transformers elsewhere; 60 tokens: several sequences a pass,
// the last pass not full.
TEST_F(BalanceOfModel, CountsWhatTheTraceHas) {
  const CalibrationData texts = data(37, 60);
  const DecoderModel& model = loaded_.model;
  const ExpertCounts counts = count_experts(model, threads_, texts);
  ASSERT_EQ(counts.layers, model.spec().moe_layers());
  std::vector<std::pair<int, RouterSpec>> routers;
  for (const int layer : counts.layers) routers.emplace_back(layer, model.spec().moe(layer).router);
  SequenceState state(model.spec(), 60);
  Arena scratch;
  for (const std::size_t s : {0u, 20u, 36u}) {
    RecordingProbe probe(routers, 60);
    probe.set_rows(0, 60);
    state.truncate(0);
    const Segment segment{&state, texts.sequences[s]};
    model.forward({threads_, scratch, &probe}, {&segment, 1}, LogitRows::none, nullptr);
    std::vector<std::int32_t> expected(static_cast<std::size_t>(counts.cells()), 0);
    for (std::size_t l = 0; l < routers.size(); ++l) {
      for (const std::int32_t e : probe.trace().layers[l].expert_ids) {
        ++expected[l * static_cast<std::size_t>(counts.num_experts) + static_cast<std::size_t>(e)];
      }
    }
    const auto row = counts.of(static_cast<std::int64_t>(s));
    EXPECT_EQ(std::vector<std::int32_t>(row.begin(), row.end()), expected);
  }
}

TEST_F(BalanceOfModel, BalancesTheBundledTextForTheDemoModel) {
  const ExpertCounts counts = count_experts(loaded_.model, threads_, data(128, 64));
  const Indices chosen = choose_balanced(counts, 16);
  EXPECT_GT(least_of_seen(counts, chosen), least_of_seen(counts, first(16)));
  EXPECT_GT(expert_balance(counts, chosen).entropy, expert_balance(counts, first(16)).entropy);
}

}  // namespace
}  // namespace kedge
