// A model whose experts share anchors: quantization_config {"quant_method": "kedge", "format": "kedge.anchor-delta/1",
// "scheme", "stacks", "others"} (docs/formats/anchor-delta.md). "others" is compressed-tensors' and says how the
// matrices that are no experts are stored; null: all of them are plain.
#include <map>

#include "base/json.h"
#include "io/wire/anchor_delta.h"
#include "io/wire/formats.h"
#include "kedge/error.h"

namespace kedge {
namespace {

[[noreturn]] void bad(const std::string& what, const std::string& expected) {
  throw Error(ErrorCode::bad_file, what, expected, "get the checkpoint again or quantize it again");
}

class Anchored : public WireFormat {
 public:
  Anchored(const Json& quant, const std::string& where) : where_(where) {
    const auto stacks = quant.find("stacks"), others = quant.find("others");
    if (stacks == quant.end() || !stacks->is_object()) {
      bad(where + ": quantization_config has no \"stacks\"", "a manifest per stack");
    }
    for (const auto& [name, manifest] : stacks->items()) {
      shapes_[name] = anchor_delta::read_shape(manifest, "the manifest of " + name.substr(0, 200) + " in " + where);
      manifests_[name] = manifest;
    }
    suffixes_.assign(std::begin(anchor_delta::kSuffixes), std::end(anchor_delta::kSuffixes));
    if (others == quant.end() || others->is_null()) return;
    if (!others->is_object() || !is_pack_quantized(*others)) {
      bad(where + ": \"others\" of quantization_config is not compressed-tensors' pack-quantized form",
          "such an object, or null");
    }
    others_ = make_pack_quantized(*others, where);
    for (const char* suffix : others_->suffixes()) suffixes_.push_back(suffix);
  }

  const char* name() const noexcept override { return "kedge/anchor-delta"; }
  bool has(const TensorLookup& tensors, std::string_view module) const override {
    return others_ != nullptr && others_->has(tensors, module);
  }
  QuantArgs args(const TensorLookup& tensors, std::string_view module) const override {
    return others_->args(tensors, module);
  }
  QuantTensor read(const TensorLookup& tensors, std::string_view module) const override {
    return others_->read(tensors, module);
  }
  std::span<const char* const> suffixes() const noexcept override { return suffixes_; }
  std::optional<StackShape> stack_shape(std::string_view stack) const override {
    const auto at = shapes_.find(stack);
    return at == shapes_.end() ? std::nullopt : std::optional(at->second);
  }
  AnchorDelta read_stack(const TensorLookup& tensors, std::string_view stack) const override {
    return anchor_delta::read(tensors, stack, manifests_.find(stack)->second, where_);
  }

 private:
  std::string where_;
  std::map<std::string, StackShape, std::less<>> shapes_;
  std::map<std::string, Json, std::less<>> manifests_;
  std::unique_ptr<WireFormat> others_;  ///< null: nothing else is quantized
  std::vector<const char*> suffixes_;
};

}  // namespace

bool is_anchored(const Json& quant) {
  const auto format = quant.find("format");
  return format != quant.end() && *format == anchor_delta::kFormat;
}

std::unique_ptr<WireFormat> make_anchored(const Json& quant, const std::string& where) {
  return std::make_unique<Anchored>(quant, where);
}

Json anchor_delta::quantization_config(const std::string& scheme, Json stacks, Json others) {
  return {{"quant_method", "kedge"},
          {"format", kFormat},
          {"scheme", scheme},
          {"stacks", std::move(stacks)},
          {"others", std::move(others)}};
}

}  // namespace kedge
