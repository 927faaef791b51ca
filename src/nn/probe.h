// Observation of a forward pass. Always compiled in; null in ordinary use.
//
// Rows are tokens in batch order: the segments of a Batch one after the other (model/decoder.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace kedge {

/// Routing of T tokens in one MoE layer. Slots are in descending order of selection score.
struct RoutingDecision {
  std::int64_t tokens = 0, num_experts = 0, top_k = 0;
  std::span<const std::int32_t> expert_ids;  ///< [T, k]
  std::span<const float> weights;            ///< [T, k], as applied (normalised and scaled as the family does)
  std::span<const float> logits;             ///< [T, E], the router's raw output, fp32
  std::span<const float> scores;             ///< [T, E], what selection ranks: logits for softmax routers,
                                             ///< sigmoid + bias (masked groups -inf) for DeepSeek-V3's
  std::span<const float> errors;             ///< [T, E] of routing by reconstruction error; else empty
  std::span<const float> residual_norms;     ///< [T] ||x - y||, y the layer's output; empty as errors, or if not run
};

enum class Site : unsigned {
  hidden_state = 1,  ///< input of the first block, output of each layer; the last is after the final norm
  routing = 2,
  moe_input = 4,            ///< the normed input of a MoE layer [T, H]
  expert_intermediate = 8,  ///< h of moe_ffn [P, I] in permutation order
  logits = 16,
  linear_input =
      32,  ///< x of every Linear (attention, MLP, shared expert, router, lm_head), of experts only a Classifier's
};

class ForwardProbe {
 public:
  virtual ~ForwardProbe() = default;
  /// Called once per forward pass; a bitwise or of Site.
  virtual unsigned sites() const noexcept = 0;
  bool wants(Site site) const noexcept { return (sites() & static_cast<unsigned>(site)) != 0; }
  /// Whether the pass is run for this probe's sake alone, which has seen all that it wants once `sites` (of Site, or 0)
  /// are reported too. A block may then leave out the rest; what it computes is undefined. Default: never.
  virtual bool complete_after(unsigned sites) const noexcept;
  /// index: 0 = embeddings, i = output of layer i - 1, num_layers = after the final norm (as
  /// transformers' output_hidden_states). x: [T, H].
  virtual void hidden_state(int index, std::int64_t tokens, std::int64_t hidden_size, const float* x);
  virtual void routing(int layer, const RoutingDecision& decision);
  virtual void moe_input(int layer, std::int64_t tokens, std::int64_t hidden_size, const float* x);
  virtual void expert_intermediate(int layer, std::span<const std::int32_t> offsets, std::int64_t size, const float* h);
  /// module: canonical name ("model.layers.0.self_attn.q_proj"). x: [rows, size], rows ld apart. Linears that share an
  /// input are reported one after the other with the same x.
  virtual void linear_input(std::string_view module, std::int64_t rows, std::int64_t size, const float* x,
                            std::int64_t ld);
  /// Rows for which logits were computed. [rows, vocab]
  virtual void logits(std::int64_t rows, std::int64_t vocab, const float* x);
};

inline bool is_complete(const ForwardProbe* probe) noexcept { return probe != nullptr && probe->complete_after(0); }

}  // namespace kedge
