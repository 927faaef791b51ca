// The kind "mnist": a classifier of model/classifier.h, trained on the training images alone.
#pragma once

#include "comm/communicator.h"
#include "kedge/train.h"

namespace kedge::training {

/// Errors as train()'s. The test images are read and answered once, by the engine, when the model is written.
/// Error(usage) for several ranks.
TrainReport train_mnist(const TrainOptions& options, Communicator* ranks);

}  // namespace kedge::training
