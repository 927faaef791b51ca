// parse_idx on arbitrary bytes: it accepts or throws Error; what it accepts covers the file exactly.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "io/idx.h"
#include "kedge/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  try {
    const kedge::IdxView view = kedge::parse_idx(file, "fuzz");
    if (view.shape.empty() || view.elements.size() != static_cast<std::size_t>(kedge::num_elements(view.shape)) ||
        view.elements.data() + view.elements.size() != file.data() + file.size()) {
      std::abort();
    }
  } catch (const kedge::Error&) {
  }
  return 0;
}
