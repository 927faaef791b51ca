// The kind "lm": a decoder on texts.
#pragma once

#include "kedge/train.h"

namespace kedge::training {

TrainReport train_language_model(const TrainOptions& options);

}  // namespace kedge::training
