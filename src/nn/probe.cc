#include "nn/probe.h"

namespace kedge {

bool ForwardProbe::complete_after(unsigned) const noexcept { return false; }
// A probe overrides the sites that it declares; the others are never called and do nothing.
void ForwardProbe::hidden_state(int, std::int64_t, std::int64_t, const float*) {}
void ForwardProbe::routing(int, const RoutingDecision&) {}
void ForwardProbe::moe_input(int, std::int64_t, std::int64_t, const float*) {}
void ForwardProbe::expert_intermediate(int, std::span<const std::int32_t>, std::int64_t, const float*) {}
void ForwardProbe::linear_input(std::string_view, std::int64_t, std::int64_t, const float*, std::int64_t) {}
void ForwardProbe::logits(std::int64_t, std::int64_t, const float*) {}

}  // namespace kedge
