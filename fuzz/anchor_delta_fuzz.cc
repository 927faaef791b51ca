// anchor_delta::read on arbitrary safetensors bytes: it accepts or throws Error; what it accepts decodes.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "io/wire/anchor_delta.h"
#include "kedge/error.h"

namespace {

class MemoryLookup : public kedge::TensorLookup {
 public:
  explicit MemoryLookup(std::string_view file) : file_(file), header_(kedge::parse_safetensors(file, "fuzz")) {}
  std::optional<kedge::TensorView> find(std::string_view name) const override {
    for (const kedge::TensorInfo& tensor : header_.tensors) {
      if (tensor.name != name) continue;
      const char* data = file_.data() + header_.data_begin + tensor.begin;
      return kedge::TensorView{tensor.dtype, tensor.shape, reinterpret_cast<const std::byte*>(data)};
    }
    return std::nullopt;
  }
  const kedge::SafetensorsHeader& header() const { return header_; }

 private:
  std::string_view file_;
  kedge::SafetensorsHeader header_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const MemoryLookup lookup(std::string_view(reinterpret_cast<const char*>(data), size));
    const auto stacks = lookup.header().metadata.find("stacks");
    if (stacks == lookup.header().metadata.end()) return 0;
    const kedge::Json manifests = kedge::parse_json(stacks->second, "fuzz");
    if (!manifests.is_object()) return 0;
    for (const auto& [name, manifest] : manifests.items()) {
      const kedge::AnchorDelta w = kedge::anchor_delta::read(lookup, name, manifest, "fuzz");
      std::vector<float> out(static_cast<std::size_t>(w.rows * w.cols));
      kedge::decode(w, 0, out);
    }
  } catch (const kedge::Error&) {
  }
  return 0;
}
