// verify() with tracks of one's own: what tests run.
#pragma once

#include <span>

#include "claims/tracks.h"
#include "kedge/verify.h"

namespace kedge {

VerifyReport verify_with(const VerifyOptions& options, LayerTunerFactory* tuners, std::span<const TrackRow> rows);

}  // namespace kedge
