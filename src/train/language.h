// The kind "lm": a decoder on texts.
#pragma once

#include "comm/communicator.h"
#include "kedge/train.h"

namespace kedge::training {

/// ranks: share the sequences of each step; rank 0 writes. null: one rank.
TrainReport train_language_model(const TrainOptions& options, Communicator* ranks);

}  // namespace kedge::training
