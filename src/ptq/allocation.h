// Bits per unit by sensitivity (ptq/sensitivity.h) within a budget (ptq/knapsack.h).
#pragma once

#include <filesystem>

#include "base/thread_pool.h"
#include "ptq/calibration_data.h"
#include "ptq/mixed_precision.h"
#include "ptq/plan.h"

namespace kedge {

/// The same checkpoint, recipe and data give the same allocation. Error(usage): the target is below what the narrowest
/// width takes.
Allocation allocate_bits(const Checkpoint& checkpoint, const Recipe& recipe, const CalibrationData& data,
                         const std::filesystem::path& cache_dir, ThreadPool& threads);

}  // namespace kedge
