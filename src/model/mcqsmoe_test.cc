// The family kedge_mcqsmoe: its keys, what they may not say, and the names of its weights.
#include <gtest/gtest.h>

#include "base/hash.h"
#include "base/json.h"
#include "kedge/error.h"
#include "model/testing.h"

namespace kedge {
namespace {

using namespace testing_model;

Json base_config() {
  return {{"model_type", "kedge_mcqsmoe"},
          {"vocab_size", 100},
          {"hidden_size", 64},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"max_position_embeddings", 64},
          {"num_experts", 6},
          {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 128},
          {"hidden_act", "gelu"},
          {"router_bottleneck", 16},
          {"expert_delta_bits", 4},
          {"expert_group_size", 32},
          {"tie_word_embeddings", true}};
}

ModelSpec spec_of(const Json& config) { return family_of(config, "config.json").spec(config, "config.json"); }

TEST(Mcqsmoe, KeysBecomeTheSpec) {
  Json config = base_config();
  config["router_error"] = "huber";
  config["router_error_normalization"] = "width";
  config["router_huber_delta"] = 0.5;
  config["router_temperature"] = 0.2;
  config["router_combine"] = "residual";
  config["router_hidden_act"] = "silu";
  config["router_tied"] = false;
  config["router_manifold"] = "stiefel-qr";
  config["expert_manifold"] = "none";
  config["expert_anchor_dtype"] = "int8";
  config["mlp_only_layers"] = {0};
  config["intermediate_size"] = 48;
  const ModelSpec spec = spec_of(config);
  EXPECT_EQ(spec.moe_layers(), std::vector<int>{1});
  EXPECT_TRUE(spec.routes_by_error());
  const auto& mlp = std::get<Mlp>(spec.blocks[1].mixer);
  EXPECT_EQ(mlp.intermediate_size, 48);
  EXPECT_FALSE(mlp.gated);
  const auto& moe = std::get<ReconstructionMoe>(spec.blocks[3].mixer);
  EXPECT_EQ(moe.router.measure, ErrorMeasure::huber);
  EXPECT_EQ(moe.router.normalization, ErrorNormalization::width);
  EXPECT_EQ(moe.router.huber_delta, 0.5f);
  EXPECT_EQ(moe.router.temperature, 0.2f);
  EXPECT_EQ(moe.router.combine, CombineMethod::residual);
  EXPECT_EQ(moe.router.activation, FfnActivation::silu);
  EXPECT_EQ(moe.router.bottleneck, 16);
  EXPECT_FALSE(moe.router.tied);
  EXPECT_TRUE(moe.router.orthonormal);
  EXPECT_EQ(moe.anchor_delta, (AnchorDeltaArgs{DType::i8, 4, 32, Manifold::none}));
  EXPECT_EQ(spec.router(1).num_experts_per_tok, 2);
  EXPECT_TRUE(spec.router(1).norm_topk_prob);
}

TEST(Mcqsmoe, DefaultsArePapersAndALearnedRouterHasItsOwn) {
  const ModelSpec usual = spec_of(base_config());
  const auto& moe = std::get<ReconstructionMoe>(usual.blocks[1].mixer);
  EXPECT_EQ(moe.router.temperature, 0.1f);
  EXPECT_EQ(moe.router.normalization, ErrorNormalization::input);
  EXPECT_FALSE(moe.gated);
  EXPECT_EQ(moe.anchor_delta, (AnchorDeltaArgs{DType::f16, 4, 32, Manifold::sphere}));
  Json config = base_config();
  config.erase("router_bottleneck");
  config["router_error"] = "linear";
  const ModelSpec learned_spec = spec_of(config);
  const auto& learned = std::get<ReconstructionMoe>(learned_spec.blocks[1].mixer);
  EXPECT_TRUE(learned.router.is_learned());
  EXPECT_EQ(learned.router.temperature, 1.0f);
  EXPECT_EQ(learned.router.bottleneck, 1);
}

TEST(Mcqsmoe, WhatCannotBeNamesTheKey) {
  const std::pair<Json, const char*> cases[] = {
      {{{"num_experts_per_tok", 7}}, "num_experts_per_tok"},
      {{{"router_bottleneck", 65}}, "router_bottleneck"},
      {{{"router_temperature", 0}}, "router_temperature"},
      {{{"router_temperature_trained", true}, {"router_combine", "uniform"}}, "router_temperature_trained"},
      {{{"router_error", "cubic"}}, "router_error"},
      {{{"router_error", "linear"}}, "router_bottleneck"},
      {{{"router_error", "cosine"}, {"router_error_normalization", "width"}}, "router_error_normalization"},
      {{{"router_combine", "sum"}}, "router_combine"},
      {{{"router_manifold", "sphere"}}, "router_manifold"},
      {{{"router_manifold", "torus"}}, "router_manifold"},
      {{{"router_hidden_act", "tanh"}}, "router_hidden_act"},
      {{{"expert_delta_bits", 3}}, "expert_delta_bits"},
      {{{"expert_group_size", 48}}, "groups of 48"},
      {{{"moe_intermediate_size", 72}}, "do not divide rows of 72"},
      {{{"expert_manifold", "stiefel-polar"}}, "up_proj"},
      {{{"expert_anchor_dtype", "int4"}}, "expert_anchor_dtype"},
      {{{"expert_output", "both"}}, "expert_output"},
      {{{"mlp_only_layers", {1}}}, "intermediate_size"},
  };
  for (const auto& [change, words] : cases) {
    SCOPED_TRACE(change.dump());
    Json config = base_config();
    config.update(change);
    try {
      spec_of(config);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_file);
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  }
}

TEST(Mcqsmoe, ItsLinearsAreEncodersAndUngatedExperts) {
  const ModelFamily& family = family_of(base_config(), "test");
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> shapes;
  for (const LinearRef& linear : list_linears(spec_of(base_config()), family)) {
    shapes[linear.module] = {linear.rows, linear.cols};
  }
  EXPECT_EQ(shapes.size(), 2u * (4 + 1 + 6 * 2));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.gate"), std::pair(std::int64_t{96}, std::int64_t{64}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.experts.5.down_proj"), std::pair(std::int64_t{64}, std::int64_t{128}));
  EXPECT_FALSE(shapes.contains("model.layers.1.mlp.experts.0.gate_proj"));
}

/// tools/mcqsmoe_reference.py: fp64, written from the formats, routing included.
TEST(Mcqsmoe, AWholeModelIsPyTorchsInDoublePrecision) {
  const std::filesystem::path folder = source_dir() / "tests/goldens/mcqsmoe/lm";
  const Json hashes = read_json(folder / "hashes.json");
  for (const auto& [name, hash] : hashes.items()) {
    EXPECT_EQ(sha256_file(folder / name), hash.get<std::string>()) << name;
  }
  const SafetensorsFile expected(folder / "golden.safetensors");
  Runner runner(Checkpoint::open(folder), {detect_isa(), Numerics::consistent, Activations::fp32});
  Recorder recorder;
  const std::vector<std::int32_t> tokens = integers(expected, "input_ids");
  const std::vector<float> logits = runner.sequence(tokens, &recorder);
  const double of_logits = max_abs_difference(logits, floats(expected, "logits"));
  EXPECT_LE(of_logits, 1e-4);
  double of_layers = 0, of_errors = 0;
  for (const int layer : {0, 2}) {
    const std::string l = std::to_string(layer);
    EXPECT_EQ(recorder.ids[layer], integers(expected, "topk_ids." + l));
    EXPECT_LE(max_abs_difference(recorder.weights[layer], floats(expected, "topk_weights." + l)), 1e-5);
    of_errors =
        std::max(of_errors, 0.1 * max_abs_difference(recorder.scores[layer], floats(expected, "router_logits." + l)));
  }
  for (const int layer : {0, 1, 2, 3}) {
    of_layers = std::max(of_layers, max_abs_difference(recorder.hidden[layer],
                                                       floats(expected, "hidden_states." + std::to_string(layer))));
  }
  EXPECT_LE(of_layers, 1e-4);
  EXPECT_LE(of_errors, 1e-5);
  std::printf("max_abs: logits %.1e, layers %.1e, errors %.1e\n", of_logits, of_layers, of_errors);
}

TEST(Mcqsmoe, ThreadsIsaAndChunksChangeNoBit) {
  const ModelSpec spec = spec_of(base_config());
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < 30; ++i) tokens.push_back((i * 17 + 5) % 100);
  std::vector<float> first;
  for (const Isa isa : available_isas()) {
    for (const int threads : {1, 2, 3}) {
      for (const std::size_t chunk : {0, 1, 7}) {
        ThreadPool pool(threads);
        Runner runner(DecoderModel::random(spec, "f32", 3, {isa, Numerics::consistent, Activations::fp32}, pool),
                      threads);
        const std::vector<float> logits = runner.sequence(tokens, nullptr, chunk);
        if (first.empty()) first = logits;
        EXPECT_EQ(logits, first) << isa_name(isa) << ", " << threads << " threads, chunks of " << chunk;
      }
    }
  }
}

/// What recipes/mcqsmoe/README.md says of the controls.
TEST(Mcqsmoe, RecipesAgreeInStoredOrActiveWeights) {
  const auto linears = [](const char* name) {
    const Json config = read_json(source_dir() / "recipes/mcqsmoe" / (std::string(name) + ".json"));
    const ModelSpec spec = spec_of(config);
    std::int64_t stored = 0, active = 0;
    for (const LinearRef& linear : list_linears(spec, family_of(config, name))) {
      const std::int64_t size = linear.rows * linear.cols;
      stored += size;
      if (linear.role != LinearRole::expert) {
        active += size;
      } else if (linear.expert == 0) {
        active += spec.router(linear.layer).num_experts_per_tok * size;
      }
    }
    return std::pair(stored, active);
  };
  const auto by_error = linears("by-error"), learned = linears("learned-router");
  EXPECT_EQ(linears("dense-stored").first, by_error.first);
  EXPECT_EQ(linears("dense-active").second, by_error.second);
  EXPECT_EQ(by_error.first - learned.first, 6 * (4 * 64 - 4) * 256);
  const auto large = linears("by-error-20m");
  EXPECT_GE(large.first, 19'000'000);
  EXPECT_LE(large.first, 21'000'000);
  EXPECT_LE(linears("learned-router-20m").first, large.first);
  linears("subspaces");
}

}  // namespace
}  // namespace kedge
