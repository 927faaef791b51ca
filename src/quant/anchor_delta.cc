#include "quant/anchor_delta.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace kedge {
namespace {

constexpr double kRowNormTolerance = 1e-6;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

std::string of_expert(const std::string& where, std::int64_t expert) {
  return where + ", expert " + std::to_string(expert);
}

/// A + D_e in fp32, before the retraction.
void decode_sum(const AnchorDelta& w, std::span<const float> anchor, std::int64_t expert, std::span<float> out) {
  dequantize(w.deltas[index(expert)], out);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = anchor[i] + out[i];
}

std::span<const float> targets(const AnchorDelta& w, std::int64_t expert) {
  if (w.target_norm.empty()) return {};
  return std::span(w.target_norm).subspan(index(expert * w.rows), index(w.rows));
}

void scale_rows(std::span<float> m, std::int64_t cols, std::span<const float> scales) {
  for (std::size_t i = 0; i < m.size(); ++i) m[i] *= scales[i / index(cols)];
}

void decode_with(const AnchorDelta& w, std::span<const float> anchor, std::int64_t expert, std::span<float> out) {
  decode_sum(w, anchor, expert, out);
  if (w.args.manifold == Manifold::sphere) {
    scale_rows(out, w.cols, std::span(w.row_scale).subspan(index(expert * w.rows), index(w.rows)));
  } else {
    retract(w.args.manifold, w.rows, w.cols, of_expert("a shared anchor with deltas", expert), out);
  }
}

/// Of each four neighbours the two with the largest sums; the lower position of equals.
TwoFourMask choose_mask(const std::vector<double>& sums) {
  TwoFourMask mask(sums.size() / 4);
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const double* four = sums.data() + 4 * i;
    int first = 0, second = -1;
    for (int j = 1; j < 4; ++j) {
      if (four[j] > four[first]) first = j;
    }
    for (int j = 0; j < 4; ++j) {
      if (j != first && (second < 0 || four[j] > four[second])) second = j;
    }
    mask[i] = static_cast<std::uint8_t>((1 << first) | (1 << second));
  }
  return mask;
}

bool keeps(const TwoFourMask& mask, std::size_t i) { return (mask[i / 4] >> (i % 4) & 1) != 0; }

void make_masks(AnchorDelta& w, const std::vector<float>& differences, std::int64_t count) {
  const std::size_t size = index(w.rows * w.cols);
  const std::int64_t experts = static_cast<std::int64_t>(differences.size() / size);
  for (std::int64_t m = 0; m < std::min(count, experts); ++m) {
    std::vector<double> sums(size, 0);
    for (std::int64_t e = m; e < experts; e += count) {
      const float* d = differences.data() + index(e) * size;
      for (std::size_t i = 0; i < size; ++i) sums[i] += static_cast<double>(d[i]) * d[i];
    }
    w.masks.push_back(choose_mask(sums));
  }
  for (std::int64_t e = 0; e < experts; ++e) w.mask_of.push_back(static_cast<std::int32_t>(e % count));
}

void check_quant(const QuantTensor& q, const QuantArgs& args, std::int64_t rows, std::int64_t cols,
                 const std::string& where) {
  const bool sizes = q.args == args && q.rows == rows && q.cols == cols && q.zeros.empty() &&
                     static_cast<std::int64_t>(q.codes.size()) == rows * cols &&
                     static_cast<std::int64_t>(q.scales.size()) == rows * q.groups();
  if (!sizes) {
    throw Error(ErrorCode::bad_file, where + ": codes or scales do not have the size of the matrix",
                std::to_string(rows) + " x " + std::to_string(cols) + " codes and a scale per group");
  }
  if (!all_finite(q.scales)) throw Error(ErrorCode::bad_file, where + ": a scale is NaN or infinite", "finite scales");
  for (const std::uint8_t code : q.codes) {
    if (code > args.max_code()) {
      throw Error(ErrorCode::bad_file, where + ": a code is " + std::to_string(code),
                  "at most " + std::to_string(args.max_code()));
    }
  }
}

void check_masks(const AnchorDelta& w, const std::string& where) {
  if (w.masks.empty() && w.mask_of.empty()) return;
  if (w.masks.empty() || static_cast<std::int64_t>(w.mask_of.size()) != w.experts()) {
    throw Error(ErrorCode::bad_file, where + ": masks and the experts' mask ids do not match",
                "at least one mask, and a mask id per expert");
  }
  for (const TwoFourMask& mask : w.masks) {
    const bool good =
        static_cast<std::int64_t>(mask.size()) * 4 == w.rows * w.cols &&
        std::all_of(mask.begin(), mask.end(), [](std::uint8_t four) { return four < 16 && std::popcount(four) == 2; });
    if (!good) {
      throw Error(ErrorCode::bad_file, where + ": a 2:4 mask does not keep two of each four weights",
                  "two set bits per four neighbours");
    }
  }
  for (std::int64_t e = 0; e < w.experts(); ++e) {
    const std::int32_t id = w.mask_of[index(e)];
    if (id < 0 || id >= static_cast<std::int32_t>(w.masks.size())) {
      throw Error(ErrorCode::bad_file, of_expert(where, e) + " has mask " + std::to_string(id),
                  "a mask from 0 to " + std::to_string(w.masks.size() - 1));
    }
    const std::vector<std::uint8_t>& codes = w.deltas[index(e)].codes;
    for (std::size_t i = 0; i < codes.size(); ++i) {
      if (codes[i] != w.args.delta_args().mid_code() && !keeps(w.masks[index(id)], i)) {
        throw Error(ErrorCode::bad_file, of_expert(where, e) + ": a delta that its mask leaves out is not zero");
      }
    }
  }
}

void check_row_scales(const AnchorDelta& w, const std::string& where) {
  const std::int64_t expected = w.args.manifold == Manifold::sphere ? w.experts() * w.rows : 0;
  const auto count = static_cast<std::int64_t>(w.target_norm.size());
  if (static_cast<std::int64_t>(w.row_scale.size()) != expected || (count != 0 && count != expected)) {
    throw Error(ErrorCode::bad_file, where + ": row scales or target norms are missing or out of place",
                "one per expert and row on the sphere, none elsewhere");
  }
  if (!all_finite(w.row_scale) || !all_finite(w.target_norm)) {
    throw Error(ErrorCode::bad_file, where + ": a row scale or target norm is NaN or infinite", "finite ones");
  }
  if (expected == 0) return;
  if (!std::all_of(w.target_norm.begin(), w.target_norm.end(), [](float t) { return t > 0; })) {
    throw Error(ErrorCode::bad_file, where + ": a target norm is not positive", "positive norms");
  }
  std::vector<float> anchor(index(w.rows * w.cols)), sum(anchor.size()), scales(index(w.rows));
  decode_anchor(w, anchor);
  for (std::int64_t e = 0; e < w.experts(); ++e) {
    decode_sum(w, anchor, e, sum);
    sphere_row_scales(sum, w.rows, w.cols, targets(w, e), of_expert(where, e), scales);
    for (std::int64_t i = 0; i < w.rows; ++i) {
      const double stored = w.row_scale[index(e * w.rows + i)], exact = scales[index(i)];
      if (std::fabs(stored - exact) <= kRowNormTolerance * std::fabs(exact)) continue;
      throw Error(ErrorCode::mismatch,
                  of_expert(where, e) + ": the scale of row " + std::to_string(i) + " is " + std::to_string(stored),
                  std::to_string(exact) + ", which gives the row its norm", "write the file again");
    }
  }
}

}  // namespace

void check_args(const AnchorDeltaArgs& args, std::int64_t rows, std::int64_t cols, const std::string& where,
                ErrorCode code) {
  const auto fail = [&](const std::string& what, const std::string& expected) {
    throw Error(code, where + ": " + what, expected);
  };
  if (args.anchor_dtype != DType::f16 && args.anchor_dtype != DType::bf16 && args.anchor_dtype != DType::i8) {
    fail(std::string("an anchor of ") + dtype_name(args.anchor_dtype), "F16, BF16 or I8");
  }
  if (args.num_bits != 4 && args.num_bits != 2) {
    fail("deltas of " + std::to_string(args.num_bits) + " bits", "4 or 2 bits");
  }
  if (args.group_size != 32 && args.group_size != 64 && args.group_size != 128) {
    fail("groups of " + std::to_string(args.group_size), "groups of 32, 64 or 128");
  }
  if (rows < 1 || cols < 1 || rows > std::numeric_limits<std::int32_t>::max() / cols) {
    fail("a matrix of " + std::to_string(rows) + " x " + std::to_string(cols), "at least 1 x 1, below 2^31 elements");
  }
  if (cols % args.group_size != 0) {
    fail("groups of " + std::to_string(args.group_size) + " do not divide rows of " + std::to_string(cols),
         "a group that divides the row");
  }
  if (is_stiefel(args.manifold) && rows > cols) {
    fail(std::to_string(rows) + " rows of " + std::to_string(cols) + " cannot be orthonormal",
         "at most as many rows as columns on " + std::string(manifold_name(args.manifold)));
  }
}

AnchorDelta encode_anchor_delta(std::span<const float> weights, std::int64_t experts, std::int64_t rows,
                                std::int64_t cols, const AnchorDeltaArgs& args, const AnchorDeltaOptions& options,
                                const std::string& where) {
  check_args(args, rows, cols, where);
  KEDGE_CHECK(experts > 0 && static_cast<std::int64_t>(weights.size()) == experts * rows * cols && options.masks >= 0);
  if (!all_finite(weights)) {
    throw Error(ErrorCode::bad_file, where + ": a weight is NaN or infinite", "finite weights", "check the checkpoint");
  }
  AnchorDelta w;
  w.args = args;
  w.rows = rows;
  w.cols = cols;
  const std::size_t size = index(rows * cols);
  std::vector<float> placed(weights.begin(), weights.end());
  if (args.manifold == Manifold::sphere && options.keep_norms) {
    w.target_norm.resize(index(experts * rows));
    row_norms(weights, experts * rows, cols, w.target_norm);
  }
  std::vector<double> sums(size, 0);
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::span<float> one = std::span(placed).subspan(index(e) * size, size);
    retract(args.manifold, rows, cols, of_expert(where, e), one);
    for (std::size_t i = 0; i < size; ++i) sums[i] += one[i];
  }
  std::vector<float> anchor(size);
  for (std::size_t i = 0; i < size; ++i) anchor[i] = static_cast<float>(sums[i] / static_cast<double>(experts));
  set_anchor(w, anchor);
  decode_anchor(w, anchor);
  if (!all_finite(anchor)) {
    throw Error(ErrorCode::bad_file, where + ": the anchor is beyond the range of " + dtype_name(args.anchor_dtype),
                "weights that the anchor's type can hold", "use a bfloat16 anchor");
  }
  for (std::size_t i = 0; i < placed.size(); ++i) placed[i] -= anchor[i % size];
  if (options.masks > 0) make_masks(w, placed, options.masks);
  ScaleSearch search = options.search;
  search.importance = {};
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::span<float> one = std::span(placed).subspan(index(e) * size, size);
    for (std::size_t i = 0; options.masks > 0 && i < size; ++i) {
      if (!keeps(w.masks[index(w.mask_of[index(e)])], i)) one[i] = 0;
    }
    w.deltas.push_back(quantize_rtn(one, rows, cols, args.delta_args(), DType::f16, search));
  }
  set_row_scales(w, where);
  return w;
}

void set_anchor(AnchorDelta& w, std::span<const float> anchor) {
  KEDGE_CHECK(static_cast<std::int64_t>(anchor.size()) == w.rows * w.cols);
  if (w.args.anchor_dtype == DType::i8) {
    w.anchor_codes = quantize_rtn(anchor, w.rows, w.cols, w.args.anchor_args(), DType::f16);
    return;
  }
  w.anchor = Tensor(w.args.anchor_dtype, {w.rows, w.cols});
  convert_from_float(w.args.anchor_dtype, anchor.data(), w.rows * w.cols, w.anchor.data<std::byte>());
}

void decode_anchor(const AnchorDelta& w, std::span<float> out) {
  KEDGE_CHECK(static_cast<std::int64_t>(out.size()) == w.rows * w.cols);
  if (w.args.anchor_dtype == DType::i8) {
    dequantize(w.anchor_codes, out);
  } else {
    convert_to_float(w.args.anchor_dtype, w.anchor.data<std::byte>(), w.rows * w.cols, out.data());
  }
}

void decode(const AnchorDelta& w, std::int64_t expert, std::span<float> out) {
  KEDGE_CHECK(expert >= 0 && expert < w.experts());
  std::vector<float> anchor(index(w.rows * w.cols));
  decode_anchor(w, anchor);
  decode_with(w, anchor, expert, out);
}

void set_row_scales(AnchorDelta& w, const std::string& where) {
  w.row_scale.clear();
  if (w.args.manifold != Manifold::sphere) return;
  w.row_scale.resize(index(w.experts() * w.rows));
  std::vector<float> anchor(index(w.rows * w.cols)), sum(anchor.size());
  decode_anchor(w, anchor);
  for (std::int64_t e = 0; e < w.experts(); ++e) {
    decode_sum(w, anchor, e, sum);
    sphere_row_scales(sum, w.rows, w.cols, targets(w, e), of_expert(where, e),
                      std::span(w.row_scale).subspan(index(e * w.rows), index(w.rows)));
  }
}

double manifold_error(const AnchorDelta& w) {
  if (w.args.manifold == Manifold::none) return 0;
  double worst = 0;
  std::vector<float> anchor(index(w.rows * w.cols)), one(anchor.size());
  decode_anchor(w, anchor);
  for (std::int64_t e = 0; e < w.experts(); ++e) {
    decode_with(w, anchor, e, one);
    if (is_stiefel(w.args.manifold)) {
      worst = std::max(worst, orthonormality_error(one, w.rows, w.cols));
      continue;
    }
    for (std::int64_t i = 0; i < w.rows; ++i) {
      double square = 0;
      for (std::int64_t k = 0; k < w.cols; ++k) {
        const double value = one[index(i * w.cols + k)];
        square += value * value;
      }
      const double target = w.target_norm.empty() ? 1.0 : w.target_norm[index(e * w.rows + i)];
      worst = std::max(worst, std::fabs(std::sqrt(square) - target) / target);
    }
  }
  return worst;
}

double bits_per_weight(const AnchorDelta& w) noexcept { return bits_per_weight(w.shape()); }

double bits_per_weight(const StackShape& w) noexcept {
  const double experts = static_cast<double>(w.experts), cols = static_cast<double>(w.cols);
  const double scales = 16.0 / static_cast<double>(w.args.group_size);
  const double anchor = w.args.anchor_dtype == DType::i8 ? 8 + scales : 16;
  const double vectors = (w.args.manifold == Manifold::sphere ? 1 : 0) + (w.target_norms ? 1 : 0);
  const double codes = w.masks == 0 ? w.args.num_bits : w.args.num_bits / 2.0;
  const double masks = static_cast<double>(w.masks);  // four bits per four weights
  return anchor / experts + codes + scales + masks / experts + 32 * vectors / cols;
}

void check_anchor_delta(const AnchorDelta& w, const std::string& where) {
  check_args(w.args, w.rows, w.cols, where, ErrorCode::bad_file);
  if (w.deltas.empty()) throw Error(ErrorCode::bad_file, where + " has no experts", "at least one");
  if (w.args.anchor_dtype == DType::i8) {
    check_quant(w.anchor_codes, w.args.anchor_args(), w.rows, w.cols, where + ", anchor");
  } else if (w.anchor.dtype() != w.args.anchor_dtype || w.anchor.shape() != Shape{w.rows, w.cols}) {
    throw Error(ErrorCode::bad_file,
                where + ": the anchor is " + dtype_name(w.anchor.dtype()) + " " + shape_string(w.anchor.shape()),
                std::string(dtype_name(w.args.anchor_dtype)) + " " + shape_string({w.rows, w.cols}));
  }
  std::vector<float> anchor(index(w.rows * w.cols));
  decode_anchor(w, anchor);
  if (!all_finite(anchor)) {
    throw Error(ErrorCode::bad_file, where + ": the anchor holds a NaN or an infinity", "finite numbers",
                "write the file again from its source");
  }
  for (std::int64_t e = 0; e < w.experts(); ++e) {
    check_quant(w.deltas[index(e)], w.args.delta_args(), w.rows, w.cols, of_expert(where, e));
  }
  check_masks(w, where);
  check_row_scales(w, where);
}

}  // namespace kedge
