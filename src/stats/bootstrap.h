// Bootstrap replicates of any statistic, and Holm's correction for several claims tested together.
//
// Replicate r: as many units as there are, drawn with replacement; its value is the statistic of them (Efron and
// Tibshirani, An Introduction to the Bootstrap, chapter 6; percentile interval 13.3). The same arguments give the same
// bits.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "stats/correlation.h"

namespace kedge {

/// statistic: of the units with these indices (0 .. units - 1, some of them several times). Replicates in the order in
/// which they were drawn; NaN where the statistic is. No units: none.
std::vector<double> bootstrap_replicates(std::size_t units,
                                         const std::function<double(std::span<const std::size_t>)>& statistic,
                                         const BootstrapOptions& options = {});

/// Adjusted p values in the order given: the i-th smallest (i from 0) of m is multiplied by m - i, never below one
/// before it, at most 1 (Holm 1979, Scandinavian Journal of Statistics 6).
std::vector<double> holm_adjusted(std::span<const double> p_values);

}  // namespace kedge
