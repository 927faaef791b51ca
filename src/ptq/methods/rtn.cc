#include "ptq/methods/rtn.h"

namespace kedge {

QuantTensor rtn(const MethodInput& input) {
  ScaleSearch search;
  search.method = input.parameters->scale_search;
  return quantize_rtn(input.weights, input.rows, input.cols, input.args, input.scale_dtype, search);
}

QuantTensor rtn_mse(const MethodInput& input) {
  ScaleSearch search;
  search.method = ScaleMethod::mse;
  return quantize_rtn(input.weights, input.rows, input.cols, input.args, input.scale_dtype, search);
}

}  // namespace kedge
