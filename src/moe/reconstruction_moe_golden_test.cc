// The layer against PyTorch in fp64 (tools/make_mcqsmoe_goldens.py, tests/goldens/mcqsmoe), on the same quantized
// weights: the port's error is max |y - y'| <= 1e-4 and rms(y - y') / rms(y') <= 5e-5; and bit for bit over replays,
// threads and instruction sets.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/hash.h"
#include "base/json.h"
#include "io/wire/anchor_delta.h"
#include "moe/reconstruction_moe.h"

namespace kedge {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/goldens/mcqsmoe";

std::optional<FfnActivation> parse_activation(const std::string& name) {
  if (name == "linear") return std::nullopt;
  if (name == "silu") return FfnActivation::silu;
  EXPECT_TRUE(name == "gelu" || name == "gelu_tanh") << name;
  return name == "gelu" ? FfnActivation::gelu : FfnActivation::gelu_tanh;
}

struct Golden {
  explicit Golden(const std::string& name) : file(kFolder / (name + ".safetensors")) {
    stacks = anchor_delta::load(kFolder / (name + ".safetensors"));
    const Json json = parse_json(file.header().metadata.at("case"), name);
    ErrorRouterSpec& router = spec.router;
    router.hidden_size = json["hidden_size"];
    router.bottleneck = json["bottleneck"];
    router.num_experts = json["num_experts"];
    router.num_experts_per_tok = json["num_experts_per_tok"];
    router.measure = parse_error_measure(json["measure"].get<std::string>());
    router.normalization = parse_error_normalization(json["normalization"].get<std::string>());
    router.huber_delta = json["huber_delta"];
    router.temperature = json["temperature"];
    router.combine = parse_combine_method(json["combine"].get<std::string>());
    router.activation = parse_activation(json["activation"]);
    router.tied = json["tied"];
    router.orthonormal = json["orthonormal"];
    spec.output = json["output"] == "ffn" ? ExpertOutput::ffn : ExpertOutput::reconstruction;
    spec.intermediate_size = json["intermediate_size"];
    spec.hidden_act = *parse_activation(json["hidden_act"]);
    spec.gated = json["gated"];
    tokens = json["tokens"];
    for (const char* matrix : {"encoder", "decoder", "gate", "up", "down"}) {
      if (file.has(matrix)) plain[matrix] = values<float>(matrix, DType::f32);
    }
  }
  template <class T>
  std::vector<T> values(const std::string& name, DType dtype) const {
    const TensorView view = file.tensor(name);
    EXPECT_EQ(view.dtype, dtype) << name;
    std::vector<T> out(static_cast<std::size_t>(view.size()));
    std::memcpy(out.data(), view.data, view.num_bytes());
    return out;
  }
  ExpertMatrices matrices(const std::string& name) const {
    if (const auto it = stacks.find(name); it != stacks.end()) return {{}, &it->second};
    if (const auto it = plain.find(name); it != plain.end()) return {it->second, nullptr};
    return {};
  }
  ReconstructionMoeWeights weights() const {
    return {matrices("encoder"), matrices("decoder"), matrices("gate"), matrices("up"), matrices("down")};
  }

  SafetensorsFile file;
  std::map<std::string, AnchorDelta> stacks;
  std::map<std::string, std::vector<float>> plain;
  ReconstructionMoe spec;
  std::int64_t tokens = 0;
};

struct Result {
  std::vector<float> y;
  RoutingAudit audit;
};

Result run(const Golden& golden, AnchorForm form, Isa isa, int threads, int replays = 1) {
  const auto block =
      ReconstructionMoeBlock::load(golden.spec, golden.weights(), form, {isa, Numerics::consistent, Activations::fp32});
  const auto x = golden.values<float>("x", DType::f32);
  ThreadPool pool(threads);
  Arena arena;
  Result first{std::vector<float>(x.size()), {}};
  block.forward({pool, arena}, 0, x.data(), golden.tokens, first.y.data(), &first.audit);
  for (int i = 1; i < replays; ++i) {
    std::vector<float> y(x.size());
    block.forward({pool, arena}, 0, x.data(), golden.tokens, y.data());
    EXPECT_EQ(std::memcmp(y.data(), first.y.data(), y.size() * sizeof(float)), 0) << "replay " << i;
  }
  return first;
}

/// |a - b|, over |b| where that is above 1: errors without a normalization have the size of ||x||^2.
double largest_error_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double difference = std::fabs(double{a[i]} - b[i]) / std::max(1.0, std::fabs(double{b[i]}));
    worst = difference > worst || difference != difference ? difference : worst;
  }
  return worst;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double difference = std::fabs(double{a[i]} - b[i]);
    worst = difference > worst || difference != difference ? difference : worst;
  }
  return worst;
}

double nrmse(const std::vector<float>& a, const std::vector<float>& reference) {
  double error = 0, total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(double{a[i]} - reference[i], 2);
    total += std::pow(double{reference[i]}, 2);
  }
  return std::sqrt(error / total);
}

std::vector<std::string> case_names() {
  const Json hashes = read_json(kFolder / "hashes.json");
  std::vector<std::string> names;
  for (const auto& [name, hash] : hashes.items()) names.push_back(name);
  return names;
}

TEST(McqsMoeGoldens, AreTheFrozenFiles) {
  const Json all = read_json(kFolder / "hashes.json");
  EXPECT_GE(all.size(), 10u);
  for (const auto& [name, hash] : all.items()) {
    EXPECT_EQ(sha256_file(kFolder / (name + ".safetensors")), hash.get<std::string>()) << name;
  }
}

TEST(McqsMoeGoldens, TheLayerComputesWhatPyTorchDoes) {
  for (const std::string& name : case_names()) {
    SCOPED_TRACE(name);
    const Golden golden(name);
    const auto y = golden.values<float>("y", DType::f32), errors = golden.values<float>("errors", DType::f32);
    const auto weights = golden.values<float>("weights", DType::f32);
    const auto norms = golden.values<float>("residual_norms", DType::f32);
    const auto ids = golden.values<std::int32_t>("ids", DType::i32);
    for (const AnchorForm form : {AnchorForm::split, AnchorForm::decoded}) {
      const Result out = run(golden, form, Isa::scalar, 1);
      EXPECT_EQ(out.audit.token_experts, ids);
      EXPECT_LE(largest_error_difference(out.audit.all_errors, errors), 1e-5);
      EXPECT_LE(largest_difference(out.audit.token_weights, weights), 1e-4);
      EXPECT_LE(largest_difference(out.audit.residual_norms, norms), 1e-4);
      EXPECT_LE(largest_difference(out.y, y), 1e-4);
      EXPECT_LE(nrmse(out.y, y), 5e-5);
      std::printf("%s, %s: max_abs %.1e, nrmse %.1e, errors %.1e\n", name.c_str(), anchor_form_name(form),
                  largest_difference(out.y, y), nrmse(out.y, y),
                  largest_error_difference(out.audit.all_errors, errors));
    }
  }
}

TEST(McqsMoeGoldens, EveryRowOfTheirWeightsIsOnItsManifold) {
  for (const std::string& name : case_names()) {
    for (const auto& [stack, weights] : Golden(name).stacks) {
      EXPECT_LE(manifold_error(weights), 1e-6) << name << " " << stack;
    }
  }
}

TEST(McqsMoeGoldens, ReplaysThreadsAndInstructionSetsGiveTheSameBits) {
  for (const std::string& name : case_names()) {
    SCOPED_TRACE(name);
    const Golden golden(name);
    for (const AnchorForm form : {AnchorForm::split, AnchorForm::decoded}) {
      const Result reference = run(golden, form, Isa::scalar, 1, 10);
      for (const Isa isa : available_isas()) {
        for (const int threads : {1, 2, 3}) {
          const Result out = run(golden, form, isa, threads);
          EXPECT_EQ(std::memcmp(out.y.data(), reference.y.data(), out.y.size() * sizeof(float)), 0)
              << isa_name(isa) << " " << threads;
          EXPECT_EQ(out.audit.all_errors, reference.audit.all_errors) << isa_name(isa) << " " << threads;
          EXPECT_EQ(out.audit.token_weights, reference.audit.token_weights) << isa_name(isa) << " " << threads;
        }
      }
    }
  }
}

}  // namespace
}  // namespace kedge
