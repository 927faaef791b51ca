// The layers that PyTorch computed in fp64 (tools/make_mcqsmoe_goldens.py, tests/goldens/mcqsmoe), for the tests of the
// engine and of the twin.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "io/wire/anchor_delta.h"
#include "moe/reconstruction_moe.h"

namespace kedge::testing_moe {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/goldens/mcqsmoe";
}

inline std::vector<std::string> case_names() {
  const Json hashes = read_json(golden_folder() / "hashes.json");
  std::vector<std::string> names;
  for (const auto& [name, hash] : hashes.items()) names.push_back(name);
  return names;
}

inline std::optional<FfnActivation> parse_activation(const std::string& name) {
  if (name == "linear") return std::nullopt;
  if (name == "silu") return FfnActivation::silu;
  EXPECT_TRUE(name == "gelu" || name == "gelu_tanh") << name;
  return name == "gelu" ? FfnActivation::gelu : FfnActivation::gelu_tanh;
}

struct McqsMoeGolden {
  explicit McqsMoeGolden(const std::string& name) : file(golden_folder() / (name + ".safetensors")) {
    stacks = anchor_delta::load(golden_folder() / (name + ".safetensors"));
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

}  // namespace kedge::testing_moe
