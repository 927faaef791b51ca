#include "ptq/methods.h"

#include <string>

#include "kedge/error.h"
#include "ptq/methods/awq.h"
#include "ptq/methods/gptq.h"
#include "ptq/methods/kedge.h"
#include "ptq/methods/rtn.h"

namespace kedge {
namespace {

constexpr QuantMethod kMethods[] = {
    {"rtn", "round to nearest; needs no data", MethodNeeds::nothing, true, false, rtn, nullptr, false,
     true},
    {"rtn-mse", "round to nearest, scales clipped for the least squared error", MethodNeeds::nothing, true, false,
     rtn_mse, nullptr, false, true},
    {"awq", "round to nearest after scales for large inputs, folded into what comes before", MethodNeeds::calibration,
     true, false, awq, awq_fold},
    {"gptq", "rounding with error feedback on the inputs' Hessian", MethodNeeds::calibration, false, false, gptq,
     nullptr, false, true, true},
    {"gptaq", "GPTQ that matches the original's outputs from the quantized path's inputs", MethodNeeds::calibration,
     false, true, gptaq, nullptr, false, false, true},
    {"kedge", "error feedback over inputs and outputs, away from what later routers read, and the router refit",
     MethodNeeds::calibration, false, true, round_for_routing, nullptr, true, true, true},
    {"autoround", "rounding and clipping of a whole layer tuned by the signs of gradients", MethodNeeds::torch, false,
     false, nullptr},
    {"topk-mse", "autoround with the error of the router's K largest logits (as EAC-MoE)", MethodNeeds::torch, false,
     false, nullptr},
    {"eaquant-kl", "autoround with the divergence of the router's K largest probabilities (as EAQuant)",
     MethodNeeds::torch, false, false, nullptr},
    {"vsraq", "autoround with the values, order and top-k boundary of this router and the next (VSRAQ-style)",
     MethodNeeds::torch, false, false, nullptr},
};

}  // namespace

std::span<const QuantMethod> quant_methods() noexcept { return kMethods; }

const QuantMethod& find_quant_method(std::string_view name) {
  std::string known;
  for (const QuantMethod& method : kMethods) {
    if (name == method.name) return method;
    known += (known.empty() ? "" : ", ") + std::string(method.name);
  }
  throw Error(ErrorCode::usage, "there is no quantization method \"" + std::string(name) + "\"", "one of " + known);
}

}  // namespace kedge
