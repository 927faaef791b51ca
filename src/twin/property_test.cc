// Two implementations of each mechanism must agree: random small specs, each field changed; engine and twin stay equal
// and both change.
#include <set>

#include <gtest/gtest.h>

#include "model/decoder.h"
#include "model/testing.h"
#include "twin/block.h"
#include "twin/testing.h"
#include "twin/testing_specs.h"

namespace kedge::twin {
namespace {

using namespace testing;
using testing_model::max_abs_difference;
using testing_model::Recorder;

constexpr std::int64_t kBatch = 2, kTokens = 13;
// Outputs are of order one. gelu and gelu_tanh differ least of all: by 2.4e-4 here.
constexpr double kEqual = 5e-5, kChanged = 2e-4;

struct Outcome {
  std::vector<float> h;
  std::vector<std::int32_t> ids;
  std::vector<float> weights, scores;
};

std::vector<float> hidden_states(std::int64_t size) {
  Rng rng(11);
  std::vector<float> h(static_cast<std::size_t>(kBatch * kTokens * size));
  for (float& value : h) value = static_cast<float>(rng.normal());
  return h;
}

Outcome run_engine(const ModelSpec& spec, const WeightSource& source) {
  const LoadOptions options{detect_isa(), Numerics::consistent, Activations::fp32};
  ThreadPool threads(1);
  Arena arena;
  Recorder recorder;
  const ExecContext ctx{threads, arena, &recorder};
  SequenceState a(spec, kTokens), b(spec, kTokens);
  const std::vector<std::int32_t> tokens(kTokens, 0);
  const Segment segments[] = {{&a, tokens}, {&b, tokens}};
  Outcome out;
  out.h = hidden_states(spec.hidden_size);
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    kedge::Block::build(source, spec, static_cast<int>(i), options, nullptr)->forward(ctx, out.h.data(), segments);
  }
  const int layer = spec.blocks[1].source_layer;
  out.ids = recorder.ids[layer];
  out.weights = recorder.weights[layer];
  out.scores = recorder.scores[layer];
  return out;
}

Outcome run_twin(const ModelSpec& spec, const WeightSource& source) {
  const int layer = spec.blocks[1].source_layer;
  const Parameters parameters = load_parameters(list_layer_parameters(spec, layer), source, {});
  Layer twin(spec, layer, {});
  std::vector<Routing> routing;
  const Tensor h = from_floats(hidden_states(spec.hidden_size), {kBatch, kTokens, spec.hidden_size});
  const Tensor y = twin.forward(h, [&](const std::string& name) { return parameters[name]; }, {{}, &routing});
  Outcome out;
  out.h = to_floats(y);
  if (!routing.empty()) {
    out.ids = to_integers(routing[0].expert_ids);
    out.weights = to_floats(routing[0].weights);
    out.scores = to_floats(routing[0].ranked_scores());
  }
  return out;
}

/// Relative above 1: an error that nothing normalizes is as large as its token's norm squared.
double score_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    most = std::max(most, std::fabs(double{a[i]} - double{b[i]}) / std::max(1.0, std::fabs(double{a[i]})));
  }
  return most;
}

/// Engine and twin agree; returns the twin's outcome.
Outcome expect_equal(const ModelSpec& spec, const WeightSource& source, double& worst) {
  const Outcome engine = run_engine(spec, source), twin = run_twin(spec, source);
  const double difference = max_abs_difference(engine.h, twin.h);
  EXPECT_LE(difference, kEqual);
  EXPECT_EQ(engine.ids, twin.ids);
  EXPECT_LE(max_abs_difference(engine.weights, twin.weights), kEqual);
  EXPECT_LE(score_difference(engine.scores, twin.scores), kEqual);
  worst = std::max(worst, difference);
  return twin;
}

TEST(Twin, StaysEqualToTheEngineThroughEveryFieldsChange) {
  std::set<std::string> applied;
  double worst = 0, least_change = INFINITY;
  int specs = 0;
  for (const std::uint64_t seed : {1, 2, 3}) {
    const FanInSource source(seed);
    for (const NamedSpec& base : base_specs(seed)) {
      SCOPED_TRACE(base.name + ", seed " + std::to_string(seed));
      const Outcome before = expect_equal(base.spec, source, worst);
      for (const Mutation& mutation : mutations()) {
        ModelSpec spec = base.spec;
        if (!mutation.apply(spec)) continue;
        SCOPED_TRACE(mutation.name);
        const Outcome after = expect_equal(spec, source, worst);
        ++specs;
        if (spec.hidden_size == base.spec.hidden_size) {
          // Other groups may let the same experts through: then the scores show it, as infinities.
          const double change =
              std::max(max_abs_difference(before.h, after.h), score_difference(before.scores, after.scores));
          EXPECT_GE(change, kChanged);
          least_change = std::min(least_change, change);
        }
        applied.insert(mutation.name);
      }
    }
  }
  for (const Mutation& mutation : mutations()) EXPECT_TRUE(applied.contains(mutation.name)) << mutation.name;
  std::printf("%d changed specs of %zu fields: within %.1e of the engine, changed by at least %.1e\n", specs,
              applied.size(), worst, least_change);
}

}  // namespace
}  // namespace kedge::twin
