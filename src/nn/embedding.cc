#include "nn/embedding.h"

#include <cstring>

#include "kedge/error.h"

namespace kedge {

Embedding Embedding::load(const WeightSource& source, const std::string& module, std::int64_t vocab,
                          std::int64_t hidden) {
  Embedding embedding;
  embedding.hidden_ = hidden;
  WeightData data = source.weight(module, vocab, hidden);
  if (const auto* view = std::get_if<TensorView>(&data)) {
    if (!is_convertible_float(view->dtype)) {
      throw Error(ErrorCode::unsupported,
                  "the weight of '" + module + "' has the element type " + dtype_name(view->dtype),
                  "F32, BF16, F16 or F64");
    }
    embedding.table_ = Tensor(view->dtype, view->shape);
    std::memcpy(embedding.table_.data<std::byte>(), view->data, view->num_bytes());
  } else {
    embedding.quantized_ = std::move(std::get<QuantTensor>(data));
  }
  source.done(module);
  return embedding;
}

void Embedding::forward(const ExecContext& ctx, std::span<const std::int32_t> tokens, float* out) const {
  ctx.threads.parallel_for(
      static_cast<std::int64_t>(tokens.size()), 16, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t t = begin; t < end; ++t) {
          const std::int64_t row = tokens[static_cast<std::size_t>(t)];
          if (quantized_.rows > 0) {
            dequantize_row(quantized_, row, out + t * hidden_);
          } else {
            const std::size_t row_bytes = static_cast<std::size_t>(hidden_) * dtype_bits(table_.dtype()) / 8;
            convert_to_float(table_.dtype(), table_.data<std::byte>() + static_cast<std::size_t>(row) * row_bytes,
                             hidden_, out + t * hidden_);
          }
        }
      });
}

std::size_t Embedding::num_bytes() const noexcept {
  return table_.num_bytes() + quantized_.codes.size() + quantized_.scales.size() * sizeof(float) +
         quantized_.zeros.size();
}

}  // namespace kedge
