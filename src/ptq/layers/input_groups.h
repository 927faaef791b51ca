// Which linears of a block read the same input, and in which order these inputs come to be.
//
// The inputs of one wave depend on the weights of earlier waves alone, so a wave is observed in one pass and quantized
// before the next is observed (GPTQ's true-sequential order): q, k, v; then o; gate and up; then down.
#pragma once

#include <string>
#include <vector>

#include "ptq/plan.h"

namespace kedge {

/// Modules that read the same rows.
struct InputGroup {
  enum class Kind {
    linear,               ///< the input of a Linear, seen under the name `observed`
    moe,                  ///< all tokens of the MoE layer (shared expert)
    expert,               ///< the tokens of one expert
    expert_intermediate,  ///< what that expert's down_proj reads
  };
  Kind kind = Kind::linear;
  std::string observed;
  int expert = -1;
  bool writes_residual = false;  ///< the modules' outputs are added to the residual stream
  std::vector<const PlannedModule*> modules;
};

using Wave = std::vector<InputGroup>;

/// The modules of one block that are to be quantized, in waves. modules: of that block's layer.
/// is_attention: those below self_attn, else those below mlp.
std::vector<Wave> input_waves(const std::vector<const PlannedModule*>& modules, bool is_attention);

/// A wave in parts whose statistics (cross: two matrices per group, else one; with_residual: a third of groups that
/// write to the residual stream) take at most `bytes`, or that are one group. Experts of one stack stay together.
std::vector<Wave> parts_of(Wave wave, std::int64_t bytes, bool cross, bool with_residual);

}  // namespace kedge
