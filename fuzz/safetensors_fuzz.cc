// parse_safetensors on arbitrary bytes: it accepts or throws Error; what it accepts covers the file exactly.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "io/safetensors.h"
#include "kedge/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  try {
    const kedge::SafetensorsHeader header = kedge::parse_safetensors(file, "fuzz");
    std::uint64_t end = 0;
    for (const kedge::TensorInfo& tensor : header.tensors) {
      const kedge::TensorView view{tensor.dtype, tensor.shape, nullptr};
      if (tensor.begin != end || view.num_bytes() != tensor.end - tensor.begin) std::abort();
      end = tensor.end;
    }
    if (header.data_begin + end != size) std::abort();
  } catch (const kedge::Error&) {
  }
  return 0;
}
