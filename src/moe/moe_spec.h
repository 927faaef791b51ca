// A MoE mixer as data.
#pragma once

#include <cstdint>

#include "kernels/moe_ffn/moe_ffn.h"
#include "moe/router.h"

namespace kedge {

struct Moe {
  RouterSpec router;
  std::int64_t moe_intermediate_size = 0;
  FfnActivation hidden_act = FfnActivation::silu;
  std::int64_t shared_expert_intermediate_size = 0;  ///< 0: none. Added without a gate.
};

}  // namespace kedge
