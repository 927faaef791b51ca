// Round to nearest: each group's scale from its extremes (quant/quant_tensor.h), each weight to the closest code.
#pragma once

#include "ptq/methods.h"

namespace kedge {

QuantTensor rtn(const MethodInput& input);

}  // namespace kedge
