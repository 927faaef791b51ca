#include "twin/rope.h"

#include "nn/rope_frequencies.h"

namespace kedge::twin {

void RopeAngles::reserve(std::int64_t positions) {
  if (cos_.defined() && cos_.size(0) >= positions) return;
  const RopeTable table = make_rope_table(spec_, positions);
  const auto place = at::TensorOptions().dtype(options_.dtype).device(options_.device);
  const auto copy = [&](const float* values) {
    return at::from_blob(const_cast<float*>(values), {positions, table.half_dim()},
                         at::TensorOptions().dtype(at::kFloat))
        .to(place, /*non_blocking=*/false, /*copy=*/true);
  };
  cos_ = copy(table.cos(0));
  sin_ = copy(table.sin(0));
}

Tensor rotate(const Tensor& x, const RopeAngles& angles, std::int64_t offset) {
  const std::int64_t rotary = angles.rotary_dim(), half = rotary / 2, end = offset + rotary;
  // [T, 1, half] against [B, T, heads, half]
  const Tensor cos = angles.cos(x.size(1)).unsqueeze(1), sin = angles.sin(x.size(1)).unsqueeze(1);
  const Tensor part = x.narrow(-1, offset, rotary).to(cos.scalar_type());
  Tensor a, b;
  if (angles.interleaved()) {
    const Tensor pairs = part.unflatten(-1, {half, 2});
    a = pairs.select(-1, 0);
    b = pairs.select(-1, 1);
  } else {
    a = part.narrow(-1, 0, half);
    b = part.narrow(-1, half, half);
  }
  const Tensor rotated_a = a * cos - b * sin, rotated_b = b * cos + a * sin;
  std::vector<Tensor> parts;
  if (offset > 0) parts.push_back(x.narrow(-1, 0, offset).to(cos.scalar_type()));
  parts.push_back(rotated_a);
  parts.push_back(rotated_b);
  if (end < x.size(-1)) parts.push_back(x.narrow(-1, end, x.size(-1) - end).to(cos.scalar_type()));
  return at::cat(parts, -1);
}

}  // namespace kedge::twin
