// Writes the shards of a quantized checkpoint: quantized modules, replaced tensors, and what stays as it was.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "io/checkpoint_writer.h"
#include "ptq/layers/layer_store.h"
#include "ptq/module_error.h"
#include "ptq/plan.h"
#include "ptq/recipe.h"

namespace kedge {

struct ShardWriting {
  const Checkpoint& checkpoint;
  const QuantPlan& plan;
  const Recipe& recipe;
  CheckpointWriter& writer;
  ThreadPool& threads;
  const LayerStore* store = nullptr;  ///< results of the calibrated pass; null: all modules are quantized here
};

struct ShardsWritten {
  std::vector<ModuleError> errors;  ///< [modules of the plan]
  std::int64_t resumed = 0;         ///< shards that an earlier run finished
};

/// Writes what is not done. Leaves scratch files (scratch_files) that must go once the checkpoint is complete.
ShardsWritten write_shards(const ShardWriting& writing);
/// Names in the writer's folder.
std::vector<std::string> scratch_files(const QuantPlan& plan, const LayerStore* store, int num_layers);

}  // namespace kedge
