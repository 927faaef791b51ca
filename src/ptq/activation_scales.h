// Static scales of int8 inputs: from the values that a linear's input takes on calibration images, batch by batch,
//   scale = a / 127, so that q = round(x / scale) reaches +-127 at |x| = a.
//
//   min-max         a = max |x|
//   moving-average  the batches' minima and maxima each averaged, m <- m + 0.01 (new - m) from the first batch's;
//                   a = the larger of the two magnitudes (torch.ao MovingAverageMinMaxObserver)
//   histogram       the a for which the 128 levels of [0, a] lose the least information about |x|: the least
//                   Kullback-Leibler divergence of the levels' histogram from that of the clipped |x|, of 2,048 bins
//                   (S. Migacz, 8-bit inference with TensorRT, GTC 2017). A bin with more than a tenth of all values
//                   is left out: a single value, as a ReLU's 0 or an image's background, which has no spread to lose
//   percentile      a = the 99.99 % quantile of |x|
// Where all values are 0, a = 127.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kedge {

enum class ActivationObserver { min_max, moving_average, histogram, percentile };
const char* observer_name(ActivationObserver observer) noexcept;
/// Error(usage) lists them.
ActivationObserver parse_observer(std::string_view name);
std::vector<std::string> observer_names();

/// Finite values, none of the batches empty.
using ActivationBatches = std::vector<std::vector<float>>;

float static_scale(const ActivationBatches& batches, ActivationObserver observer);

}  // namespace kedge
