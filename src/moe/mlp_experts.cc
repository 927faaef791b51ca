#include "moe/mlp_experts.h"

#include <cstring>

#include "kernels/grouped_gemm/grouped_gemm.h"
#include "nn/elementwise.h"
#include "nn/probe.h"

namespace kedge {

MlpExperts::Layer MlpExperts::load_layer(const WeightSource& source, const std::string& prefix, const char* name,
                                         std::int64_t num_experts, std::int64_t out, std::int64_t in,
                                         const LoadOptions& options) {
  Layer layer;
  for (std::int64_t e = 0; e < num_experts; ++e) {
    const std::string module = prefix + "." + std::to_string(e) + "." + name;
    layer.weights.push_back(pack_weight_data(source.weight(module, out, in), options, module));
    source.done(module);
    layer.biases.push_back(source.vector(module + ".bias", out));
    layer.modules.push_back(module);
  }
  // A vector that is moved keeps its elements where they are.
  for (const PackedWeight& weight : layer.weights) layer.pointers.push_back(&weight);
  return layer;
}

MlpExperts MlpExperts::load(const WeightSource& source, const std::string& prefix, std::int64_t num_experts,
                            std::int64_t hidden_size, std::int64_t intermediate_size, const LoadOptions& options) {
  MlpExperts experts;
  experts.hidden_size_ = hidden_size;
  experts.intermediate_size_ = intermediate_size;
  experts.isa_ = options.isa;
  experts.fc1_ = load_layer(source, prefix, "fc1", num_experts, intermediate_size, hidden_size, options);
  experts.fc2_ = load_layer(source, prefix, "fc2", num_experts, hidden_size, intermediate_size, options);
  return experts;
}

void MlpExperts::observe(const ExecContext& ctx, const Layer& layer, const float* x,
                         const TokenPermutation& permutation, bool gathered) const {
  if (ctx.probe == nullptr || !ctx.probe->wants(Site::linear_input)) return;
  const std::int64_t size = layer.weights[0].k();
  for (std::size_t e = 0; e < layer.weights.size(); ++e) {
    const std::int64_t begin = permutation.offsets[e], rows = permutation.offsets[e + 1] - begin;
    if (rows == 0) continue;
    ArenaScope scope(ctx.scratch);
    const float* own = x + begin * size;
    if (!gathered) {
      auto* copy = ctx.scratch.take<float>(rows * size);
      for (std::int64_t r = 0; r < rows; ++r) {
        std::memcpy(copy + r * size, x + permutation.token[static_cast<std::size_t>(begin + r)] * size,
                    static_cast<std::size_t>(size) * sizeof(float));
      }
      own = copy;
    }
    ctx.probe->linear_input(layer.modules[e], rows, size, own, size);
  }
}

void MlpExperts::forward(const ExecContext& ctx, const float* x, const TokenPermutation& permutation,
                         const float* weights, float* y) const {
  ArenaScope scope(ctx.scratch);
  const std::int64_t pairs = permutation.tokens * permutation.top_k;
  auto* h = ctx.scratch.take<float>(pairs * intermediate_size_);
  auto* out = ctx.scratch.take<float>(pairs * hidden_size_);
  const auto each_expert = [&](auto&& run) {
    for (std::size_t e = 0; e < fc1_.weights.size(); ++e) {
      run(e, permutation.offsets[e], permutation.offsets[e + 1] - permutation.offsets[e]);
    }
  };
  observe(ctx, fc1_, x, permutation, false);
  grouped_gemm(ctx, x, permutation.token, permutation.offsets, fc1_.pointers, h);
  each_expert([&](std::size_t e, std::int64_t begin, std::int64_t rows) {
    add_bias_relu(ctx, h + begin * intermediate_size_, intermediate_size_, rows, intermediate_size_,
                  fc1_.biases[e].data());
  });
  observe(ctx, fc2_, h, permutation, true);
  grouped_gemm(ctx, h, {}, permutation.offsets, fc2_.pointers, out);
  each_expert([&](std::size_t e, std::int64_t begin, std::int64_t rows) {
    add_bias(ctx, out + begin * hidden_size_, hidden_size_, rows, hidden_size_, fc2_.biases[e].data());
  });
  combine_experts(ctx, out, permutation, weights, hidden_size_, y, isa_);
}

std::size_t MlpExperts::num_bytes() const noexcept {
  std::size_t bytes = 0;
  for (const Layer* layer : {&fc1_, &fc2_}) {
    for (const PackedWeight& weight : layer->weights) bytes += weight.num_bytes();
    for (const auto& bias : layer->biases) bytes += bias.size() * sizeof(float);
  }
  return bytes;
}

}  // namespace kedge
