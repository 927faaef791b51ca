// The stacks of a plan without calibration: layer by layer into the store, by a method that needs no data.
#pragma once

#include "base/thread_pool.h"
#include "ptq/layers/layer_store.h"
#include "ptq/recipe.h"

namespace kedge {

/// Layers that the store has already are left as they are.
void fit_stacks(const Checkpoint& checkpoint, const QuantPlan& plan, const Recipe& recipe, ThreadPool& threads,
                LayerStore& store);

}  // namespace kedge
