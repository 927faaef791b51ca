#include "twin/anchored.h"

#include <cstdlib>

#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/round.h>
#include <ATen/ops/where.h>

#include "base/check.h"
#include "kedge/error.h"

namespace kedge::twin {
namespace {

// A singular value grows by half per step until it is near 1, so 60 steps reach down to 1e-9 of the largest.
constexpr int kMostSteps = 60;
constexpr double kEnough = 1e-13;

Tensor straight_through(const Tensor& x, const Tensor& rounded) { return x + (rounded - x).detach(); }

Tensor stored_anchor(const AnchorDeltaArgs& args, const Tensor& anchor) {
  if (args.anchor_dtype == DType::i8) return fake_quantize(anchor, args.anchor_args().num_bits, args.group_size);
  const auto half = args.anchor_dtype == DType::bf16 ? at::kBFloat16 : at::kHalf;
  return straight_through(anchor, anchor.detach().to(half).to(anchor.scalar_type()));
}

Tensor polar(const Tensor& w) {
  // The factor is the same for every multiple of w: one that brings all singular values into (0, 1] is a constant.
  const Tensor gram = at::matmul(w, w.mT()).detach();
  Tensor x = w / gram.abs().sum(-1).amax(-1).sqrt().unsqueeze(-1).unsqueeze(-1);
  const Tensor identity = at::eye(w.size(-2), w.options());
  for (int step = 0; step < kMostSteps; ++step) {
    const Tensor square = at::matmul(x, x.mT());
    const bool done = (square - identity).abs().max().item<double>() <= kEnough;
    x = 1.5 * x - 0.5 * at::matmul(square, x);
    if (done) return x;
  }
  throw Error(ErrorCode::bad_file, "rows that should become orthonormal are linearly dependent",
              "rows that have directions of their own");
}

Tensor gram_schmidt(const Tensor& w) {
  const auto [q, r] = at::linalg_qr(w.mT());
  // linalg_qr leaves the signs open; here L's diagonal is positive.
  const Tensor signs = r.diagonal(0, -2, -1).sign().detach();
  return (q * signs.unsqueeze(-2)).mT();
}

}  // namespace

Tensor retract(Manifold manifold, const Tensor& w, const Tensor& norms) {
  switch (manifold) {
    case Manifold::none: return w;
    case Manifold::sphere: {
      const Tensor unit = w / w.square().sum(-1, /*keepdim=*/true).sqrt();
      return norms.defined() ? unit * norms.unsqueeze(-1) : unit;
    }
    // In fp64, so that fp32 rows are as orthonormal as their type allows: routing takes U U^T for the identity.
    case Manifold::stiefel_polar: return polar(w.to(at::kDouble)).to(w.scalar_type());
    case Manifold::stiefel_qr: return gram_schmidt(w.to(at::kDouble)).to(w.scalar_type());
  }
  KEDGE_CHECK(!"a manifold without a retraction");
  std::abort();
}

Tensor fake_quantize(const Tensor& w, int bits, std::int64_t group) {
  const double low = -static_cast<double>(1 << (bits - 1)), high = -low - 1;
  const Tensor groups = w.detach().unflatten(-1, {-1, group});
  const Tensor largest = groups.abs().amax(-1, /*keepdim=*/true);
  Tensor scale = (largest / ((high - low) / 2)).to(at::kHalf).to(w.scalar_type());
  scale = at::where(scale == 0, at::ones_like(scale), scale);  // below fp16's range: all codes are 0
  return straight_through(w, (at::round(groups / scale).clamp(low, high) * scale).flatten(-2));
}

Tensor anchored_weights(const AnchorDeltaArgs& args, const Tensor& anchor, const Tensor& deltas, const Tensor& norms,
                        bool quantized) {
  KEDGE_CHECK(anchor.dim() == 2 && deltas.dim() == 3 && deltas.size(1) == anchor.size(0));
  if (!quantized) return retract(args.manifold, anchor + deltas, norms);
  const Tensor stored = stored_anchor(args, anchor);
  return retract(args.manifold, stored + fake_quantize(deltas, args.num_bits, args.group_size), norms);
}

Tensor encoded_weights(const AnchorDeltaArgs& args, const Tensor& w) {
  KEDGE_CHECK(w.dim() == 3);
  const Tensor mean = w.mean(at::IntArrayRef({0}), /*keepdim=*/false, at::kDouble).to(w.scalar_type());
  const Tensor stored = stored_anchor(args, mean);
  return retract(args.manifold, stored + fake_quantize(w - stored, args.num_bits, args.group_size));
}

}  // namespace kedge::twin
