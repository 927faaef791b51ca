// A capture that ends its pass early keeps what one of the whole pass keeps, and leaves the states as they were.
#include "ptq/layers/capture.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "model/checkpoint_source.h"
#include "ptq/layers/hidden_states.h"
#include "ptq/layers/layer_pass.h"

namespace kedge {
namespace {

constexpr std::int64_t kSequences = 3, kSeqlen = 17;

/// The last layer of a golden model, which is a MoE layer.
class CapturePass {
 public:
  explicit CapturePass(const std::string& model)
      : checkpoint_(Checkpoint::open(std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/goldens/hf" / model)),
        spec_(model_spec(checkpoint_)),
        source_(checkpoint_, spec_),
        threads_(2),
        pass_(spec_, spec_.num_hidden_layers - 1, kSequences, kSeqlen,
              {detect_isa(), Numerics::consistent, Activations::fp32}, threads_),
        states_(kSequences, kSeqlen, spec_.hidden_size) {
    Rng rng(3);
    for (std::int64_t i = 0; i < states_.rows() * spec_.hidden_size; ++i) {
      states_.row(0)[i] = static_cast<float>(rng.normal());
    }
  }

  std::size_t blocks() const { return pass_.num_blocks(); }
  bool is_moe(std::size_t block) const { return std::holds_alternative<Moe>(pass_.spec().blocks[block].mixer); }
  std::string module(const std::string& name) const {
    return "model.layers." + std::to_string(spec_.num_hidden_layers - 1) + "." + name;
  }
  std::vector<float> states() const { return {states_.row(0), states_.row(0) + states_.rows() * spec_.hidden_size}; }
  /// The states after the pass.
  std::vector<float> run(std::size_t block, Capture& capture) {
    std::vector<float> h = states();
    pass_.forward(*pass_.build(source_, block), pass_.chunks().front(), h.data(), &capture);
    return h;
  }

 private:
  Checkpoint checkpoint_;
  ModelSpec spec_;
  CheckpointSource source_;
  ThreadPool threads_;
  LayerPass pass_;
  HiddenStates states_;
};

void expect_same(const Capture::Rows& a, const Capture::Rows& b) {
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.values, b.values);
}

class CaptureEnds : public testing::TestWithParam<const char*> {};

TEST_P(CaptureEnds, AfterAnyLinear) {
  CapturePass subject(GetParam());
  for (std::size_t block = 0; block < subject.blocks(); ++block) {
    for (const char* name :
         {"self_attn.q_proj", "self_attn.v_proj", "self_attn.q_a_proj", "self_attn.q_b_proj",
          "self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj", "self_attn.o_proj", "mlp.shared_experts.up_proj",
          "mlp.shared_experts.gate_proj", "mlp.shared_experts.down_proj"}) {
      const std::string module = subject.module(name);
      Capture whole({module}, 0), early({module}, 0, Capture::Pass::until_complete);
      EXPECT_NE(subject.run(block, whole), subject.states());
      const std::vector<float> after = subject.run(block, early);
      ASSERT_EQ(whole.inputs.size(), early.inputs.size()) << module;
      if (whole.inputs.empty()) continue;  // of the other block, or of other models
      EXPECT_EQ(after, subject.states()) << module;
      EXPECT_GT(whole.inputs.at(module).rows, 0);
      expect_same(whole.inputs.at(module), early.inputs.at(module));
    }
  }
}

TEST_P(CaptureEnds, AfterTheRouterOrTheExpertsFirstHalf) {
  CapturePass subject(GetParam());
  const unsigned input = static_cast<unsigned>(Site::moe_input), routing = static_cast<unsigned>(Site::routing),
                 intermediate = static_cast<unsigned>(Site::expert_intermediate);
  for (std::size_t block = 0; block < subject.blocks(); ++block) {
    if (!subject.is_moe(block)) continue;
    for (const unsigned sites : {input, input | routing, input | routing | intermediate}) {
      Capture whole({}, sites), early({}, sites, Capture::Pass::until_complete);
      subject.run(block, whole);
      EXPECT_EQ(subject.run(block, early), subject.states());
      EXPECT_GT(whole.moe.rows, 0);
      EXPECT_EQ(whole.intermediate.rows > 0, (sites & intermediate) != 0);
      expect_same(whole.moe, early.moe);
      expect_same(whole.scores, early.scores);
      expect_same(whole.intermediate, early.intermediate);
      EXPECT_EQ(whole.expert_ids, early.expert_ids);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CaptureEnds, testing::Values("deepseek_v3", "mixtral", "olmoe", "qwen3_moe"));

}  // namespace
}  // namespace kedge
