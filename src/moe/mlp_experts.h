// Experts without a gate projection, with biases: two linear layers with a ReLU between.
//
//   y[t] = sum over slots s ascending of weights[t, s] * (W2[e] relu(W1[e] x[t] + b1[e]) + b2[e]),   e = e(t, s)
// The products are grouped_gemm's, the combination is moe_ffn's (an fp32 FMA chain in slot order, starting at 0).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/exec.h"
#include "kernels/moe_ffn/moe_ffn.h"
#include "nn/linear.h"

namespace kedge {

class MlpExperts {
 public:
  /// prefix: "moe.experts"; expert e has "<prefix>.<e>.{fc1,fc2}.{weight,bias}", fc1 [I, H], fc2 [H, I].
  static MlpExperts load(const WeightSource& source, const std::string& prefix, std::int64_t num_experts,
                         std::int64_t hidden_size, std::int64_t intermediate_size, const LoadOptions& options);
  /// x, y: [T, H]; weights: [T, k]. The probe sees each layer's input, expert by expert (Site::linear_input).
  void forward(const ExecContext& ctx, const float* x, const TokenPermutation& permutation, const float* weights,
               float* y) const;
  std::size_t num_bytes() const noexcept;

 private:
  struct Layer {
    std::vector<PackedWeight> weights;          ///< by expert
    std::vector<const PackedWeight*> pointers;  ///< the same, as grouped_gemm takes them
    std::vector<std::vector<float>> biases;     ///< by expert, [out]
    std::vector<std::string> modules;
  };
  static Layer load_layer(const WeightSource& source, const std::string& prefix, const char* name,
                          std::int64_t num_experts, std::int64_t out, std::int64_t in, const LoadOptions& options);
  void observe(const ExecContext& ctx, const Layer& layer, const float* x, const TokenPermutation& permutation,
               bool gathered) const;

  std::int64_t hidden_size_ = 0, intermediate_size_ = 0;
  Layer fc1_, fc2_;
  Isa isa_ = Isa::scalar;
};

}  // namespace kedge
