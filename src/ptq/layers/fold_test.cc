#include "ptq/layers/fold.h"

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "model/checkpoint_source.h"
#include "ptq/layers/capture.h"
#include "ptq/methods/awq.h"

namespace kedge {
namespace {

constexpr std::int64_t kSequences = 4, kSeqlen = 24;

Checkpoint golden(const std::string& family) {
  return Checkpoint::open(std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/goldens/hf" / family);
}

Recipe recipe_for(std::vector<Override> overrides) {
  Recipe recipe;
  recipe.scheme = parse_scheme("w3a16-g32");
  recipe.method = "awq";
  recipe.overrides = std::move(overrides);
  recipe.parameters.min_expert_tokens = 8;
  return recipe;
}

// One layer of a golden with random inputs, some channels of which are large.
class Layer {
 public:
  Layer(const std::string& family, int layer, std::vector<Override> overrides = {})
      : checkpoint_(golden(family)),
        recipe_(recipe_for(std::move(overrides))),
        plan_(plan_quantization(checkpoint_, recipe_, 1'000'000'000)),
        spec_(model_spec(checkpoint_)),
        source_(checkpoint_, spec_),
        input_{spec_,    layer, source_, {}, recipe_, {detect_isa(), Numerics::consistent, Activations::fp32},
               threads_, {}},
        pass_(spec_, layer, kSequences, kSeqlen, input_.options, threads_),
        overlay_(source_),
        states_(kSequences, kSeqlen, spec_.hidden_size) {
    for (const PlannedModule& module : plan_.modules) {
      if (module.linear.layer == layer) input_.modules.push_back(&module);
    }
    for (const TensorInfo& tensor : plan_.copies) {
      input_.kept[to_canonical_name(family_of(checkpoint_.config(), family), tensor.name)] = tensor.dtype;
    }
    Rng rng(7);
    for (std::int64_t i = 0; i < states_.rows() * spec_.hidden_size; ++i) {
      states_.row(0)[i] = static_cast<float>(rng.normal() * std::exp2(double(i % spec_.hidden_size % 7) - 3));
    }
  }

  std::vector<FoldReport> fold(std::size_t block) {
    return awq_fold({input_, pass_, overlay_, block, states_, states_, out});
  }
  std::size_t blocks() const { return pass_.num_blocks(); }
  bool is_moe(std::size_t block) const { return std::holds_alternative<Moe>(pass_.spec().blocks[block].mixer); }
  const QuantPlan& plan() const { return plan_; }

  std::vector<float> output(std::size_t block, bool folded) {
    std::vector<float> h(states_.row(0), states_.row(0) + states_.rows() * spec_.hidden_size);
    pass_.forward(*build(block, folded), pass_.chunks().front(), h.data());
    return h;
  }
  std::vector<float> logits(std::size_t block, bool folded) {
    Capture capture({}, static_cast<unsigned>(Site::routing));
    build(block, folded)->observe_routing(pass_.context(&capture), states_.row(0), states_.rows());
    return capture.logits.values;
  }
  /// Of a tensor that out.replaced holds: is it what the file's type can hold?
  bool is_storable(const std::string& name, const Tensor& values) const {
    DType dtype = input_.kept.contains(name) ? input_.kept.find(name)->second : DType::f64;
    for (const PlannedModule* module : input_.modules) {
      if (module->linear.canonical + ".weight" == name) dtype = module->dtype;
    }
    Tensor narrow(dtype, values.shape()), wide(DType::f32, values.shape());
    convert_from_float(dtype, values.data<float>(), values.size(), narrow.data<std::byte>());
    convert_to_float(dtype, narrow.data<std::byte>(), values.size(), wide.data<float>());
    return std::equal(wide.data<float>(), wide.data<float>() + wide.size(), values.data<float>());
  }

  LayerOutput out;

 private:
  std::unique_ptr<Block> build(std::size_t block, bool folded) {
    return pass_.build(folded ? static_cast<const WeightSource&>(overlay_) : source_, block);
  }

  Checkpoint checkpoint_;
  Recipe recipe_;
  QuantPlan plan_;
  ModelSpec spec_;
  CheckpointSource source_;
  ThreadPool threads_{2};
  LayerInput input_;
  LayerPass pass_;
  OverlaySource overlay_;
  HiddenStates states_;
};

class Fold : public testing::TestWithParam<const char*> {};

TEST_P(Fold, ChangesNoOutputAndNoLogit) {
  const int layers = model_spec(golden(GetParam())).num_hidden_layers;
  for (int l = 0; l < layers; ++l) {
    Layer layer(GetParam(), l);
    for (std::size_t block = 0; block < layer.blocks(); ++block) {
      const std::vector<FoldReport> reports = layer.fold(block);
      ASSERT_FALSE(reports.empty());
      int moved = 0;
      for (const FoldReport& report : reports) {
        EXPECT_LE(report.error, 1) << report.producer;
        moved += report.alpha > 0 ? 1 : 0;
      }
      EXPECT_GT(moved, 0) << "layer " << l << ", block " << block;
      const std::vector<float> expected = layer.output(block, false), folded = layer.output(block, true);
      EXPECT_NE(expected, folded) << "nothing was scaled";
      float most = 0, difference = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) {
        most = std::max(most, std::fabs(expected[i]));
        difference = std::max(difference, std::fabs(expected[i] - folded[i]));
      }
      EXPECT_LE(difference, 1e-5f * most) << "layer " << l << ", block " << block;
      if (!layer.is_moe(block)) continue;
      EXPECT_EQ(layer.logits(block, false), layer.logits(block, true));
    }
    for (const auto& [name, values] : layer.out.replaced) EXPECT_TRUE(layer.is_storable(name, values)) << name;
  }
}
INSTANTIATE_TEST_SUITE_P(All, Fold, testing::Values("olmoe", "qwen3_moe", "mixtral", "deepseek_v3"));

std::set<std::string> producers(Layer& layer, std::size_t block) {
  std::set<std::string> out;
  for (const FoldReport& report : layer.fold(block)) out.insert(report.producer);
  return out;
}

TEST(FoldSites, AMatrixThatStaysBlocksWhatWouldChangeIt) {
  const std::string prefix = "model.layers.0.";
  Layer all("qwen3_moe", 0);
  EXPECT_TRUE(producers(all, 0).contains(prefix + "input_layernorm.weight"));
  EXPECT_TRUE(producers(all, 0).contains(prefix + "self_attn.v_proj"));
  EXPECT_TRUE(producers(all, 1).contains(prefix + "post_attention_layernorm.weight"));

  Layer value_kept("qwen3_moe", 0, {{ModulePattern("*.v_proj"), std::nullopt}});
  EXPECT_TRUE(producers(value_kept, 0).empty());
  Layer query_kept("qwen3_moe", 0, {{ModulePattern("*.q_proj"), std::nullopt}});
  EXPECT_EQ(producers(query_kept, 0), std::set<std::string>{prefix + "self_attn.v_proj"});
  Layer up_kept("qwen3_moe", 0, {{ModulePattern("*.experts.1.up_proj"), std::nullopt}});
  const std::set<std::string> rest = producers(up_kept, 1);
  EXPECT_FALSE(rest.contains(prefix + "post_attention_layernorm.weight"));
  EXPECT_FALSE(rest.contains(prefix + "mlp.experts.1.up_proj"));
  EXPECT_TRUE(rest.contains(prefix + "mlp.experts.0.up_proj"));
}

// Two query heads share a value head here, so their columns share its scales.
TEST(FoldSites, HeadsOfAGroupShareTheirScales) {
  Layer layer("qwen3_moe", 0);
  ModelSpec spec = model_spec(golden("qwen3_moe"));
  std::vector<const PlannedModule*> modules;
  for (const PlannedModule& module : layer.plan().modules) {
    if (module.linear.layer == 0) modules.push_back(&module);
  }
  auto& attention = std::get<Attention>(spec.blocks[0].mixer);
  ASSERT_GT(attention.num_attention_heads, attention.num_key_value_heads);
  const auto sites = fold_sites(spec, spec.blocks[0], modules);
  ASSERT_EQ(sites.size(), 2u);
  EXPECT_EQ(sites[1].channels, attention.num_key_value_heads * attention.head_dim);
  EXPECT_EQ(sites[1].channel_of_column[0], 0);
  EXPECT_EQ(sites[1].channel_of_column[static_cast<std::size_t>(attention.head_dim)], 0);
  EXPECT_EQ(sites[1].channel_of_column.back(), sites[1].channels - 1);
  attention.clip_qkv = 8.0f;
  EXPECT_EQ(fold_sites(spec, spec.blocks[0], modules).size(), 1u);
  attention.clip_qkv.reset();
  attention.qkv_bias = true;
  EXPECT_EQ(fold_sites(spec, spec.blocks[0], modules).size(), 1u);
}

}  // namespace
}  // namespace kedge
