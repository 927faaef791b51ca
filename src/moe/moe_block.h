// A MoE layer: router, selection, permutation, experts, shared expert.
//
//   y = moe_ffn(x, route(router x)) + shared(x)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/exec.h"
#include "moe/moe_spec.h"
#include "nn/linear.h"
#include "nn/mlp.h"

namespace kedge {

class MoeBlock {
 public:
  /// prefix: "model.layers.1.mlp". threads (may be null) pack experts in parallel.
  static MoeBlock load(const WeightSource& source, const std::string& prefix, const Moe& spec, std::int64_t hidden_size,
                       const LoadOptions& options, ThreadPool* threads);
  /// x, y: [rows, H]. layer names it to the probe, which sees moe_input, routing and expert_intermediate.
  void forward(const ExecContext& ctx, int layer, const float* x, std::int64_t rows, float* y) const;

  /// Router and selection alone: the probe sees moe_input and routing, nothing else is computed.
  void observe_routing(const ExecContext& ctx, int layer, const float* x, std::int64_t rows) const;

  std::size_t num_bytes() const noexcept;
  /// Bytes read for one token: router, k experts, shared expert.
  std::size_t active_bytes() const noexcept;
  std::string explain(std::int64_t tokens) const;

 private:
  /// ids and weights [rows, k] in the caller's arena scope.
  struct Selection {
    std::int32_t* ids;
    float* weights;
  };
  Selection select(const ExecContext& ctx, int layer, const float* x, std::int64_t rows) const;

  Moe spec_;
  ExpertFfnDesc desc_;
  Linear router_;
  std::vector<float> selection_bias_;  ///< [E] or empty
  PackedExperts experts_;
  MlpModule shared_;
  Isa isa_ = Isa::scalar;
};

}  // namespace kedge
