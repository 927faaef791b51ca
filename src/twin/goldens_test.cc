// The twin against transformers (outputs: tests/goldens/hf, gradients: tests/goldens/twin) and against the engine.
#include <set>

#include <ATen/ops/cross_entropy_loss.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "model/random_source.h"
#include "model/testing.h"
#include "twin/model.h"
#include "twin/testing.h"

namespace kedge::twin {
namespace {

using namespace testing_model;
using namespace testing;

constexpr double kTolerance = 1e-4;
constexpr std::int64_t kBatch = 2, kTokens = 24;

LoadOptions engine_options() { return {detect_isa(), Numerics::consistent, Activations::fp32}; }

/// Rows of k ids, without their order.
std::vector<std::set<std::int32_t>> as_sets(const std::vector<std::int32_t>& ids, std::size_t k) {
  std::vector<std::set<std::int32_t>> out;
  for (std::size_t i = 0; i < ids.size(); i += k) {
    out.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(i), ids.begin() + static_cast<std::ptrdiff_t>(i + k));
  }
  return out;
}

Tensor next_token_loss(const Tensor& logits, const Tensor& ids) {
  const std::int64_t count = ids.size(1) - 1;
  return at::cross_entropy_loss(logits.narrow(1, 0, count).flatten(0, 1),
                                ids.narrow(1, 1, count).flatten().to(logits.device()));
}

/// Elements of it: DecoderModel::random's pool of values, which a RandomSource of the same seed then repeats.
std::int64_t largest_matrix(const ModelSpec& spec) {
  std::int64_t largest = 0;
  for (const ParameterInfo& info : list_parameters(spec)) largest = std::max(largest, num_elements(info.shape));
  return largest;
}

/// The engine's forward of the golden's two rows in one batch.
std::vector<float> run_engine(Runner& runner, std::span<const std::int32_t> ids, ForwardProbe* probe) {
  SequenceState a = runner.state(kTokens), b = runner.state(kTokens);
  const Segment segments[] = {{&a, ids.first(kTokens)}, {&b, ids.subspan(kTokens, kTokens)}};
  return runner.forward(segments, LogitRows::all, probe);
}

/// The twin's routing is the engine's: equal ids in equal order, values within the tolerance.
void expect_same_routing(const std::vector<Routing>& twin, Recorder& engine) {
  ASSERT_EQ(twin.size(), engine.ids.size());
  for (const Routing& routing : twin) {
    SCOPED_TRACE("layer " + std::to_string(routing.layer));
    EXPECT_EQ(to_integers(routing.expert_ids), engine.ids[routing.layer]);
    EXPECT_LE(max_abs_difference(to_floats(routing.logits), engine.router_logits[routing.layer]), kTolerance);
    EXPECT_LE(max_abs_difference(to_floats(routing.weights), engine.weights[routing.layer]), kTolerance);
    EXPECT_LE(max_abs_difference(to_floats(routing.input), engine.inputs[routing.layer]), kTolerance);
    const auto ours = to_floats(routing.ranked_scores()), theirs = engine.scores[routing.layer];
    ASSERT_EQ(ours.size(), theirs.size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
      EXPECT_TRUE(ours[i] == theirs[i] || std::fabs(ours[i] - theirs[i]) <= kTolerance) << i;  // -infinity is equal
    }
  }
}

class Goldens : public ::testing::TestWithParam<std::tuple<const char*, std::string>> {
 protected:
  Goldens()
      : family(std::get<0>(GetParam())),
        options(options_on(std::get<1>(GetParam()))),
        golden(golden_dir(family) / "golden.safetensors"),
        checkpoint(kedge::Checkpoint::open(golden_dir(family))),
        model(Model::load(checkpoint, options)),
        host_ids(integers(golden, "input_ids")),
        ids(from_ids(host_ids, {kBatch, kTokens})) {}

  std::string family;
  Options options;
  SafetensorsFile golden;
  Checkpoint checkpoint;
  Model model;
  std::vector<std::int32_t> host_ids;
  Tensor ids;
};

TEST_P(Goldens, LogitsAndRoutingAreTransformers) {
  const Output out = model.forward(ids);
  const double difference = max_abs_difference(to_floats(out.logits), floats(golden, "logits"));
  EXPECT_LE(difference, kTolerance);
  ASSERT_FALSE(out.routing.empty());
  for (const Routing& routing : out.routing) {
    const std::string suffix = "." + std::to_string(routing.layer);
    const auto k = static_cast<std::size_t>(routing.expert_ids.size(1));
    EXPECT_EQ(as_sets(to_integers(routing.expert_ids), k), as_sets(integers(golden, "topk_ids" + suffix), k));
    EXPECT_LE(max_abs_difference(to_floats(routing.logits), floats(golden, "router_logits" + suffix)), kTolerance);
  }
  std::printf("%s: logits within %.1e of transformers\n", family.c_str(), difference);
}

TEST_P(Goldens, LogitsAndRoutingAreTheEngines) {
  Runner runner(checkpoint, engine_options());
  Recorder recorder;
  const auto expected = run_engine(runner, host_ids, &recorder);
  const Output out = model.forward(ids);
  const double difference = max_abs_difference(to_floats(out.logits), expected);
  EXPECT_LE(difference, kTolerance);
  expect_same_routing(out.routing, recorder);
  std::printf("%s: logits within %.1e of the engine\n", family.c_str(), difference);
}

TEST_P(Goldens, GradientsAreTransformers) {
  const auto folder = source_dir() / "tests/goldens/twin";
  const SafetensorsFile expected(folder / (family + ".gradients.safetensors"));
  const Json facts = read_json(folder / (family + ".gradients.json"));
  model.parameters().require_gradients(true);
  const Tensor loss = next_token_loss(model.forward(ids).logits, ids);
  EXPECT_NEAR(loss.item<double>(), facts["loss"].get<double>(), 1e-5);
  loss.backward();

  // A parameter's norm, and where rows are stored, each of their values against the largest.
  double worst_norm = 0, worst_value = 0;
  std::size_t norms = 0, stored = 0;
  for (const auto& [name, parameter] : model.parameters()) {
    if (!parameter.requires_grad()) continue;
    SCOPED_TRACE(name);
    ASSERT_TRUE(facts["norms"].contains(name));
    const double norm = facts["norms"][name].get<double>();
    ++norms;
    // An expert without tokens has no gradient at all.
    const double ours = parameter.grad().defined() ? parameter.grad().to(at::kDouble).norm().item<double>() : 0.0;
    EXPECT_LE(std::fabs(ours - norm), kTolerance * norm);
    if (norm > 0) worst_norm = std::max(worst_norm, std::fabs(ours - norm) / norm);
    if (!expected.has(name)) continue;
    ++stored;
    const auto values = floats(expected, name);
    Tensor rows = parameter.grad();
    if (expected.has(name + ".rows")) {
      const auto which = integers(expected, name + ".rows");
      rows = rows.index_select(0, from_ids(which, {static_cast<std::int64_t>(which.size())}).to(rows.device()));
    } else if (rows.dim() == 2) {
      rows = rows.narrow(0, 0, static_cast<std::int64_t>(values.size()) / rows.size(1));
    }
    double largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(double{value}));
    ASSERT_GT(largest, 0);
    const double difference = max_abs_difference(to_floats(rows), values) / largest;
    EXPECT_LE(difference, kTolerance);
    worst_value = std::max(worst_value, difference);
  }
  EXPECT_EQ(norms, facts["norms"].size());
  std::size_t with_rows = 0;
  for (const TensorInfo& info : expected.header().tensors) with_rows += info.name.ends_with(".rows");
  EXPECT_EQ(with_rows, 1u);
  EXPECT_EQ(stored + with_rows, expected.header().tensors.size());
  std::printf("%s: %zu gradients, norms within %.1e, %zu compared by value, within %.1e (relative)\n", family.c_str(),
              norms, worst_norm, stored, worst_value);
}

TEST_P(Goldens, AQuantizedModelsTwinHasItsDequantizedWeights) {
  const ModelSpec spec = spec_for_groups(family);
  ThreadPool pool(2);
  Runner runner(DecoderModel::random(spec, "w4a16-g32-asym", 5, engine_options(), pool), 2);
  Recorder recorder;
  const auto expected = run_engine(runner, host_ids, &recorder);
  Model twin = Model::from_source(spec, RandomSource("w4a16-g32-asym", 5, largest_matrix(spec)), options);
  const Output out = twin.forward(ids);
  EXPECT_LE(max_abs_difference(to_floats(out.logits), expected), kTolerance);
  expect_same_routing(out.routing, recorder);
}

TEST_P(Goldens, ATiedHeadIsTheEmbedding) {
  ModelSpec spec = model.spec();
  spec.tie_word_embeddings = true;
  ThreadPool pool(2);
  Runner runner(DecoderModel::random(spec, "f32", 7, engine_options(), pool), 2);
  Recorder recorder;
  const auto expected = run_engine(runner, host_ids, &recorder);
  Model twin = Model::from_source(spec, RandomSource("f32", 7, largest_matrix(spec)), options);
  EXPECT_FALSE(twin.parameters().contains("lm_head.weight"));
  EXPECT_LE(max_abs_difference(to_floats(twin.forward(ids).logits), expected), kTolerance);
}

TEST_P(Goldens, HalfPrecisionStaysNear) {
  Options in_half = options;
  in_half.compute_dtype = at::kBFloat16;
  Model half = Model::load(checkpoint, in_half);
  const Output reference = model.forward(ids), out = half.forward(ids);
  EXPECT_EQ(out.logits.scalar_type(), at::kFloat);
  EXPECT_EQ(out.routing[0].logits.scalar_type(), at::kFloat);
  // Gaps between the logits of the random goldens are as small as bf16's steps: some tokens change experts.
  const double scale = reference.logits.abs().max().item<double>();
  const double rms = (out.logits - reference.logits).square().mean().sqrt().item<double>();
  EXPECT_LE(rms, 0.05 * scale);
  EXPECT_GT(rms, 0);
}

TEST_P(Goldens, PaddingChangesNothingOnEitherSide) {
  const Tensor alone = model.forward(ids.narrow(0, 0, 1).narrow(1, 0, 16)).logits;
  const Tensor padding = at::full({1, 8}, 3, ids.options()), row = ids.narrow(0, 0, 1).narrow(1, 0, 16);
  const Tensor on = at::ones({1, 16}, ids.options().dtype(at::kBool)), off = on.narrow(1, 0, 8).logical_not();
  const Tensor right = model.forward(at::cat({row, padding}, 1), at::cat({on, off}, 1)).logits.narrow(1, 0, 16);
  const Tensor left = model.forward(at::cat({padding, row}, 1), at::cat({off, on}, 1)).logits.narrow(1, 8, 16);
  EXPECT_LE(max_abs_difference(to_floats(right), to_floats(alone)), kTolerance);
  EXPECT_LE(max_abs_difference(to_floats(left), to_floats(alone)), kTolerance);
  const Tensor unmasked = model.forward(at::cat({padding, row}, 1)).logits.narrow(1, 8, 16);
  EXPECT_GT(max_abs_difference(to_floats(unmasked), to_floats(alone)), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Families, Goldens,
                         ::testing::Combine(::testing::Values("olmoe", "qwen3_moe", "mixtral", "deepseek_v3"),
                                            ::testing::ValuesIn(devices())),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param);
                         });

}  // namespace
}  // namespace kedge::twin
