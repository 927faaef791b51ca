// Router refit: keep the router in high precision, but solve it anew for the inputs that it sees after quantization.
//
//   W'_e = W_e + (sum_t w_te h_t h_t^T + lambda I)^-1 sum_t w_te h_t (z_te - W_e h_t)
// h: the router's input on the quantized path, z: the original path's logits, both logits centred per token for softmax
// routers (a constant added to all logits changes no choice). lambda = ridge times the mean of the Gram's diagonal.
// Weighting `boundary`: w_te = exp(-|s_te - b_t| / tau), s the original's selection score, b_t the middle between the
// k-th and the (k+1)-th, tau = tau_margins times the mean margin between them; `none`: w = 1 and one Gram for all
// experts. A closed form, no gradients, nothing to pay at run time. Our own (ridge regression, weighted).
#pragma once

#include <cstdint>

#include "ptq/layers/layer.h"
#include "ptq/layers/layer_pass.h"
#include "ptq/layers/overlay_source.h"

namespace kedge {

struct RefitReport {
  double agreement_before = 0;  ///< mean share of the original's experts chosen, on the calibration data
  double agreement_after = 0;
  double error_before = 0;      ///< weighted RMS difference of the (centred) logits
  double error_after = 0;
};

/// Refits the router of MoE block `block` into the overlay. states: the block's input on either path. The new weight is
/// rounded to the dtype that the file has for it. Where the fit would lower the agreement the router stays as it was.
RefitReport refit_router(const LayerInput& input, LayerPass& pass, OverlaySource& overlay, std::size_t block,
                         const HiddenStates& original, const HiddenStates& quantized);

}  // namespace kedge
