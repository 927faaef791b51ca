// The methods that tune a layer by gradients, for quantize() (kedge/quantize.h). No libtorch in this header.
//
// Determinism: the same recipe, data and device give the same bits; on a CPU with the same number of threads, since
// libtorch's products split their sums by threads.
#pragma once

#include <memory>

#include "ptq/layers/layer.h"

namespace kedge {

std::unique_ptr<LayerTunerFactory> make_twin_tuners();

}  // namespace kedge
