#include "base/exec.h"

#include <string>

#include "kedge/error.h"

namespace kedge {

const char* numerics_name(Numerics numerics) noexcept {
  return numerics == Numerics::consistent ? "consistent" : "fast";
}

const char* activations_name(Activations activations) noexcept {
  return activations == Activations::fp32 ? "fp32" : "int8";
}

Numerics parse_numerics(std::string_view name) {
  for (Numerics numerics : {Numerics::consistent, Numerics::fast}) {
    if (name == numerics_name(numerics)) return numerics;
  }
  throw Error(ErrorCode::usage, "unknown numerics \"" + std::string(name) + "\"", "consistent or fast");
}

Activations parse_activations(std::string_view name) {
  for (Activations activations : {Activations::fp32, Activations::int8}) {
    if (name == activations_name(activations)) return activations;
  }
  throw Error(ErrorCode::usage, "unknown activations \"" + std::string(name) + "\"", "fp32 or int8");
}

}  // namespace kedge
