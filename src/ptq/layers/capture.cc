#include "ptq/layers/capture.h"

#include <algorithm>
#include <utility>

namespace kedge {
namespace {

void keep(Capture::Rows& to, std::int64_t rows, std::int64_t size, const float* x) {
  to.rows = rows;
  to.size = size;
  to.values.assign(x, x + rows * size);
}

}  // namespace

Capture::Capture(std::set<std::string, std::less<>> linears, unsigned sites, Pass pass)
    : linears_(std::move(linears)), sites_(sites), pass_(pass) {
  if (!linears_.empty()) sites_ |= static_cast<unsigned>(Site::linear_input);
}

bool Capture::complete_after(unsigned sites) const noexcept {
  return pass_ == Pass::until_complete && (sites_ & ~(seen_ | sites)) == 0;
}

void Capture::linear_input(std::string_view module, std::int64_t rows, std::int64_t size, const float* x,
                           std::int64_t ld) {
  const auto at = linears_.find(module);
  if (at == linears_.end()) return;
  Rows& to = inputs[*at];
  to.rows = rows;
  to.size = size;
  to.values.resize(static_cast<std::size_t>(rows * size));
  for (std::int64_t r = 0; r < rows; ++r) std::copy(x + r * ld, x + r * ld + size, to.values.data() + r * size);
  if (inputs.size() == linears_.size()) seen_ |= static_cast<unsigned>(Site::linear_input);
}

void Capture::moe_input(int, std::int64_t tokens, std::int64_t hidden_size, const float* x) {
  keep(moe, tokens, hidden_size, x);
  seen_ |= static_cast<unsigned>(Site::moe_input);
}

void Capture::routing(int, const RoutingDecision& d) {
  keep(logits, d.tokens, d.num_experts, d.logits.data());
  keep(scores, d.tokens, d.num_experts, d.scores.data());
  expert_ids.assign(d.expert_ids.begin(), d.expert_ids.end());
  expert_weights.assign(d.weights.begin(), d.weights.end());
  seen_ |= static_cast<unsigned>(Site::routing);
}

void Capture::expert_intermediate(int, std::span<const std::int32_t> pair_offsets, std::int64_t size, const float* h) {
  keep(intermediate, pair_offsets.back(), size, h);
  offsets.assign(pair_offsets.begin(), pair_offsets.end());
  seen_ |= static_cast<unsigned>(Site::expert_intermediate);
}

}  // namespace kedge
