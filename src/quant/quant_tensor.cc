#include "quant/quant_tensor.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace kedge {

bool all_finite(std::span<const float> values) noexcept {
  // An exponent of all ones is NaN or infinity.
  constexpr std::uint32_t exponent = 0x7f800000u;
  std::uint32_t bad = 0;
  for (const float value : values) bad |= (std::bit_cast<std::uint32_t>(value) & exponent) == exponent ? 1u : 0u;
  return bad == 0;
}

QuantTensor quantize_rtn(std::span<const float> weights, std::int64_t rows, std::int64_t cols, const QuantArgs& args,
                         DType scale_dtype, const ScaleSearch& search) {
  KEDGE_CHECK(rows > 0 && cols > 0 && static_cast<std::int64_t>(weights.size()) == rows * cols);
  KEDGE_CHECK(args.num_bits >= 2 && args.num_bits <= 8 && args.group_for(cols) > 0 && cols % args.group_for(cols) == 0);
  KEDGE_CHECK(search.importance.empty() || static_cast<std::int64_t>(search.importance.size()) == cols);
  KEDGE_CHECK(scale_dtype == DType::f32 || scale_dtype == DType::bf16 || scale_dtype == DType::f16);

  QuantTensor q;
  q.args = args;
  q.rows = rows;
  q.cols = cols;
  q.scale_dtype = scale_dtype;
  const std::int64_t group = q.group(), total = rows * q.groups();
  q.codes.resize(weights.size());
  q.scales.resize(static_cast<std::size_t>(total));
  if (!args.symmetric) q.zeros.resize(static_cast<std::size_t>(total));

  for (std::int64_t i = 0; i < total; ++i) {
    const float* w = weights.data() + i * group;
    const float* importance =
        search.importance.empty() ? nullptr : search.importance.data() + i % q.groups() * group;
    const GroupScale scale = find_scale(w, group, args, scale_dtype, search, importance);
    q.scales[static_cast<std::size_t>(i)] = scale.scale;
    if (!args.symmetric) {
      q.zeros[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(static_cast<int>(scale.zero) + args.mid_code());
    }
    encode_group(w, group, args, scale, q.codes.data() + i * group);
  }
  return q;
}

QuantTensor rows_of(const QuantTensor& q, std::int64_t first, std::int64_t count) {
  const auto part = [&](const auto& all, std::int64_t per_row) {
    const auto begin = all.begin() + std::min(first * per_row, static_cast<std::int64_t>(all.size()));
    const auto end = all.begin() + std::min((first + count) * per_row, static_cast<std::int64_t>(all.size()));
    return std::remove_cvref_t<decltype(all)>(begin, end);
  };
  QuantTensor out{q.args, count, q.cols, q.scale_dtype, {}, {}, {}, q.input_scale};
  out.codes = part(q.codes, q.cols);
  out.scales = part(q.scales, q.groups());
  out.zeros = part(q.zeros, q.groups());
  return out;
}

void dequantize_row(const QuantTensor& q, std::int64_t row, float* out) noexcept {
  const std::int64_t group = q.group(), groups = q.groups();
  const std::uint8_t* codes = q.codes.data() + row * q.cols;
  for (std::int64_t g = 0; g < groups; ++g) {
    const float scale = q.scales[static_cast<std::size_t>(row * groups + g)];
    const int zero = q.zero(row, g);
    const std::int64_t end = std::min(q.cols, (g + 1) * group);
    for (std::int64_t k = g * group; k < end; ++k) out[k] = static_cast<float>(codes[k] - zero) * scale;
  }
}

void dequantize(const QuantTensor& q, std::span<float> out) {
  KEDGE_CHECK(static_cast<std::int64_t>(out.size()) == q.rows * q.cols);
  for (std::int64_t row = 0; row < q.rows; ++row) dequantize_row(q, row, out.data() + row * q.cols);
}

}  // namespace kedge
