#include "moe/experts.h"

#include <string>

namespace kedge {
namespace {

PackedWeight load_one(const WeightSource& source, const std::string& module, std::int64_t out, std::int64_t in,
                      const LoadOptions& options) {
  PackedWeight packed = pack_weight_data(source.weight(module, out, in), options, module);
  source.done(module);
  return packed;
}

}  // namespace

PackedExperts load_experts(const WeightSource& source, const std::string& prefix, const ExpertFfnDesc& desc,
                           const LoadOptions& options, ThreadPool* threads) {
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
