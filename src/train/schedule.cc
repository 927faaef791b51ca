#include "train/schedule.h"

#include <cmath>
#include <numbers>
#include <string>

#include "kedge/error.h"

namespace kedge::training {

Decay parse_decay(std::string_view name) {
  if (name == "cosine") return Decay::cosine;
  if (name == "linear") return Decay::linear;
  if (name == "constant") return Decay::constant;
  throw Error(ErrorCode::usage, "there is no schedule \"" + std::string(name) + "\"", "cosine, linear or constant");
}

double Schedule::at(std::int64_t step) const noexcept {
  const auto warmup = static_cast<std::int64_t>(std::llround(warmup_ratio * static_cast<double>(steps)));
  if (step <= warmup) return lr * static_cast<double>(step) / static_cast<double>(warmup);
  const double part = static_cast<double>(step - warmup) / static_cast<double>(steps - warmup);
  double fall = 1;
  if (decay == Decay::cosine) fall = (1 + std::cos(std::numbers::pi * part)) / 2;
  if (decay == Decay::linear) fall = 1 - part;
  return lr * (min_lr_ratio + (1 - min_lr_ratio) * fall);
}

}  // namespace kedge::training
