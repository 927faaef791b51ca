// The plan of a quantized checkpoint: which tensors it will hold, in which shards, before any weight is read.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/checkpoint_writer.h"
#include "model/family.h"
#include "ptq/mixed_precision.h"
#include "ptq/recipe.h"

namespace kedge {

/// A matrix of the model and what becomes of it.
struct PlannedModule {
  LinearRef linear;
  std::optional<QuantArgs> args;  ///< nullopt: copied bit for bit
  std::optional<SharedAnchor> anchor = {};  ///< of an expert's matrix that is part of a stack; args are its delta's
  DType dtype = DType::bf16;      ///< of the source's weight
  std::optional<DType> scales;    ///< type of the stored scales; nullopt: the weight's
  bool channel_fallback = false;  ///< cols is no multiple of the recipe's group (no anchor then either)
  std::uint64_t source_bytes = 0, output_bytes = 0;

  DType scale_dtype() const noexcept { return scales.value_or(dtype == DType::f64 ? DType::f32 : dtype); }
  std::string scheme() const {
    if (anchor) return scheme_name(*args, *anchor);
    return args ? scheme_name(*args) : "none";
  }
};

/// One projection of all experts of a layer, on a shared anchor.
struct PlannedStack {
  std::string name;  ///< stack_name() of its modules
  int layer = 0;
  StackShape shape;
  std::vector<std::size_t> modules;  ///< [E] indices into QuantPlan::modules
};

struct QuantPlan {
  std::vector<PlannedModule> modules;            ///< in execution order
  std::vector<PlannedStack> stacks;              ///< of a scheme with an anchor, by layer
  std::vector<TensorInfo> copies;                ///< all tensors that are no module's weight
  std::vector<ShardPlan> shards;                 ///< whole layers each
  std::map<std::string, std::size_t> module_of;  ///< output tensor -> index into modules
  std::uint64_t output_bytes = 0;
  std::vector<QuantizeAllocation> allocation;    ///< of mixed precision

  /// Distinct schemes in use by matrices of their own with their modules; the recipe's own first.
  std::vector<std::pair<QuantArgs, std::vector<std::size_t>>> schemes(const QuantArgs& first) const;
};

/// Reads no weights. Error(usage): an override that matches no matrix. Error(unsupported): a weight whose dtype is
/// not a float, or a recipe that quantizes nothing. Error(usage): a scheme with an anchor for a model without experts
/// whose rows its group divides (others are stored by themselves), or for a part of a layer's experts.
/// allocation: of mixed precision, in place of the recipe's scheme; overrides win over it.
QuantPlan plan_quantization(const Checkpoint& checkpoint, const Recipe& recipe, std::uint64_t max_shard_bytes,
                            const Allocation* allocation = nullptr);

/// quantization_config's lists of names: numbers in names become \d+ where no name of `others` would match too; else all
/// numbers but the first, the layer's.
std::vector<std::string> compact_names(const std::vector<std::string>& names, const std::vector<std::string>& others);

}  // namespace kedge
