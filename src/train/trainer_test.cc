// Loss curves against transformers and torch (tests/goldens/training, tools/make_training_goldens.py), which weights a
// step reaches and moves, and what happens when it goes wrong.
#include "train/trainer.h"

#include <cmath>
#include <limits>
#include <set>
#include <thread>

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kedge/error.h"
#include "model/testing.h"
#include "train/router_losses.h"
#include "train/schedule.h"
#include "twin/testing.h"

namespace kedge::training {
namespace {

using twin::testing::devices;
using twin::testing::options_on;
using twin::testing::to_floats;

struct Golden {
  /// One thread: small products gain nothing from more.
  explicit Golden(const std::string& name)
      : json(read_json(testing_model::source_dir() / "tests/goldens/training" / name)),
        directory(testing_model::golden_dir(json["family"])) {
    at::set_num_threads(1);
    const Json& s = json["settings"];
    settings = {.muon = s["optimizer"] == "muon",
                .optimizer = {s["weight_decay"], s["beta1"], s["beta2"], s["eps"], s["momentum"]},
                .clip = s["clip"],
                .balance_loss = s["balance_loss"],
                .z_loss = s["z_loss"],
                .bias_update_speed = s["bias_update_speed"]};
    schedule = {s["lr"], s["min_lr_ratio"], s["warmup_ratio"], s["steps"],
                parse_decay(s["schedule"].get<std::string>())};
    for (const Json& batch : json["batches"]) {
      std::vector<std::int32_t> ids;
      for (const Json& row : batch) ids.insert(ids.end(), row.begin(), row.end());
      batches.push_back(twin::testing::from_ids(
          ids, {static_cast<std::int64_t>(batch.size()), static_cast<std::int64_t>(batch[0].size())}));
    }
  }

  twin::Model model() const { return twin::Model::load(Checkpoint::open(directory)); }
  std::unique_ptr<Trainer> trainer(const twin::Options& options = {}, Communicator* ranks = nullptr) const {
    const twin::Model first = model();
    return std::make_unique<Trainer>(first.spec(), first.parameters(), settings, options, ranks);
  }

  Json json;
  std::filesystem::path directory;
  TrainerSettings settings;
  Schedule schedule;
  std::vector<at::Tensor> batches;
};

class Curves : public ::testing::TestWithParam<std::tuple<const char*, std::string>> {};

TEST_P(Curves, AreThoseOfTransformersAndTorch) {
  const auto [name, device] = GetParam();
  const Golden golden(name);
  const auto trainer = golden.trainer(options_on(device));
  double worst = 0, first = 0, last = 0;
  std::string differences;
  for (std::size_t t = 0; t < golden.json["losses"].size(); ++t) {
    const auto step = static_cast<std::int64_t>(t) + 1;
    const StepResult result = trainer->step(golden.batches[t % golden.batches.size()], golden.schedule.at(step), step);
    const double difference = std::fabs(result.loss - golden.json["losses"][t].get<double>());
    differences += fmt::format(" {:.0e}", difference);
    worst = std::max(worst, difference);
    if (t == 0) first = result.loss;
    last = result.loss;
  }
  EXPECT_LE(worst, 1e-3) << differences;
  EXPECT_LT(last, 0.8 * first);
  std::printf("%s: loss %.4f to %.4f, within %.1e\n", name, first, last, worst);
}

INSTANTIATE_TEST_SUITE_P(Goldens, Curves,
                         ::testing::Combine(::testing::Values("olmoe-adamw.json", "olmoe-muon.json",
                                                              "deepseek_v3-adamw.json", "qwen3_moe-adamw.json"),
                                            ::testing::ValuesIn(devices())),
                         [](const auto& info) {
                           std::string name = std::get<0>(info.param);
                           name = name.substr(0, name.find('.')) + "_" + std::get<1>(info.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

/// Experts whose rows of a stacked tensor are not all zero.
std::set<std::int64_t> living(const at::Tensor& stacked) {
  std::set<std::int64_t> out;
  for (std::int64_t e = 0; e < stacked.size(0); ++e) {
    if (stacked.select(0, e).abs().max().item<double>() > 0) out.insert(e);
  }
  return out;
}

TEST(Trainer, EveryWeightIsReachedAndMoved) {
  for (const char* name : {"olmoe-adamw.json", "olmoe-muon.json", "deepseek_v3-adamw.json"}) {
    SCOPED_TRACE(name);
    const Golden golden(name);
    const auto trainer = golden.trainer();
    std::vector<at::Tensor> before;
    for (const TrainedWeight& weight : trainer->weights().trained()) before.push_back(weight.value.detach().clone());
    // All batches at once, so that no expert is left out by chance.
    const StepResult result = trainer->step(at::cat(golden.batches, 0), 1e-3, 1);
    std::size_t experts = 0, i = 0;
    for (const TrainedWeight& weight : trainer->weights().trained()) {
      SCOPED_TRACE(weight.name);
      const at::Tensor change = weight.value.detach() - before[i++];
      if (weight.shape.size() == 3) {
        EXPECT_EQ(living(weight.value.grad()).size(), weight.members.size());
        EXPECT_EQ(living(change).size(), weight.members.size());
        experts += weight.members.size();
      } else {
        EXPECT_GT(weight.value.grad().abs().max().item<double>(), 0);
        EXPECT_GT(change.abs().max().item<double>(), 0);
      }
    }
    EXPECT_EQ(experts, result.load.size() * 8 * 3);
    for (const auto& counts : result.load) {
      for (const std::int64_t count : counts) EXPECT_GT(count, 0);
    }
  }
}

// Balance loss, selection bias, clipping and both optimizers, on the whole batch and shared by two ranks.
TEST(Trainer, TwoRanksEqualOneWithTheDoubledBatch) {
  for (const char* name : {"olmoe-adamw.json", "olmoe-muon.json", "deepseek_v3-adamw.json"}) {
    SCOPED_TRACE(name);
    const Golden golden(name);
    constexpr std::int64_t kSteps = 8;
    const auto ids = [&](std::int64_t step) {
      const std::size_t n = golden.batches.size(), first = static_cast<std::size_t>(2 * step) % n;
      return at::cat({golden.batches[first], golden.batches[(first + 1) % n]});
    };
    const auto one = golden.trainer();
    std::vector<StepResult> expected;
    for (std::int64_t t = 1; t <= kSteps; ++t) expected.push_back(one->step(ids(t), golden.schedule.at(t), t));

    auto ranks = thread_ranks(2);
    std::vector<std::unique_ptr<Trainer>> trainers(2);
    std::vector<std::vector<StepResult>> results(2);
    std::vector<std::thread> threads;
    for (std::size_t r = 0; r < 2; ++r) {
      trainers[r] = golden.trainer({}, ranks[r].get());
      threads.emplace_back([&, r] {
        for (std::int64_t t = 1; t <= kSteps; ++t) {
          const at::Tensor all = ids(t);
          const std::int64_t share = all.size(0) / 2;
          results[r].push_back(trainers[r]->step(all.narrow(0, static_cast<std::int64_t>(r) * share, share),
                                                 golden.schedule.at(t), t));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (std::size_t t = 0; t < kSteps; ++t) {
      for (std::size_t r = 0; r < 2; ++r) {
        EXPECT_NEAR(results[r][t].loss, expected[t].loss, 1e-5) << t;
        EXPECT_NEAR(results[r][t].gradient_norm, expected[t].gradient_norm, 1e-4 * expected[t].gradient_norm) << t;
        EXPECT_EQ(results[r][t].load, expected[t].load) << t;
      }
    }
    for (std::size_t w = 0; w < one->weights().trained().size(); ++w) {
      const at::Tensor& first = trainers[0]->weights().trained()[w].value;
      EXPECT_EQ(to_floats(first), to_floats(trainers[1]->weights().trained()[w].value)) << "the ranks drift apart";
    }
  }
}

TEST(Trainer, StartsAsTheModelItWasGiven) {
  const Golden golden("deepseek_v3-adamw.json");
  const auto trainer = golden.trainer();
  twin::Model model = golden.model();
  for (const auto& [name, value] : model.parameters()) {
    EXPECT_EQ(to_floats(trainer->weights().value(name)), to_floats(value)) << name;
  }
  Evaluation evaluation;
  trainer->evaluate(golden.batches[0], evaluation);
  EXPECT_NEAR(evaluation.nll / static_cast<double>(evaluation.tokens), golden.json["losses"][0].get<double>(), 1e-4);
}

TEST(Trainer, RepeatsToTheBit) {
  const Golden golden("olmoe-muon.json");
  for (const std::string& device : devices()) {
    SCOPED_TRACE(device);
    std::vector<double> losses[2];
    for (auto& run : losses) {
      const auto trainer = golden.trainer(options_on(device));
      for (std::int64_t t = 1; t <= 6; ++t) run.push_back(trainer->step(golden.batches[0], 1e-3, t).loss);
    }
    EXPECT_EQ(losses[0], losses[1]);
  }
}

TEST(Trainer, InBfloat16StaysCloseAndKeepsWeightsInFp32) {
  const Golden golden("olmoe-adamw.json");
  twin::Options options;
  options.compute_dtype = at::kBFloat16;
  const auto trainer = golden.trainer(options);
  double last = 0;
  for (std::size_t t = 0; t < 20; ++t) {
    const auto step = static_cast<std::int64_t>(t) + 1;
    last = trainer->step(golden.batches[t % golden.batches.size()], golden.schedule.at(step), step).loss;
  }
  EXPECT_NEAR(last, golden.json["losses"][19].get<double>(), 0.1);
  for (const TrainedWeight& weight : trainer->weights().trained()) EXPECT_EQ(weight.value.scalar_type(), at::kFloat);
}

TEST(Trainer, ALossThatIsNotFiniteStopsBeforeTheWeightsMoveAndNamesThePlace) {
  const Golden golden("olmoe-adamw.json");
  const auto trainer = golden.trainer();
  const std::string name = "model.layers.1.mlp.experts.up_proj.weight";
  {
    const at::NoGradGuard no_gradients;
    trainer->weights().parameters()[name].select(0, 2).fill_(std::numeric_limits<float>::quiet_NaN());
  }
  const std::string other = "model.layers.0.self_attn.q_proj.weight";
  const std::vector<float> before = to_floats(trainer->weights().value(other));
  try {
    trainer->step(golden.batches[0], 1e-3, 17);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("step 17"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
  }
  EXPECT_EQ(to_floats(trainer->weights().value(other)), before);
}

TEST(RouterLosses, AreOneAndKnownWhenAllExpertsAreUsedAlike) {
  const Golden golden("olmoe-adamw.json");
  const ModelSpec spec = golden.model().spec();
  twin::Routing routing;
  routing.layer = 0;
  routing.logits = at::full({8, 8}, 0.5, at::TensorOptions().dtype(at::kDouble));
  routing.expert_ids = at::arange(24, at::TensorOptions().dtype(at::kLong)).remainder(8).view({8, 3});
  const auto losses = router_losses(spec, {routing}, expert_counts(spec, {routing}));
  EXPECT_NEAR(losses.balance.item<double>(), 1.0, 1e-12);
  EXPECT_NEAR(losses.z.item<double>(), std::pow(0.5 + std::log(8.0), 2), 1e-12);
}

TEST(RouterLosses, TheBalanceLossPullsTokensFromTheBusyToTheIdle) {
  const Golden golden("olmoe-adamw.json");
  const ModelSpec spec = golden.model().spec();
  twin::Routing routing;
  routing.layer = 0;
  routing.logits = at::zeros({4, 8}, at::TensorOptions().dtype(at::kDouble)).set_requires_grad(true);
  routing.expert_ids = at::zeros({4, 3}, at::TensorOptions().dtype(at::kLong));
  routing.expert_ids.select(1, 1).fill_(1);
  routing.expert_ids.select(1, 2).fill_(2);
  router_losses(spec, {routing}, expert_counts(spec, {routing})).balance.backward();
  const std::vector<float> gradient = to_floats(routing.logits.grad());
  for (std::size_t e = 0; e < 8; ++e) EXPECT_EQ(gradient[e] > 0, e < 3) << e;
}

TEST(SelectionBias, RisesForTheIdleAndFallsForTheBusy) {
  const at::Tensor bias = at::zeros({4});
  const std::vector<float> counts = {10, 2, 4, 0};
  update_selection_bias(bias, twin::testing::from_floats(counts, {4}), 0.25);
  EXPECT_EQ(to_floats(bias), (std::vector<float>{-0.25f, 0.25f, 0.0f, 0.25f}));
}

}  // namespace
}  // namespace kedge::training
