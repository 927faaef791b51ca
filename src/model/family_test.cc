// Names, config files, expert layouts.
#include "model/family.h"

#include <fstream>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "base/json.h"
#include "kedge/error.h"
#include "model/testing.h"

namespace kedge {
namespace {

using namespace testing_model;

const ModelFamily& family(const char* name) { return family_of(Json{{"model_type", name}}, "test"); }

Json golden_config(const std::string& name) { return read_json(golden_dir(name) / "config.json"); }

ModelSpec spec_of(const Json& config) { return family_of(config, "config.json").spec(config, "config.json"); }

/// The error of a config, or an empty string.
std::string failure(const Json& config, ErrorCode expected = ErrorCode::bad_file) {
  try {
    spec_of(config);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), expected) << error.what();
    return error.what();
  }
  return {};
}

/// A folder that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "kedge-model-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

std::map<std::string, Tensor> all_tensors(const Checkpoint& checkpoint) {
  std::map<std::string, Tensor> out;
  for (const TensorInfo& info : checkpoint.tensors()) {
    const TensorView view = checkpoint.tensor(info.name);
    Tensor tensor(view.dtype, view.shape);
    std::memcpy(tensor.data<std::byte>(), view.data, view.num_bytes());
    out.emplace(info.name, std::move(tensor));
  }
  return out;
}

void write_model(const std::filesystem::path& folder, const Json& config,
                 const std::map<std::string, Tensor>& tensors) {
  std::ofstream(folder / "config.json") << config.dump();
  write_safetensors(folder / "model.safetensors", tensors);
}

TEST(Names, MixtralBothWays) {
  const ModelFamily& mixtral = family("mixtral");
  const std::pair<const char*, const char*> names[] = {
      {"model.layers.0.mlp.experts.13.gate_proj.weight", "model.layers.0.block_sparse_moe.experts.13.w1.weight"},
      {"model.layers.31.mlp.experts.0.up_proj", "model.layers.31.block_sparse_moe.experts.0.w3"},
      {"model.layers.3.mlp.experts.7.down_proj.weight_packed",
       "model.layers.3.block_sparse_moe.experts.7.w2.weight_packed"},
      {"model.layers.0.mlp.gate.weight", "model.layers.0.block_sparse_moe.gate.weight"},
      {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.weight"},
      {"model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.gate_proj.weight"},
      {"lm_head.weight", "lm_head.weight"},
  };
  for (const auto& [canonical, file] : names) {
    EXPECT_EQ(to_file_name(mixtral, canonical), file);
    EXPECT_EQ(to_canonical_name(mixtral, file), canonical);
  }
}

TEST(Names, ListedLinearsAreThoseOfTheFile) {
  for (const char* name : {"olmoe", "qwen3_moe", "mixtral", "deepseek_v3"}) {
    const Checkpoint checkpoint = Checkpoint::open(golden_dir(name));
    const ModelSpec spec = model_spec(checkpoint);
    std::size_t matrices = 0;
    for (const TensorInfo& info : checkpoint.tensors()) {
      matrices += info.shape.size() == 2 && info.name != "model.embed_tokens.weight" ? 1u : 0u;
    }
    const auto linears = list_linears(spec, family(name));
    EXPECT_EQ(linears.size(), matrices) << name;
    for (const LinearRef& linear : linears) {
      EXPECT_EQ(checkpoint.tensor(linear.module + ".weight").shape, (Shape{linear.rows, linear.cols})) << linear.module;
      EXPECT_EQ(to_canonical_name(family(name), linear.module), linear.canonical);
      EXPECT_EQ(std::get<TensorView>(load_linear(checkpoint, linear)).data,
                checkpoint.tensor(linear.module + ".weight").data);
    }
    EXPECT_EQ(linears.back().role, LinearRole::lm_head);
  }
  const Checkpoint tied = Checkpoint::open(source_dir() / "models/demo-4m");
  for (const LinearRef& linear : list_linears(model_spec(tied), family("qwen3_moe")))
    EXPECT_NE(linear.role, LinearRole::lm_head);
}

TEST(Config, SpecsOfTheGoldens) {
  const ModelSpec olmoe = spec_of(golden_config("olmoe"));
  const auto& attention = std::get<Attention>(olmoe.blocks[0].mixer);
  EXPECT_EQ(attention.head_dim, 16);
  EXPECT_EQ(attention.qk_norm, QkNorm::full);
  EXPECT_FALSE(olmoe.moe(0).router.norm_topk_prob);
  EXPECT_EQ(olmoe.moe(2).router.num_experts_per_tok, 3);

  const ModelSpec qwen = spec_of(golden_config("qwen3_moe"));
  EXPECT_EQ(std::get<Attention>(qwen.blocks[0].mixer).head_dim, 32);
  EXPECT_TRUE(qwen.moe(0).router.norm_topk_prob);

  EXPECT_EQ(std::get<Attention>(spec_of(golden_config("mixtral")).blocks[0].mixer).rope.theta, 1e6f);

  const ModelSpec deepseek = spec_of(golden_config("deepseek_v3"));
  EXPECT_EQ(deepseek.moe_layers(), (std::vector<int>{1, 2}));
  EXPECT_EQ(std::get<Mlp>(deepseek.blocks[1].mixer).intermediate_size, 96);
  EXPECT_EQ(deepseek.moe(1).shared_expert_intermediate_size, 48);
  EXPECT_EQ(deepseek.moe(1).router.n_group, 4);
  EXPECT_TRUE(deepseek.moe(1).router.selection_bias);
}

TEST(Config, OldAndNewSpellings) {
  Json config = golden_config("qwen3_moe");
  config.erase("rope_parameters");
  config["rope_theta"] = 500000;
  config["rope_scaling"] = {{"type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 64}};
  config["num_experts"] = config["num_local_experts"];
  config.erase("num_local_experts");
  ModelSpec spec = spec_of(config);
  const RopeSpec& rope = std::get<Attention>(spec.blocks[0].mixer).rope;
  EXPECT_EQ(rope.type, RopeSpec::Type::yarn);
  EXPECT_EQ(rope.theta, 500000.0f);
  EXPECT_EQ(rope.factor, 4.0f);
  EXPECT_EQ(rope.original_max_position_embeddings, 64);
  EXPECT_EQ(spec.moe(0).router.num_experts, 8);

  config["rope_scaling"] = nullptr;
  spec = spec_of(config);
  EXPECT_EQ(std::get<Attention>(spec.blocks[0].mixer).rope.type, RopeSpec::Type::standard);
  EXPECT_EQ(std::get<Attention>(spec.blocks[0].mixer).rope.theta, 500000.0f);
}

TEST(Config, DenseLayersAndWindowOfQwen3) {
  Json config = golden_config("qwen3_moe");
  config["mlp_only_layers"] = {1};
  EXPECT_EQ(spec_of(config).moe_layers(), (std::vector<int>{0, 2}));
  config["mlp_only_layers"] = Json::array();
  config["decoder_sparse_step"] = 2;
  EXPECT_EQ(spec_of(config).moe_layers(), (std::vector<int>{1}));
  config["sliding_window"] = 7;
  EXPECT_EQ(std::get<Attention>(spec_of(config).blocks[0].mixer).sliding_window, 0);
  config["use_sliding_window"] = true;
  EXPECT_EQ(std::get<Attention>(spec_of(config).blocks[0].mixer).sliding_window, 7);
}

TEST(Config, ErrorsNameTheKey) {
  struct Case {
    const char* family;
    const char* key;
    Json value;
    ErrorCode code;
  };
  const Case cases[] = {
      {"olmoe", "hidden_size", "wide", ErrorCode::bad_file},
      {"olmoe", "hidden_size", -4, ErrorCode::bad_file},
      {"olmoe", "hidden_size", 1e9, ErrorCode::bad_file},
      {"olmoe", "num_hidden_layers", 100000, ErrorCode::bad_file},
      {"olmoe", "num_hidden_layers", std::numeric_limits<std::uint64_t>::max(), ErrorCode::bad_file},
      {"olmoe", "vocab_size", nullptr, ErrorCode::bad_file},
      {"olmoe", "num_experts", 1 << 20, ErrorCode::bad_file},
      {"olmoe", "num_experts_per_tok", 9, ErrorCode::bad_file},
      {"olmoe", "num_key_value_heads", 3, ErrorCode::bad_file},
      {"olmoe", "num_attention_heads", 0, ErrorCode::bad_file},
      {"olmoe", "norm_topk_prob", 1, ErrorCode::bad_file},
      {"olmoe", "rms_norm_eps", "tiny", ErrorCode::bad_file},
      {"olmoe", "hidden_act", "mish", ErrorCode::unsupported},
      {"olmoe", "rope_parameters", Json::array({1}), ErrorCode::bad_file},
      {"olmoe", "rope_parameters", Json{{"rope_type", "longrope"}}, ErrorCode::unsupported},
      {"olmoe", "rope_parameters", Json{{"full_attention", Json::object()}}, ErrorCode::unsupported},
      {"qwen3_moe", "mlp_only_layers", "all", ErrorCode::bad_file},
      {"qwen3_moe", "head_dim", 1, ErrorCode::bad_file},
      {"mixtral", "sliding_window", 0, ErrorCode::bad_file},
      {"deepseek_v3", "n_group", 3, ErrorCode::bad_file},
      {"deepseek_v3", "topk_group", 9, ErrorCode::bad_file},
      {"deepseek_v3", "scoring_func", "softmax", ErrorCode::unsupported},
      {"deepseek_v3", "topk_method", "greedy", ErrorCode::unsupported},
      {"deepseek_v3", "kv_lora_rank", nullptr, ErrorCode::bad_file},
  };
  for (const Case& c : cases) {
    Json config = golden_config(c.family);
    config[c.key] = c.value;
    const std::string message = failure(config, c.code);
    const bool names_rope = std::string(c.key) == "rope_parameters" && message.find("rope_type") != std::string::npos;
    EXPECT_TRUE(names_rope || message.find(c.key) != std::string::npos) << c.key << " -> " << message;
  }
}

// transformers would take the older key, and with it another theta: neither is taken in silence.
TEST(Config, TwoFormsOfRopeMustAgree) {
  Json config = golden_config("olmoe");
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  const ModelSpec one = spec_of(config);
  config["rope_scaling"] = {{"rope_type", "default"}};
  EXPECT_EQ(std::get<Attention>(spec_of(config).blocks[0].mixer).rope, std::get<Attention>(one.blocks[0].mixer).rope);
  config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 64}};
  EXPECT_NE(failure(config, ErrorCode::unsupported).find("rope_scaling"), std::string::npos);
}

TEST(Config, WindowsAreForCausalAttention) {
  Json config = golden_config("mixtral");
  config["sliding_window"] = 16, config["use_sliding_window"] = false;
  EXPECT_EQ(std::get<Attention>(spec_of(config).blocks[0].mixer).sliding_window, 16);
  config["mask_token_id"] = 5;
  EXPECT_NE(failure(config, ErrorCode::unsupported).find("sliding_window"), std::string::npos);
}

TEST(Config, AnyValueOfAnyKeyIsReadOrRefused) {
  const Json values[] = {nullptr,
                         true,
                         0,
                         1,
                         2,
                         3,
                         -1,
                         7.5,
                         1e308,
                         -1e308,
                         std::numeric_limits<std::int64_t>::min(),
                         std::numeric_limits<std::uint64_t>::max(),
                         "",
                         "x",
                         Json::array(),
                         Json::array({-1, "x"}),
                         Json::object(),
                         Json{{"rope_type", 5}},
                         Json{{"rope_type", "yarn"}, {"factor", -1}}};
  for (const char* name : {"olmoe", "qwen3_moe", "mixtral", "deepseek_v3"}) {
    const Json original = golden_config(name);
    int refused = 0, read = 0;
    for (const auto& [key, unused] : original.items()) {
      for (const Json& value : values) {
        Json config = original;
        config[key] = value;
        try {
          const ModelSpec spec = spec_of(config);
          ++read;
          ASSERT_EQ(spec.blocks.size(), 2 * static_cast<std::size_t>(spec.num_hidden_layers));
          for (const int layer : spec.moe_layers())
            ASSERT_TRUE(is_valid(spec.moe(layer).router)) << key << ' ' << value;
          EXPECT_FALSE(list_linears(spec, family(name)).empty());
          EXPECT_GT(SequenceState::bytes_for(spec, 1), 0u);
        } catch (const Error& error) {
          ++refused;
          EXPECT_TRUE(error.code() == ErrorCode::bad_file || error.code() == ErrorCode::unsupported) << error.what();
        }
      }
      Json config = original;
      config.erase(key);
      try {
        spec_of(config);
      } catch (const Error& error) {
        // Experts have two spellings; the error names the family's usual one.
        const std::string named = key == "num_local_experts" ? "_experts" : key;
        EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << key << ": " << error.what();
      }
    }
    EXPECT_GT(refused, 100) << name;
    EXPECT_GT(read, 100) << name;
  }
}

TEST(Config, UnknownModelTypeListsTheFamilies) {
  try {
    family_of(Json{{"model_type", "gpt2"}}, "x/config.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("deepseek_v3"), std::string::npos);
  }
  EXPECT_THROW(family_of(Json::object(), "x"), Error);
  EXPECT_THROW(family_of(Json{{"model_type", 3}}, "x"), Error);
}

/// Stacks a golden's experts into the 3-D form under canonical names.
std::map<std::string, Tensor> fuse(const Checkpoint& checkpoint, const ModelSpec& spec, const ModelFamily& family) {
  auto tensors = all_tensors(checkpoint);
  for (const int layer : spec.moe_layers()) {
    const Moe& moe = spec.moe(layer);
    const std::int64_t experts = moe.router.num_experts, inner = moe.moe_intermediate_size, hidden = spec.hidden_size;
    const std::string prefix = "model.layers." + std::to_string(layer) + ".mlp.experts";
    Tensor gate_up(DType::bf16, {experts, 2 * inner, hidden}), down(DType::bf16, {experts, hidden, inner});
    const std::size_t bytes = static_cast<std::size_t>(inner * hidden) * 2;
    for (std::int64_t e = 0; e < experts; ++e) {
      const auto move = [&](const char* part, std::byte* to) {
        const std::string name = to_file_name(family, prefix + "." + std::to_string(e) + "." + part) + ".weight";
        std::memcpy(to, tensors.at(name).data<std::byte>(), bytes);
        tensors.erase(name);
      };
      const auto at = static_cast<std::size_t>(e);
      move("gate_proj", gate_up.data<std::byte>() + 2 * at * bytes);
      move("up_proj", gate_up.data<std::byte>() + (2 * at + 1) * bytes);
      move("down_proj", down.data<std::byte>() + at * bytes);
    }
    tensors.insert_or_assign(prefix + ".gate_up_proj", std::move(gate_up));
    tensors.insert_or_assign(prefix + ".down_proj", std::move(down));
  }
  return tensors;
}

TEST(Layouts, FusedExpertsGiveTheSameBits) {
  const LoadOptions options{detect_isa(), Numerics::consistent, Activations::fp32};
  const std::vector<std::int32_t> tokens = {1, 2, 3, 200, 5};
  for (const char* name : {"qwen3_moe", "mixtral", "deepseek_v3"}) {
    const Checkpoint plain = Checkpoint::open(golden_dir(name));
    TemporaryFolder folder;
    write_model(folder.path, plain.config(), fuse(plain, model_spec(plain), family(name)));
    const Checkpoint fused = Checkpoint::open(folder.path);
    Runner a(plain, options), b(fused, options);
    EXPECT_EQ(a.sequence(tokens), b.sequence(tokens)) << name;
  }
}

TEST(Layouts, WrongTensorsAreNamed) {
  const Checkpoint source = Checkpoint::open(golden_dir("qwen3_moe"));
  const std::string gate = "model.layers.1.mlp.experts.2.gate_proj.weight";
  struct Case {
    const char* what;
    std::function<void(std::map<std::string, Tensor>&, Json&)> damage;
    ErrorCode code;
    const char* named;
  };
  const Case cases[] = {
      {"missing expert", [&](auto& t, Json&) { t.erase(gate); }, ErrorCode::not_found, "experts.2.gate_proj"},
      {"wrong shape", [&](auto& t, Json&) { t.insert_or_assign(gate, Tensor(DType::bf16, {48, 32})); },
       ErrorCode::bad_file, "experts.2.gate_proj"},
      {"wrong rank", [&](auto& t, Json&) { t.insert_or_assign(gate, Tensor(DType::bf16, {48 * 64})); },
       ErrorCode::bad_file, "experts.2.gate_proj"},
      {"integers", [&](auto& t, Json&) { t.insert_or_assign(gate, Tensor(DType::i32, {48, 64})); },
       ErrorCode::unsupported, "experts.2.gate_proj"},
      {"integer router",
       [&](auto& t, Json&) { t.insert_or_assign("model.layers.0.mlp.gate.weight", Tensor(DType::i32, {8, 64})); },
       ErrorCode::unsupported, "mlp.gate"},
      {"missing norm", [&](auto& t, Json&) { t.erase("model.norm.weight"); }, ErrorCode::not_found, "model.norm"},
      {"integer norm", [&](auto& t, Json&) { t.insert_or_assign("model.norm.weight", Tensor(DType::i32, {64})); },
       ErrorCode::bad_file, "model.norm"},
      {"fewer experts in the config", [&](auto&, Json& c) { c["num_local_experts"] = 4; }, ErrorCode::bad_file,
       "experts"},
      {"fused of a wrong shape",
       [&](auto& t, Json&) {
         t.erase(gate);
         t.insert_or_assign("model.layers.1.mlp.experts.gate_up_proj", Tensor(DType::bf16, {8, 64, 96}));
       },
       ErrorCode::bad_file, "gate_up_proj"},
  };
  ThreadPool threads(2);
  for (const Case& c : cases) {
    auto tensors = all_tensors(source);
    Json config = source.config();
    c.damage(tensors, config);
    TemporaryFolder folder;
    write_model(folder.path, config, tensors);
    const Checkpoint damaged = Checkpoint::open(folder.path);
    try {
      DecoderModel::load(damaged, {}, threads);
      ADD_FAILURE() << c.what << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), c.code) << c.what << ": " << error.what();
      EXPECT_NE(std::string(error.what()).find(c.named), std::string::npos) << c.what << ": " << error.what();
    }
  }
}

TEST(Layouts, ExtraLayersOfMultiTokenPredictionAreLeftAlone) {
  const Checkpoint source = Checkpoint::open(golden_dir("deepseek_v3"));
  auto tensors = all_tensors(source);
  tensors.insert_or_assign("model.layers.3.eh_proj.weight", Tensor(DType::bf16, {4, 4}));
  std::memset(tensors.at("model.layers.3.eh_proj.weight").data<std::byte>(), 0, 32);
  TemporaryFolder folder;
  write_model(folder.path, source.config(), tensors);
  Runner a(source, {}), b(Checkpoint::open(folder.path), {});
  const std::vector<std::int32_t> tokens = {9, 8, 7};
  EXPECT_EQ(a.sequence(tokens), b.sequence(tokens));
}

}  // namespace
}  // namespace kedge
