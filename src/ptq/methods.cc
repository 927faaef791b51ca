#include "ptq/methods.h"

#include <string>

#include "kedge/error.h"
#include "ptq/methods/rtn.h"

namespace kedge {
namespace {

constexpr QuantMethod kMethods[] = {
    {"rtn", "round to nearest; needs no data", MethodNeeds::nothing, true, rtn},
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
