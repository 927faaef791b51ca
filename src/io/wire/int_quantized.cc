// compressed-tensors, format int-quantized: int8 weights with int8 inputs.
//
//   <module>.weight        i8 [N, K]                signed codes, symmetric
//   <module>.weight_scale  bf16 | f16 | f32 [N, 1]
//   <module>.input_scale   bf16 | f16 | f32 [1]     static inputs only: x ~ q * scale, q in [-127, 127] here
// A module without a weight_scale is plain. Source: compressed_tensors/compressors/naive_quantized, release 0.20.
#include <cstring>

#include "base/check.h"
#include "base/json.h"
#include "io/wire/formats.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr const char* kName = "compressed-tensors/int-quantized";
constexpr const char* kFormat = "int-quantized";
constexpr const char* kSuffixes[] = {".weight", ".weight_scale", ".input_scale"};
constexpr const char* kZeroPoints[] = {".weight_zero_point", ".input_zero_point"};
constexpr QuantArgs kArgs{8, true, QuantStrategy::channel, -1};

[[noreturn]] void unsupported(const std::string& where, const std::string& what, const std::string& expected = {}) {
  throw Error(ErrorCode::unsupported, where + ": kedge does not support " + what + " in " + kName, expected);
}
[[noreturn]] void bad(const std::string& what, const std::string& expected = {}) {
  throw Error(ErrorCode::bad_file, what, expected, "get the checkpoint again or quantize it again");
}

/// An object of a config group that says "8 bit, int, symmetric".
const Json& int8_args(const Json& group, const char* key, const std::string& where) {
  const auto it = group.find(key);
  if (it == group.end() || it->is_null()) unsupported(where, std::string("a config group without ") + key);
  if (!it->is_object()) bad(where + ": \"" + key + "\" of a config group is no object");
  if (json_get_or<std::int64_t>(*it, "num_bits", 8, where) != 8) unsupported(where, "other than 8 bits");
  if (json_get_or<std::string>(*it, "type", "int", where) != "int") unsupported(where, "other codes than int");
  if (!json_get_or<bool>(*it, "symmetric", true, where)) unsupported(where, "zero points");
  return *it;
}

InputActivations parse_group(const Json& group, const std::string& where) {
  if (!group.is_object()) bad(where + ": a config group is no object");
  if (json_get_or<std::string>(int8_args(group, "weights", where), "strategy", "tensor", where) != "channel") {
    unsupported(where, "weights that have not one scale per output", "strategy \"channel\"");
  }
  if (group.contains("output_activations") && !group["output_activations"].is_null()) {
    unsupported(where, "quantized outputs");
  }
  const Json& inputs = int8_args(group, "input_activations", where);
  const bool dynamic = inputs.contains("dynamic") && inputs["dynamic"] == Json(true);
  const std::string strategy = json_get_or<std::string>(inputs, "strategy", "tensor", where);
  if (dynamic && strategy == "token") return InputActivations::dynamic_token;
  if (!dynamic && strategy == "tensor") return InputActivations::static_tensor;
  unsupported(where, "inputs of this kind", "dynamic with the strategy \"token\", or static with \"tensor\"");
}

TensorView require(const TensorLookup& tensors, const std::string& name, const Shape& shape) {
  const std::optional<TensorView> view = tensors.find(name);
  if (!view) bad("the checkpoint lacks the tensor \"" + name + "\"");
  if (view->shape != shape) bad("\"" + name + "\" has shape " + shape_string(view->shape), shape_string(shape));
  if (view->dtype != DType::bf16 && view->dtype != DType::f16 && view->dtype != DType::f32) {
    bad("\"" + name + "\" has type " + dtype_name(view->dtype), "BF16, F16 or F32");
  }
  return *view;
}

class IntQuantized : public WireFormat {
 public:
  explicit IntQuantized(InputActivations inputs) : inputs_(inputs) {}

  const char* name() const noexcept override { return kName; }
  std::span<const char* const> suffixes() const noexcept override { return kSuffixes; }
  InputActivations input_activations() const noexcept override { return inputs_; }
  bool has(const TensorLookup& tensors, std::string_view module) const override {
    return tensors.find(std::string(module) + ".weight_scale").has_value();
  }
  QuantArgs args(const TensorLookup&, std::string_view) const override { return kArgs; }
  QuantTensor read(const TensorLookup& tensors, std::string_view module) const override;

 private:
  InputActivations inputs_;
};

QuantTensor IntQuantized::read(const TensorLookup& tensors, std::string_view module) const {
  const std::string base(module);
  const std::optional<TensorView> codes = tensors.find(base + ".weight");
  if (!codes) bad("the checkpoint lacks the tensor \"" + base + ".weight\"");
  if (codes->shape.size() != 2 || codes->dtype != DType::i8) {
    bad("\"" + base + ".weight\" has shape " + shape_string(codes->shape) + " and type " + dtype_name(codes->dtype),
        "two dimensions of I8");
  }
  for (const char* suffix : kZeroPoints) {
    if (tensors.find(base + suffix)) bad("\"" + base + suffix + "\" exists in a symmetric scheme");
  }
  QuantTensor q;
  q.args = kArgs;
  q.rows = codes->shape[0];
  q.cols = codes->shape[1];
  const TensorView scale = require(tensors, base + ".weight_scale", {q.rows, 1});
  q.scale_dtype = scale.dtype;
  q.scales.resize(static_cast<std::size_t>(q.rows));
  convert_to_float(scale.dtype, scale.data, q.rows, q.scales.data());
  if (!all_finite(q.scales)) bad("\"" + base + ".weight_scale\" holds a value that is not finite");
  q.codes.resize(static_cast<std::size_t>(codes->size()));
  for (std::size_t i = 0; i < q.codes.size(); ++i) {
    q.codes[i] = static_cast<std::uint8_t>(static_cast<std::uint8_t>(codes->data[i]) ^ 0x80u);
  }
  if (inputs_ == InputActivations::static_tensor) {
    const TensorView input = require(tensors, base + ".input_scale", {1});
    convert_to_float(input.dtype, input.data, 1, &q.input_scale);
    if (!(q.input_scale > 0))
      bad("\"" + base + ".input_scale\" is " + std::to_string(q.input_scale), "a scale above 0");
  } else if (tensors.find(base + ".input_scale")) {
    bad("\"" + base + ".input_scale\" exists though the inputs are dynamic");
  }
  return q;
}

}  // namespace

bool is_int_quantized(const Json& quant) {
  const auto format = quant.find("format");
  return format != quant.end() && *format == Json(kFormat);
}

std::unique_ptr<WireFormat> make_int_quantized(const Json& quant, const std::string& where) {
  if (json_get_or<std::string>(quant, "quantization_status", "compressed", where) != "compressed") {
    unsupported(where, "weights that are not compressed yet", "quantization_status \"compressed\"");
  }
  const auto groups = quant.find("config_groups");
  if (groups == quant.end() || !groups->is_object() || groups->empty()) {
    bad(where + ": quantization_config has no config_groups");
  }
  std::optional<InputActivations> inputs;
  for (const auto& [name, group] : groups->items()) {
    const InputActivations here = parse_group(group, where);
    if (inputs && *inputs != here) unsupported(where, "static and dynamic inputs side by side");
    inputs = here;
  }
  return std::make_unique<IntQuantized>(*inputs);
}

namespace compressed_tensors {

std::vector<SafetensorsWriter::Entry> int_entries(std::string_view module, std::int64_t rows, std::int64_t cols,
                                                  DType scale_dtype, InputActivations input_activations) {
  const std::string base(module);
  std::vector<SafetensorsWriter::Entry> list{{base + ".weight", DType::i8, {rows, cols}},
                                             {base + ".weight_scale", scale_dtype, {rows, 1}}};
  if (input_activations == InputActivations::static_tensor) list.push_back({base + ".input_scale", DType::f32, {1}});
  return list;
}

std::vector<std::byte> int_serialize(const QuantTensor& q, std::string_view suffix) {
  KEDGE_CHECK(q.args == kArgs);
  if (suffix == ".weight") {
    std::vector<std::byte> bytes(q.codes.size());
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(q.codes[i] ^ 0x80u);
    return bytes;
  }
  if (suffix == ".input_scale") {
    std::vector<std::byte> bytes(sizeof(float));
    std::memcpy(bytes.data(), &q.input_scale, sizeof(float));
    return bytes;
  }
  KEDGE_CHECK(suffix == ".weight_scale");
  return serialize(q, suffix);
}

Json int_quantization_config(InputActivations input_activations, const std::string& observer,
                             const std::vector<std::string>& ignore) {
  KEDGE_CHECK(input_activations != InputActivations::none);
  const bool dynamic = input_activations == InputActivations::dynamic_token;
  const auto args = [](const char* strategy, bool is_dynamic, Json observer_name) {
    return Json{{"num_bits", 8},
                {"type", "int"},
                {"symmetric", true},
                {"strategy", strategy},
                {"group_size", nullptr},
                {"dynamic", is_dynamic},
                {"observer", std::move(observer_name)}};
  };
  const Json group = {
      {"targets", Json::array({"Linear"})},
      {"weights", args("channel", false, "minmax")},
      {"input_activations", args(dynamic ? "token" : "tensor", dynamic, dynamic ? Json() : Json(observer))},
      {"output_activations", nullptr},
      {"format", kFormat}};
  return {{"quant_method", "compressed-tensors"},  {"format", kFormat}, {"quantization_status", "compressed"},
          {"config_groups", {{"group_0", group}}}, {"ignore", ignore},  {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr}};
}

}  // namespace compressed_tensors
}  // namespace kedge
