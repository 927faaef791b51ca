// RoutingTrace: what the routers of a model chose on a text, kept for comparison.
//
// On disk: safetensors, tensor names and shapes as transformers' goldens have them (docs/formats/routing-trace.md):
// input_ids [S, L] i32 (when all sequences have one length; else [T]), per MoE layer l router_logits.l [T, E] f32,
// topk_ids.l [T, k] i32, topk_weights.l [T, k] f32, selection_scores.l [T, E] f32 (sigmoid routers),
// of layers routed by reconstruction error all_errors.l [T, E] f32 and residual_norm.l [T] f32,
// sequence_offsets [S + 1] i64, positions [T] i64, phase [T] u8 (0 prefill, 1 decode); optionally logits and
// hidden_states.i. Rows are in batch-major order: sequence 0, then sequence 1, ...
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "moe/router.h"
#include "tensor/tensor.h"

namespace kedge {

enum class Phase : std::uint8_t { prefill = 0, decode = 1 };

struct LayerTrace {
  int layer = 0;
  RouterSpec router;
  std::vector<std::int32_t> expert_ids;  ///< [T, k], slots by descending score
  std::vector<float> weights;            ///< [T, k]
  std::vector<float> logits;             ///< [T, E]
  std::vector<float> scores;             ///< [T, E]: what selection ranked
  std::vector<float> errors;             ///< [T, E] of routing by reconstruction error; else empty
  std::vector<float> residual_norms;     ///< [T] ||x - y||; empty as errors, or where no expert ran

  std::int64_t tokens() const noexcept {
    return router.num_experts_per_tok == 0 ? 0
                                           : static_cast<std::int64_t>(expert_ids.size()) / router.num_experts_per_tok;
  }
};

struct RoutingTrace {
  std::vector<std::int32_t> token_ids;         ///< [T]
  std::vector<std::int64_t> sequence_offsets;  ///< [S + 1]
  std::vector<std::int64_t> positions;         ///< [T], within the sequence
  std::vector<Phase> phase;                    ///< [T]
  std::vector<LayerTrace> layers;              ///< ascending by layer
  std::map<std::string, Tensor> extra;         ///< logits, hidden_states.i

  std::int64_t tokens() const noexcept { return static_cast<std::int64_t>(token_ids.size()); }
  std::int64_t sequences() const noexcept { return static_cast<std::int64_t>(sequence_offsets.size()) - 1; }
};

/// metadata: the caller's provenance; the key "routers" is the trace's own.
void save_trace(const RoutingTrace& trace, const std::filesystem::path& path,
                const std::map<std::string, std::string>& metadata);
/// Error(bad_file) for a tensor that is missing, of the wrong type or shape, or holds an expert that does not exist.
RoutingTrace load_trace(const std::filesystem::path& path);

}  // namespace kedge
