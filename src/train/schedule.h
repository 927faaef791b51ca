// The learning rate over the steps: a linear rise, then a fall.
//
//   t <= W:  lr t / W
//   t >  W:  lr (r + (1 - r) f(p)), p = (t - W) / (T - W); f: (1 + cos(pi p)) / 2, 1 - p, or 1
// t from 1 to T; W = round(warmup_ratio T), r = min_lr_ratio.
#pragma once

#include <cstdint>
#include <string_view>

namespace kedge::training {

enum class Decay { cosine, linear, constant };
/// Error(usage) lists what there is.
Decay parse_decay(std::string_view name);

struct Schedule {
  double lr = 1e-3, min_lr_ratio = 0.1, warmup_ratio = 0.05;
  std::int64_t steps = 1;
  Decay decay = Decay::cosine;
  double at(std::int64_t step) const noexcept;
};

}  // namespace kedge::training
