// Round to nearest: each weight to the closest code of its group's scale.
#pragma once

#include "ptq/methods.h"

namespace kedge {

/// Scales from the group's extremes.
QuantTensor rtn(const MethodInput& input);
/// Scales clipped for the least squared error of the group (quant/scale_search.h).
QuantTensor rtn_mse(const MethodInput& input);

}  // namespace kedge
