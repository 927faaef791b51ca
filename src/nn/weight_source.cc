#include "nn/weight_source.h"

#include <span>

#include "kedge/error.h"
#include "tensor/dtype.h"

namespace kedge {

namespace {

[[noreturn]] void wrong_type(DType dtype, const std::string& module) {
  throw Error(ErrorCode::unsupported, "the weight of '" + module + "' has the element type " + dtype_name(dtype),
              "F32, BF16, F16, F64 or a quantized form named in config.json's quantization_config");
}

}  // namespace

Tensor to_float_matrix(const WeightData& data, const std::string& module) {
  if (const auto* view = std::get_if<TensorView>(&data)) {
    if (!is_convertible_float(view->dtype)) wrong_type(view->dtype, module);
    Tensor out(DType::f32, view->shape);
    convert_to_float(view->dtype, view->data, view->size(), out.data<float>());
    return out;
  }
  const auto& quantized = std::get<QuantTensor>(data);
  Tensor out(DType::f32, {quantized.rows, quantized.cols});
  dequantize(quantized, std::span<float>(out.data<float>(), static_cast<std::size_t>(out.size())));
  return out;
}

PackedWeight pack_weight_data(const WeightData& data, const LoadOptions& options, const std::string& module) {
  if (const auto* quantized = std::get_if<QuantTensor>(&data)) return pack_weight(*quantized, options);
  const auto& view = std::get<TensorView>(data);
  switch (view.dtype) {
    case DType::f32:
    case DType::bf16:
    case DType::f16: return pack_weight(view, options);
    case DType::f64: return pack_weight(to_float_matrix(data, module).view(), options);
    default: wrong_type(view.dtype, module);
  }
}

}  // namespace kedge
