#include "moe/experts.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/anchor_ffn/anchor_ffn.h"

namespace kedge {
namespace {

PackedWeight load_one(const WeightSource& source, const std::string& module, std::int64_t out, std::int64_t in,
                      const LoadOptions& options) {
  PackedWeight packed = pack_weight_data(source.weight(module, out, in), options, module);
  source.done(module);
  return packed;
}

/// One projection of all experts.
PackedExpertMatrices load_matrices(const WeightSource& source, const std::string& prefix, const std::string& part,
                                   const std::shared_ptr<const AnchorDelta>& shared, std::int64_t experts,
                                   const std::pair<std::int64_t, std::int64_t>& shape, const LoadOptions& options) {
  const auto [n, k] = shape;
  const std::string name = prefix + "." + part;
  std::vector<float> plain;
  for (std::int64_t e = 0; shared == nullptr && e < experts; ++e) {
    const std::string module = prefix + "." + std::to_string(e) + "." + part;
    const Tensor one = to_float_matrix(source.weight(module, n, k), module);
    plain.insert(plain.end(), one.data<float>(), one.data<float>() + n * k);
    source.done(module);
  }
  PackedExpertMatrices packed({plain, shared.get()}, experts, n, k, false, AnchorForm::fused, options, name);
  source.done(name);
  return packed;
}

}  // namespace

PackedExperts load_experts(const WeightSource& source, const std::string& prefix, const ExpertFfnDesc& desc,
                           const LoadOptions& options, ThreadPool* threads) {
  const auto gate = source.stack(prefix + ".gate_proj"), up = source.stack(prefix + ".up_proj"),
             down = source.stack(prefix + ".down_proj");
  if (gate != nullptr || up != nullptr || down != nullptr) {
    const std::pair inner{desc.intermediate_size, desc.hidden_size}, outer{desc.hidden_size, desc.intermediate_size};
    auto weights = std::make_unique<AnchorFfnWeights>();
    weights->gate = load_matrices(source, prefix, "gate_proj", gate, desc.num_experts, inner, options);
    weights->up = load_matrices(source, prefix, "up_proj", up, desc.num_experts, inner, options);
    weights->down = load_matrices(source, prefix, "down_proj", down, desc.num_experts, outer, options);
    return PackedExperts(std::move(weights), options.isa);
  }
  const auto load_expert = [&](std::int64_t e) {
    const std::string expert = prefix + "." + std::to_string(e);
    return ExpertWeights{
        load_one(source, expert + ".gate_proj", desc.intermediate_size, desc.hidden_size, options),
        load_one(source, expert + ".up_proj", desc.intermediate_size, desc.hidden_size, options),
        load_one(source, expert + ".down_proj", desc.hidden_size, desc.intermediate_size, options),
    };
  };
  PackedExperts experts(desc.num_experts, load_expert(0));
  const auto load = [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t e = begin; e < end; ++e) {
      experts.set(e + 1, load_expert(e + 1));
    }
  };
  if (threads != nullptr) {
    threads->parallel_for(desc.num_experts - 1, 1, load);
  } else {
    load(0, desc.num_experts - 1, 0);
  }
  source.done(prefix);  // the fused form, where the file has it
  return experts;
}

}  // namespace kedge
