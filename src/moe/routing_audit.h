// What one batch did to the experts of a layer that routes by reconstruction error: the audit object.
//
//   load entropy = -sum_e p_e log2 p_e, p = counts / their sum (0 log 0 = 0), in bits; at most log2 E
// Least and most used: the lower index of equals; the least used may be dead (a count of 0). Residual norm: ||x - y||
// of a token, y the layer's output.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/cpu.h"

namespace kedge {

struct RoutingAudit {
  std::int64_t tokens = 0, num_experts = 0, slots = 0;
  std::vector<std::int32_t> token_experts;  ///< [T, slots], least error first
  std::vector<float> token_weights;         ///< [T, slots], as applied
  std::vector<float> all_errors;            ///< [T, E]
  std::vector<float> residual_norms;        ///< [T]
  std::vector<std::int64_t> expert_counts;  ///< [E]
  std::vector<std::int32_t> dead_experts;   ///< ascending
  double load_entropy_bits = 0, max_entropy_bits = 0;
  std::int32_t most_used = 0, least_used = 0;
  double mean_residual_norm = 0, max_residual_norm = 0;
};

/// 0 where all counts are 0.
double load_entropy_bits(std::span<const std::int64_t> counts) noexcept;

/// A layer's batch: what was routed, and x, y [T, width].
struct RoutedBatch {
  std::int64_t tokens = 0, num_experts = 0, slots = 0, width = 0;
  const std::int32_t* expert_ids = nullptr;
  const float *weights = nullptr, *errors = nullptr, *x = nullptr, *y = nullptr;
};
RoutingAudit audit_batch(const RoutedBatch& batch, Isa isa);

/// docs/formats/routing-audit.md.
nlohmann::ordered_json to_json(const RoutingAudit& audit);

}  // namespace kedge
