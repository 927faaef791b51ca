// From the runs of an ablation to its tables: means over seeds, paired comparisons, correlations over layers.
#pragma once

#include <span>
#include <vector>

#include "kedge/ablate.h"

namespace kedge {

/// exp(mean of ln(x_i / base_i)) - 1 over pairs, with the Student-t 95 % interval of the logarithms; NaN without pairs
/// or where a value is not positive (a ratio to nothing).
AblationValue paired_relative_change(std::span<const double> x, std::span<const double> base);

/// Fills report.tables and report.mechanisms from report.runs, .methods, .seeds and .baseline.
void summarize_ablation(AblationReport& report);

}  // namespace kedge
