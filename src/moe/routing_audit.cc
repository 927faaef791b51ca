#include "moe/routing_audit.h"

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "kernels/reduce/reduce.h"
#include "kernels/vec/math.h"

namespace kedge {
namespace {

constexpr double kLn2 = 0.6931471805599453;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

template <class T>
Json rows_json(const std::vector<T>& values, std::int64_t size) {
  Json rows = Json::array();
  for (auto at = values.begin(); size > 0 && at != values.end(); at += size)
    rows.push_back(Json(std::vector<T>(at, at + size)));
  return rows;
}

}  // namespace

double load_entropy_bits(std::span<const std::int64_t> counts) noexcept {
  double sum = 0, entropy = 0;
  for (const std::int64_t count : counts) sum += static_cast<double>(count);
  for (const std::int64_t count : counts) {
    if (count <= 0) continue;
    const double p = static_cast<double>(count) / sum;
    entropy -= p * math::log(p);
  }
  return entropy / kLn2;
}

RoutingAudit audit_batch(const RoutedBatch& batch, Isa isa) {
  RoutingAudit audit;
  audit.tokens = batch.tokens;
  audit.num_experts = batch.num_experts;
  audit.slots = batch.slots;
  const std::int64_t pairs = batch.tokens * batch.slots;
  audit.token_experts.assign(batch.expert_ids, batch.expert_ids + pairs);
  audit.token_weights.assign(batch.weights, batch.weights + pairs);
  audit.all_errors.assign(batch.errors, batch.errors + batch.tokens * batch.num_experts);
  audit.expert_counts.assign(index(batch.num_experts), 0);
  for (const std::int32_t id : audit.token_experts) ++audit.expert_counts[index(id)];

  const auto& counts = audit.expert_counts;
  audit.most_used = static_cast<std::int32_t>(std::max_element(counts.begin(), counts.end()) - counts.begin());
  audit.least_used = static_cast<std::int32_t>(std::min_element(counts.begin(), counts.end()) - counts.begin());
  for (std::int64_t e = 0; e < batch.num_experts; ++e) {
    if (counts[index(e)] == 0) audit.dead_experts.push_back(static_cast<std::int32_t>(e));
  }
  audit.load_entropy_bits = load_entropy_bits(counts);
  audit.max_entropy_bits = math::log(static_cast<double>(batch.num_experts)) / kLn2;

  double sum = 0;
  const ReduceKernels& reduce = reduce_kernels(isa);
  for (std::int64_t t = 0; t < batch.tokens; ++t) {
    const std::int64_t at = t * batch.width;
    const float norm = std::sqrt(reduce.squared_distance(batch.x + at, batch.y + at, batch.width));
    audit.residual_norms.push_back(norm);
    sum += norm;
    if (norm > audit.max_residual_norm || norm != norm) audit.max_residual_norm = norm;
  }
  audit.mean_residual_norm = batch.tokens > 0 ? sum / static_cast<double>(batch.tokens) : 0;
  return audit;
}

nlohmann::ordered_json to_json(const RoutingAudit& audit) {
  return Json{{"schema", "kedge.routing-audit/1"},
              {"tokens", audit.tokens},
              {"num_experts", audit.num_experts},
              {"experts_per_token", audit.slots},
              {"expert_counts", audit.expert_counts},
              {"load_entropy_bits", audit.load_entropy_bits},
              {"max_entropy_bits", audit.max_entropy_bits},
              {"most_used", audit.most_used},
              {"least_used", audit.least_used},
              {"dead_experts", audit.dead_experts},
              {"mean_residual_norm", audit.mean_residual_norm},
              {"max_residual_norm", audit.max_residual_norm},
              {"token_experts", rows_json(audit.token_experts, audit.slots)},
              {"token_weights", rows_json(audit.token_weights, audit.slots)},
              {"all_errors", rows_json(audit.all_errors, audit.num_experts)},
              {"residual_norms", audit.residual_norms}};
}

}  // namespace kedge
