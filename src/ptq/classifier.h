// kedge quantize for the classifiers of model/classifier.h: round to nearest of all matrices but the router's.
//
// w8a8-static: the fp32 network answers calibration_images training images, chosen by the seed, 64 at a time; each
// linear's inputs, an expert's from its own images, give its static scale (ptq/activation_scales.h); an expert without
// images takes all of them (expert_fallback "all-tokens", "rtn") or is an error ("error"). The test images are not read. Biases and the router stay as they are.
#pragma once

#include "io/idx.h"
#include "kedge/quantize.h"
#include "ptq/activation_scales.h"

namespace kedge {

/// Errors as quantize()'s; Error(usage) for options that only language models have; Error(mismatch): an expert meets
/// none of the calibration images and expert_fallback is "error".
QuantizeReport quantize_classifier(const QuantizeOptions& options);

}  // namespace kedge
