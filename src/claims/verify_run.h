// verify() with tracks of one's own: what tests run.
#pragma once

#include <span>

#include "claims/tracks.h"
#include "kedge/verify.h"

namespace kedge {

/// What kedge-torch has.
struct TorchTracks {
  LayerTunerFactory* tuners = nullptr;
  TrainFunction train = nullptr;
};
VerifyReport verify_with(const VerifyOptions& options, const TorchTracks& torch, std::span<const TrackRow> rows);

}  // namespace kedge
