#include "bench/work.h"

#include <variant>

namespace kedge {
namespace {

double products(const Attention& a, double hidden) {
  const double heads = static_cast<double>(a.num_attention_heads), kv = static_cast<double>(a.num_key_value_heads);
  return hidden * static_cast<double>(a.head_dim) * (2 * heads + 2 * kv);
}

double products(const Mla& a, double hidden) {
  const double heads = static_cast<double>(a.num_attention_heads);
  const double q = heads * static_cast<double>(a.qk_nope_head_dim + a.qk_rope_head_dim);
  const double rank = static_cast<double>(a.q_lora_rank), kv_rank = static_cast<double>(a.kv_lora_rank);
  const double value = heads * static_cast<double>(a.v_head_dim);
  const double query = a.q_lora_rank > 0 ? hidden * rank + rank * q : hidden * q;
  const double key_value = hidden * (kv_rank + static_cast<double>(a.qk_rope_head_dim)) +
                           kv_rank * (heads * static_cast<double>(a.qk_nope_head_dim) + value);
  return query + key_value + value * hidden;
}

double products(const Mlp& m, double hidden) {
  return (m.gated ? 3 : 2) * hidden * static_cast<double>(m.intermediate_size);
}

double products(const Moe& m, double hidden) {
  return hidden * (static_cast<double>(m.router.num_experts) +
                   3 * static_cast<double>(m.router.num_experts_per_tok * m.moe_intermediate_size) +
                   3 * static_cast<double>(m.shared_expert_intermediate_size));
}

/// What kernels do may be less or more: cheaper forms of the error, products with an anchor.
double products(const ReconstructionMoe& m, double hidden) {
  const ErrorRouterSpec& r = m.router;
  const double encoders = hidden * static_cast<double>(r.num_experts * r.bottleneck);
  if (m.output == ExpertOutput::reconstruction) {
    return encoders + hidden * static_cast<double>(r.slots() * r.bottleneck);
  }
  return encoders + (m.gated ? 3 : 2) * hidden * static_cast<double>(r.slots() * m.intermediate_size);
}

}  // namespace

double products_per_token(const ModelSpec& spec) {
  double sum = 0;
  for (const BlockSpec& block : spec.blocks) {
    sum += std::visit([&](const auto& mixer) { return products(mixer, static_cast<double>(spec.hidden_size)); },
                      block.mixer);
  }
  return sum;
}

}  // namespace kedge
