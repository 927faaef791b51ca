// Specialisation on a union of subspaces: the matching against known answers, training against chance.
#include "train/subspaces.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "io/test_files.h"
#include "train/record.h"

namespace kedge::training {
namespace {

TEST(Subspaces, MatchingIsTheBestOfAll) {
  EXPECT_EQ(best_matching({7}, 1), 7);
  EXPECT_EQ(best_matching({1, 5, 4, 2}, 2), 9);
  // Greedy would take 10 and then 0 and 1.
  EXPECT_EQ(best_matching({10, 9, 0, 9, 0, 0, 8, 7, 1}, 3), 9 + 9 + 1);
}

Json config() {
  return {{"model_type", "kedge_mcqsmoe"},
          {"vocab_size", 16},
          {"hidden_size", 24},
          {"num_hidden_layers", 1},
          {"num_attention_heads", 2},
          {"max_position_embeddings", 16},
          {"num_experts", 4},
          {"num_experts_per_tok", 1},
          {"expert_output", "reconstruction"},
          {"router_bottleneck", 4},
          {"router_manifold", "stiefel-polar"}};
}

TEST(Subspaces, ExpertsTakeToOneEach) {
  const TempFolder folder;
  folder.write("config.json", config().dump());
  TrainOptions options;
  options.config = folder / "config.json";
  options.out = folder / "out";
  options.steps = 300;
  options.batch_size = 64;
  options.lr = 0.01;
  options.reconstruction_loss = 1;
  const TrainReport report = train_subspaces(options, nullptr);
  const Json results = read_json(options.out / kRecordFile)["results"];
  EXPECT_EQ(results["after"]["specialisation"], report.specialisation);
  EXPECT_GT(report.specialisation, 0.9);
  EXPECT_LT(results["before"]["specialisation"], 0.7);
  EXPECT_LT(results["after"]["mean_error"], 0.1);
  EXPECT_LE(results["after"]["mutual_information"]["p"], 0.001);
  expect_error(ErrorCode::exists, "finished run", [&] { train_subspaces(options, nullptr); });
}

TEST(Subspaces, WantsAutoencoders) {
  const TempFolder folder;
  Json other = config();
  other["expert_output"] = "ffn";
  other["moe_intermediate_size"] = 8;
  folder.write("config.json", other.dump());
  TrainOptions options;
  options.config = folder / "config.json";
  options.out = folder / "out";
  expect_error(ErrorCode::usage, "autoencoders", [&] { train_subspaces(options, nullptr); });
}

}  // namespace
}  // namespace kedge::training
