#include "twin/options.h"

#include <charconv>
#include <cstdlib>
#include <string>

#include <ATen/Context.h>

#include "kedge/error.h"

namespace kedge::twin {

at::Device parse_device(std::string_view name) {
  const bool has_cuda = at::hasCUDA();
  if (name == "cpu") return at::kCPU;
  if (name == "auto") return has_cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  int index = 0;
  if (name.starts_with("cuda:")) {
    const std::string_view digits = name.substr(5);
    const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (failed != std::errc() || end != digits.data() + digits.size() || index < 0) name = "";
  } else if (name != "cuda") {
    name = "";
  }
  if (name.empty()) {
    throw Error(ErrorCode::usage, "there is no such device", "cpu, cuda, cuda:N or auto");
  }
  const int devices = has_cuda ? static_cast<int>(at::getNumGPUs()) : 0;
  if (index >= devices) {
    throw Error(ErrorCode::unsupported, "libtorch sees no GPU " + std::to_string(index),
                devices == 0 ? "the device cpu" : "a number below " + std::to_string(devices));
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

void prefer_repeatable_kernels(const at::Device& device) {
  if (device.is_cpu()) return;
  // What cuBLAS wants for that, read when its first handle is made.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  // Not "warn only": then attention keeps its gradients that add in any order.
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

}  // namespace kedge::twin
