// Small specs for this folder's tests: one layer (attention or latent attention, then a dense or MoE FFN), and every
// field's change.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/spec.h"

namespace kedge::twin::testing {

struct NamedSpec {
  std::string name;
  ModelSpec spec;
};

/// Attention or Mla with each rope, Mlp or Moe with each router.
std::vector<NamedSpec> base_specs(std::uint64_t seed);

/// Changes one field; false: the field means nothing in this spec.
struct Mutation {
  std::string name;
  std::function<bool(ModelSpec&)> apply;
};

/// One or more for every field of BlockSpec, Attention, Mla, RopeSpec, Mlp, Moe and RouterSpec.
std::vector<Mutation> mutations();

}  // namespace kedge::twin::testing
