// How a model is loaded and computed: the fields shared by every trip that runs a model.
#pragma once

#include <string>

namespace kedge {

struct RuntimeOptions {
  int threads = 0;           ///< 0: one per CPU that this process may use
  std::string isa = "auto";  ///< "auto" (the widest this machine has), "scalar", "avx2", "avx512", "avx512-vnni"
  std::string numerics = "consistent";  ///< "consistent" (same bits on any machine) or "fast"
  std::string activations = "fp32";     ///< what matrix products of quantized weights read: "fp32" or "int8"
};

}  // namespace kedge
