// config.json on arbitrary bytes: JSON, the quantization it describes, read from tensors whose shapes follow from the
// same bytes, and the model that it describes. Each accepts or throws Error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "io/wire/wire.h"
#include "kedge/error.h"
#include "model/family.h"

namespace {

/// Two small modules, one symmetric, one with zero points; the last bytes of the input are their data.
class Tensors : public kedge::TensorLookup {
 public:
  Tensors(const std::uint8_t* data, std::size_t size) {
    for (std::size_t i = 0; i < sizeof bytes_; ++i)
      bytes_[i] = size > 0 ? static_cast<std::byte>(data[i % size]) : std::byte{0};
    shape_[0] = kRows;
    shape_[1] = size > 0 ? 32 * (1 + data[size - 1] % 4) : 32;
    if (size > 1 && data[size - 2] > 250) shape_[1] = static_cast<std::int64_t>(data[size - 2]) << 40;
    words_ = size > 2 ? 1 + data[size - 3] % 32 : 4;
    groups_ = size > 3 ? 1 + data[size - 4] % 4 : 1;
  }
  std::optional<kedge::TensorView> find(std::string_view name) const override {
    using kedge::DType;
    if (name == "m.weight_packed" || name == "z.weight_packed") return view(DType::i32, {kRows, words_});
    if (name == "m.weight_scale" || name == "z.weight_scale") return view(DType::bf16, {kRows, groups_});
    if (name == "z.weight_zero_point") return view(DType::i32, {words_ % 3 + 1, groups_});
    if (name != "m.weight_shape" && name != "z.weight_shape") return std::nullopt;
    return kedge::TensorView{DType::i64, {2}, reinterpret_cast<const std::byte*>(shape_)};
  }

 private:
  static constexpr std::int64_t kRows = 8;
  kedge::TensorView view(kedge::DType dtype, kedge::Shape shape) const { return {dtype, std::move(shape), bytes_}; }

  std::byte bytes_[8 * 32 * 4];
  std::int64_t shape_[2];
  std::int64_t words_, groups_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kedge::Json config;
  try {
    config = kedge::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const kedge::Error&) {
    return 0;
  }
  if (!config.is_object()) return 0;
  try {
    if (const auto format = kedge::make_wire_format(config, "fuzz")) {
      const Tensors tensors(data, size);
      for (const char* module : {"m", "z", "absent"}) {
        try {
          format->read(tensors, module);
        } catch (const kedge::Error&) {
        }
      }
    }
  } catch (const kedge::Error&) {
  }
  try {
    kedge::family_of(config, "fuzz").spec(config, "fuzz");
  } catch (const kedge::Error&) {
  }
  return 0;
}
