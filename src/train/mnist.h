// The kind "mnist": a classifier of model/classifier.h, trained on the training images alone.
#pragma once

#include "kedge/train.h"

namespace kedge::training {

/// Errors as train()'s. The test images are read and answered once, by the engine, when the model is written.
TrainReport train_mnist(const TrainOptions& options);

}  // namespace kedge::training
