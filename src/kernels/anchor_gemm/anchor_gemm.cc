#include "kernels/anchor_gemm/anchor_gemm.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "kedge/error.h"
#include "kernels/grouped_gemm/grouped_gemm.h"

namespace kedge {
namespace {

constexpr std::int64_t kElementsPerTask = 8192;  ///< below this a task costs less than waking a thread

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

PackedWeight pack_plain(const float* weights, std::int64_t n, std::int64_t k, const LoadOptions& options) {
  return pack_weight(TensorView{DType::f32, {n, k}, reinterpret_cast<const std::byte*>(weights)}, options);
}

QuantTensor stack(const std::vector<QuantTensor>& deltas) {
  QuantTensor all = deltas.front();
  all.rows *= static_cast<std::int64_t>(deltas.size());
  for (std::size_t e = 1; e < deltas.size(); ++e) {
    all.codes.insert(all.codes.end(), deltas[e].codes.begin(), deltas[e].codes.end());
    all.scales.insert(all.scales.end(), deltas[e].scales.begin(), deltas[e].scales.end());
  }
  return all;
}

void check_sizes(const ExpertMatrices& weights, std::int64_t experts, std::int64_t n, std::int64_t k,
                 const std::string& where) {
  const auto shape = [](std::int64_t e, std::int64_t rows, std::int64_t cols) {
    return std::to_string(e) + " matrices of " + std::to_string(rows) + " x " + std::to_string(cols);
  };
  if (weights.shared != nullptr) {
    const AnchorDelta& w = *weights.shared;
    if (w.experts() == experts && w.rows == n && w.cols == k) return;
    throw Error(ErrorCode::mismatch, where + " has " + shape(w.experts(), w.rows, w.cols), shape(experts, n, k));
  }
  if (static_cast<std::int64_t>(weights.plain.size()) != experts * n * k) {
    throw Error(ErrorCode::mismatch, where + " has " + std::to_string(weights.plain.size()) + " weights",
                shape(experts, n, k));
  }
  if (!all_finite(weights.plain)) {
    throw Error(ErrorCode::bad_file, where + ": a weight is NaN or infinite", "finite weights", "check the checkpoint");
  }
}

/// y[r, i] = s[i] (anchor[r, i] + y[r, i]); null: no anchor, no scale.
void join_row(const float* anchor, const float* scale, std::int64_t n, float* y) noexcept {
  if (anchor != nullptr) {
    for (std::int64_t i = 0; i < n; ++i) y[i] = anchor[i] + y[i];
  }
  if (scale != nullptr) {
    for (std::int64_t i = 0; i < n; ++i) y[i] *= scale[i];
  }
}

template <class Rows>
void for_rows(const ExecContext& ctx, std::int64_t rows, std::int64_t size, const Rows& body) {
  const std::int64_t grain = std::max<std::int64_t>(1, kElementsPerTask / std::max<std::int64_t>(size, 1));
  ctx.threads.parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) body(r);
  });
}

/// One matrix per expert, without what they share.
void grouped_parts(const ExecContext& ctx, const GroupedRows& in, const PackedExpertMatrices& w, float* y) {
  KEDGE_CHECK(!w.stacked_ && static_cast<std::int64_t>(in.offsets.size()) == w.experts_ + 1);
  if (in.offsets.back() == 0) return;
  ArenaScope scope(ctx.scratch);
  auto** parts = ctx.scratch.take<const PackedWeight*>(w.experts_);
  for (std::int64_t e = 0; e < w.experts_; ++e) parts[e] = &w.parts_[index(e)];
  grouped_gemm(ctx, in.x, in.gather, in.offsets, {parts, index(w.experts_)}, y);
}

const float* scale_of(const PackedExpertMatrices& w, std::int64_t expert) noexcept {
  return w.row_scale_.empty() ? nullptr : w.row_scale_.data() + expert * w.n_;
}

}  // namespace

const char* anchor_form_name(AnchorForm form) noexcept {
  switch (form) {
    case AnchorForm::fused: return "fused";
    case AnchorForm::split: return "split";
    case AnchorForm::decoded: break;
  }
  return "decoded";
}

AnchorForm parse_anchor_form(const std::string& name) {
  for (const AnchorForm form : {AnchorForm::fused, AnchorForm::split, AnchorForm::decoded}) {
    if (name == anchor_form_name(form)) return form;
  }
  throw Error(ErrorCode::usage, "there is no form \"" + name + "\" of anchored weights", "fused, split or decoded");
}

std::vector<float> decode_experts(const ExpertMatrices& weights, std::int64_t experts, std::int64_t n, std::int64_t k,
                                  const std::string& where) {
  check_sizes(weights, experts, n, k, where);
  if (weights.shared == nullptr) return {weights.plain.begin(), weights.plain.end()};
  std::vector<float> out(index(experts * n * k));
  for (std::int64_t e = 0; e < experts; ++e) {
    decode(*weights.shared, e, std::span(out).subspan(index(e * n * k), index(n * k)));
  }
  return out;
}

PackedExpertMatrices::PackedExpertMatrices(const ExpertMatrices& weights, std::int64_t experts, std::int64_t n,
                                           std::int64_t k, bool stacked, AnchorForm form, const LoadOptions& options,
                                           const std::string& where)
    : experts_(experts), n_(n), k_(k), stacked_(stacked) {
  check_sizes(weights, experts, n, k, where);
  const AnchorDelta* shared = weights.shared;
  if (shared != nullptr && form != AnchorForm::decoded && !is_stiefel(shared->args.manifold)) {
    const bool fused = form == AnchorForm::fused && !stacked && options.activations == Activations::fp32;
    form_ = fused ? AnchorForm::fused : AnchorForm::split;
    pack_shared(*shared, options);
    return;
  }
  std::vector<float> one(shared != nullptr && !stacked ? index(n * k) : 0);
  if (stacked) {
    const std::vector<float> all = decode_experts(weights, experts, n, k, where);
    parts_.push_back(pack_plain(all.data(), experts * n, k, options));
    return;
  }
  for (std::int64_t e = 0; e < experts; ++e) {
    if (shared != nullptr) decode(*shared, e, one);
    parts_.push_back(pack_plain(shared != nullptr ? one.data() : weights.plain.data() + e * n * k, n, k, options));
  }
}

void PackedExpertMatrices::pack_shared(const AnchorDelta& shared, const LoadOptions& options) {
  PackedWeight anchor = shared.args.anchor_dtype == DType::i8 ? pack_weight(shared.anchor_codes, options)
                                                              : pack_weight(shared.anchor.view(), options);
  if (form_ == AnchorForm::fused) {
    const auto common = pack_anchor(std::move(anchor));
    for (std::int64_t e = 0; e < experts_; ++e) {
      std::span<const float> scales = shared.row_scale;
      if (!scales.empty()) scales = scales.subspan(index(e * n_), index(n_));
      parts_.push_back(pack_anchored(shared.deltas[index(e)], common, scales, options));
    }
    return;
  }
  anchor_ = std::move(anchor);
  row_scale_ = shared.row_scale;
  if (stacked_) {
    parts_.push_back(pack_weight(stack(shared.deltas), options));
  } else {
    for (const QuantTensor& delta : shared.deltas) parts_.push_back(pack_weight(delta, options));
  }
}

std::size_t PackedExpertMatrices::shared_bytes() const noexcept {
  return form_ == AnchorForm::fused ? anchor_bytes(*parts_.front().anchor_) : anchor_.num_bytes();
}

std::size_t PackedExpertMatrices::num_bytes() const noexcept {
  std::size_t bytes = shared_bytes() + row_scale_.size() * sizeof(float);
  for (const PackedWeight& part : parts_) bytes += part.num_bytes();
  return bytes;
}

void anchor_gemm_all(const ExecContext& ctx, const float* x, std::int64_t tokens, const PackedExpertMatrices& w,
                     float* y) {
  KEDGE_CHECK(w.stacked_ && w.parts_.size() == 1);
  if (tokens == 0) return;
  ArenaScope scope(ctx.scratch);
  const std::int64_t width = w.experts_ * w.n_;
  gemm(ctx, x, w.k_, tokens, w.parts_[0], y, width);
  if (w.form_ != AnchorForm::split) return;
  float* anchor = ctx.scratch.take<float>(tokens * w.n_);
  gemm(ctx, x, w.k_, tokens, w.anchor_, anchor, w.n_);
  for_rows(ctx, tokens, width, [&](std::int64_t t) {
    for (std::int64_t e = 0; e < w.experts_; ++e) {
      join_row(anchor + t * w.n_, scale_of(w, e), w.n_, y + t * width + e * w.n_);
    }
  });
}

void anchor_gemm_one(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t tokens,
                     const PackedExpertMatrices& w, std::int64_t expert, float* y) {
  KEDGE_CHECK(!w.stacked_ && expert >= 0 && expert < w.experts_);
  if (tokens == 0) return;
  ArenaScope scope(ctx.scratch);
  gemm(ctx, x, ldx, tokens, w.parts_[index(expert)], y, w.n_);
  if (w.form_ != AnchorForm::split) return;
  float* anchor = ctx.scratch.take<float>(tokens * w.n_);
  gemm(ctx, x, ldx, tokens, w.anchor_, anchor, w.n_);
  for_rows(ctx, tokens, w.n_,
           [&](std::int64_t t) { join_row(anchor + t * w.n_, scale_of(w, expert), w.n_, y + t * w.n_); });
}

void anchor_gemm_deltas(const ExecContext& ctx, const GroupedRows& in, const PackedExpertMatrices& w, float* y) {
  KEDGE_CHECK(w.anchor_is_linear());
  grouped_parts(ctx, in, w, y);
}

void anchor_gemm_shared(const ExecContext& ctx, const float* x, std::int64_t tokens, const PackedExpertMatrices& w,
                        float* y) {
  KEDGE_CHECK(w.anchor_is_linear());
  if (tokens == 0) return;
  ArenaScope scope(ctx.scratch);
  float* anchor = ctx.scratch.take<float>(tokens * w.n_);
  gemm(ctx, x, w.k_, tokens, w.anchor_, anchor, w.n_);
  for_rows(ctx, tokens, w.n_, [&](std::int64_t t) { join_row(anchor + t * w.n_, nullptr, w.n_, y + t * w.n_); });
}

void anchor_gemm_grouped(const ExecContext& ctx, const GroupedRows& in, const PackedExpertMatrices& w, float* y) {
  grouped_parts(ctx, in, w, y);
  const std::int64_t pairs = in.offsets.back();
  if (w.form_ != AnchorForm::split || pairs == 0) return;
  ArenaScope scope(ctx.scratch);

  const bool per_row = in.gather.empty() || in.rows <= pairs;
  float* anchor = ctx.scratch.take<float>((per_row ? in.rows : pairs) * w.n_);
  if (per_row) {
    gemm(ctx, in.x, w.k_, in.rows, w.anchor_, anchor, w.n_);
  } else {
    const std::int32_t whole[] = {0, static_cast<std::int32_t>(pairs)};
    const PackedWeight* only[] = {&w.anchor_};
    grouped_gemm(ctx, in.x, in.gather, whole, only, anchor);
  }
  for_rows(ctx, pairs, w.n_, [&](std::int64_t p) {
    const auto after = std::upper_bound(in.offsets.begin(), in.offsets.end(), static_cast<std::int32_t>(p));
    const std::int64_t expert = after - in.offsets.begin() - 1;
    const std::int64_t row = in.gather.empty() || !per_row ? p : in.gather[index(p)];
    join_row(anchor + row * w.n_, scale_of(w, expert), w.n_, y + p * w.n_);
  });
}

}  // namespace kedge
