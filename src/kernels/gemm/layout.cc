#include "kernels/gemm/layout.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::size_t kSpare = 64;
constexpr float kScaleLimit = 0x1p100f;
constexpr float kSmallestInputScale = 0x1p-118f;  // 1 / s and what it multiplies stay finite

std::size_t round_up(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

ScaleType narrowest(const std::vector<float>& scales) {
  bool bf16 = true, f16 = true;
  for (float s : scales) {
    if (!(std::fabs(s) < kScaleLimit)) {
      throw Error(ErrorCode::bad_file, "a weight's scale is " + std::to_string(s),
                  "finite scales below 2^100", "check the checkpoint or quantize it again");
    }
    bf16 = bf16 && std::bit_cast<std::uint32_t>(to_float(to_bfloat16(s))) == std::bit_cast<std::uint32_t>(s);
    f16 = f16 && std::bit_cast<std::uint32_t>(to_float(to_float16(s))) == std::bit_cast<std::uint32_t>(s);
  }
  return bf16 ? ScaleType::bf16 : f16 ? ScaleType::f16 : ScaleType::f32;
}

PackedWeight allocate(const GemmDesc& desc, const LoadOptions& options) {
  PackedWeight w;
  w.desc_ = desc;
  w.options_ = options;
  w.layout_ = kGemmLayoutVersion;
  w.bytes_ = storage_map(desc).total;
  w.storage_ = Buffer(w.bytes_);
  w.bytes_at_ = w.storage_.data();
  return w;
}

// source: row-major [n, k] of T; out: [panels][k][16].
template <class T>
void pack_plain(const std::byte* source, std::int64_t n, std::int64_t k, std::byte* out) {
  constexpr std::int64_t kBlock = 32;
  for (std::int64_t p = 0; p < panel_count(n); ++p) {
    std::byte* panel = out + static_cast<std::size_t>(p * k * kPanel) * sizeof(T);
    const std::int64_t lanes = std::min(kPanel, n - p * kPanel);
    if (lanes < kPanel) {
      std::memset(panel, 0, static_cast<std::size_t>(k * kPanel) * sizeof(T));
    }
    for (std::int64_t k0 = 0; k0 < k; k0 += kBlock) {
      const std::int64_t k1 = std::min(k, k0 + kBlock);
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        const std::byte* row = source + static_cast<std::size_t>((p * kPanel + lane) * k) * sizeof(T);
        for (std::int64_t i = k0; i < k1; ++i) {
          std::memcpy(panel + static_cast<std::size_t>(i * kPanel + lane) * sizeof(T),
                      row + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
        }
      }
    }
  }
}

// One output's codes into its lane of a panel; `lane` points at the lane's first word.
void pack_codes8(const std::uint8_t* row, std::int64_t k, std::uint8_t* lane) {
  std::int64_t i = 0;
  for (; i + 4 <= k; i += 4) {
    std::memcpy(lane + i * kPanel, row + i, 4);
  }
  if (i < k) {
    std::memcpy(lane + i * kPanel, row + i, static_cast<std::size_t>(k - i));
  }
}

void pack_codes4(const std::uint8_t* row, std::int64_t k, std::uint8_t* lane) {
  for (std::int64_t i = 0; i < k; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, row + i, static_cast<std::size_t>(std::min<std::int64_t>(8, k - i)));
    const auto packed = static_cast<std::uint32_t>((word & 0x0F0F0F0Fu) | ((word >> 32 & 0x0F0F0F0Fu) << 4));
    std::memcpy(lane + i / 8 * kPanel * 4, &packed, 4);
  }
}

void store_scale(ScaleType type, float value, std::byte* at) {
  if (type == ScaleType::f32) {
    std::memcpy(at, &value, 4);
  } else {
    const std::uint16_t bits = type == ScaleType::bf16 ? to_bfloat16(value).bits : to_float16(value).bits;
    std::memcpy(at, &bits, 2);
  }
}

}  // namespace

const char* weight_format_name(WeightFormat format) noexcept {
  switch (format) {
    case WeightFormat::f32: return "f32";
    case WeightFormat::bf16: return "bf16";
    case WeightFormat::f16: return "f16";
    case WeightFormat::affine4: return "affine4";
    case WeightFormat::affine8: return "affine8";
  }
  return "?";
}

bool is_affine(WeightFormat format) noexcept {
  return format == WeightFormat::affine4 || format == WeightFormat::affine8;
}

std::int64_t panel_count(std::int64_t n) noexcept { return (n + kPanel - 1) / kPanel; }

std::int64_t group_count(const GemmDesc& desc) noexcept {
  return is_affine(desc.format) && desc.group > 0 ? (desc.k + desc.group - 1) / desc.group : 0;
}

std::int64_t panel_bytes(const GemmDesc& desc) noexcept {
  switch (desc.format) {
    case WeightFormat::f32: return desc.k * kPanel * 4;
    case WeightFormat::bf16:
    case WeightFormat::f16: return desc.k * kPanel * 2;
    case WeightFormat::affine8: return (desc.k + 3) / 4 * kPanel * 4;
    case WeightFormat::affine4: return (desc.k + 7) / 8 * kPanel * 4;
  }
  return 0;
}

std::size_t scale_bytes(ScaleType type) noexcept { return type == ScaleType::f32 ? 4 : 2; }

StorageMap storage_map(const GemmDesc& desc) noexcept {
  const auto scale_count = static_cast<std::size_t>(panel_count(desc.n) * group_count(desc) * kPanel);
  StorageMap map{};
  map.codes = kSpare;
  map.scales = map.codes + round_up(static_cast<std::size_t>(panel_count(desc.n) * panel_bytes(desc))) + kSpare;
  map.zeros = map.scales + round_up(scale_count * scale_bytes(desc.scale_type));
  map.total = map.zeros + (desc.asymmetric ? round_up(scale_count) : 0);
  return map;
}

PackedWeight pack_weight(const TensorView& weight, const LoadOptions& options) {
  KEDGE_CHECK(weight.shape.size() == 2 && is_convertible_float(weight.dtype));
  GemmDesc desc;
  desc.n = weight.shape[0];
  desc.k = weight.shape[1];
  desc.format = weight.dtype == DType::bf16  ? WeightFormat::bf16
                : weight.dtype == DType::f16 ? WeightFormat::f16
                                             : WeightFormat::f32;
  PackedWeight packed = allocate(desc, options);
  std::memset(packed.storage_.data(), 0, kSpare);
  std::byte* codes = packed.storage_.data() + storage_map(desc).codes;
  if (weight.dtype == DType::f64) {
    std::vector<float> narrow(static_cast<std::size_t>(weight.size()));
    convert_to_float(weight.dtype, weight.data, weight.size(), narrow.data());
    pack_plain<float>(reinterpret_cast<const std::byte*>(narrow.data()), desc.n, desc.k, codes);
  } else if (desc.format == WeightFormat::f32) {
    pack_plain<float>(weight.data, desc.n, desc.k, codes);
  } else {
    pack_plain<std::uint16_t>(weight.data, desc.n, desc.k, codes);
  }
  return packed;
}

PackedWeight pack_weight(const QuantTensor& weight, const LoadOptions& options) {
  const std::int64_t groups = weight.groups();
  KEDGE_CHECK(static_cast<std::int64_t>(weight.codes.size()) == weight.rows * weight.cols);
  KEDGE_CHECK(static_cast<std::int64_t>(weight.scales.size()) == weight.rows * groups);
  KEDGE_CHECK(weight.zeros.empty() || weight.zeros.size() == weight.scales.size());
  GemmDesc desc;
  desc.n = weight.rows;
  desc.k = weight.cols;
  desc.format = weight.args.num_bits <= 4 ? WeightFormat::affine4 : WeightFormat::affine8;
  desc.group = weight.group();
  desc.asymmetric = !weight.zeros.empty();
  desc.zero_point = desc.asymmetric ? 0 : weight.args.mid_code();
  desc.scale_type = narrowest(weight.scales);
  if (weight.input_scale != 0 && !(weight.input_scale >= kSmallestInputScale && weight.input_scale < kScaleLimit)) {
    throw Error(ErrorCode::bad_file, "a static activation scale is " + std::to_string(weight.input_scale),
                "a positive number below 2^100", "check the checkpoint or quantize it again");
  }
  desc.input_scale = weight.input_scale;
  PackedWeight packed = allocate(desc, options);
  const StorageMap map = storage_map(desc);
  std::byte* base = packed.storage_.data();
  std::memset(base, 0, map.total);
  auto* codes = reinterpret_cast<std::uint8_t*>(base + map.codes);
  const std::size_t scale_size = scale_bytes(desc.scale_type);
  for (std::int64_t n = 0; n < desc.n; ++n) {
    const std::int64_t p = n / kPanel, lane = n % kPanel;
    std::uint8_t* to = codes + p * panel_bytes(desc) + lane * 4;
    const std::uint8_t* row = weight.codes.data() + n * desc.k;
    if (desc.format == WeightFormat::affine4) {
      pack_codes4(row, desc.k, to);
    } else {
      pack_codes8(row, desc.k, to);
    }
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::size_t at = static_cast<std::size_t>((p * groups + g) * kPanel + lane);
      const std::size_t from = static_cast<std::size_t>(n * groups + g);
      store_scale(desc.scale_type, weight.scales[from], base + map.scales + at * scale_size);
      if (desc.asymmetric) {
        base[map.zeros + at] = std::byte{weight.zeros[from]};
      }
    }
  }
  return packed;
}

std::shared_ptr<const PackedAnchor> pack_anchor(PackedWeight anchor) {
  KEDGE_CHECK(anchor.desc_.format != WeightFormat::f32 && anchor.desc_.format != WeightFormat::affine4);
  auto shared = std::make_shared<PackedAnchor>();
  shared->weight = std::move(anchor);
  shared->view = weight_view(shared->weight);
  return shared;
}

std::size_t anchor_bytes(const PackedAnchor& anchor) noexcept { return anchor.weight.num_bytes(); }

PackedWeight pack_anchored(const QuantTensor& delta, std::shared_ptr<const PackedAnchor> anchor,
                           std::span<const float> row_scale, const LoadOptions& options) {
  PackedWeight packed = pack_weight(delta, options);
  GemmDesc& desc = packed.desc_;
  const GemmDesc& shared = anchor->weight.desc_;
  KEDGE_CHECK(desc.format == WeightFormat::affine4 && desc.scale_type != ScaleType::f32 && !desc.asymmetric);
  KEDGE_CHECK(shared.n == desc.n && shared.k == desc.k && (!is_affine(shared.format) || shared.group == desc.group));
  KEDGE_CHECK(row_scale.empty() || static_cast<std::int64_t>(row_scale.size()) == desc.n);
  desc.anchored = true;
  packed.anchor_ = std::move(anchor);
  packed.row_scale_.assign(static_cast<std::size_t>(panel_count(desc.n) * kPanel), 1.0f);
  std::copy(row_scale.begin(), row_scale.end(), packed.row_scale_.begin());
  return packed;
}

WeightView weight_view(const PackedWeight& weight) noexcept {
  const GemmDesc& desc = weight.desc_;
  const StorageMap map = storage_map(desc);
  const auto* base = reinterpret_cast<const std::uint8_t*>(weight.bytes_at_);
  WeightView view{};
  view.codes = base + map.codes;
  view.scales = base + map.scales;
  view.zeros = desc.asymmetric ? base + map.zeros : nullptr;
  view.n = desc.n;
  view.k = desc.k;
  view.group = is_affine(desc.format) ? desc.group : desc.k;
  view.groups = group_count(desc);
  view.panel_bytes = panel_bytes(desc);
  view.format = desc.format;
  view.scale_type = desc.scale_type;
  view.zero_point = desc.zero_point;
  view.input_scale = desc.input_scale;
  view.anchor = desc.anchored ? &weight.anchor_->view : nullptr;
  view.row_scale = weight.row_scale_.data();
  return view;
}

int code_at(const WeightView& w, std::int64_t n, std::int64_t k) noexcept {
  const std::uint8_t* panel = w.codes + n / kPanel * w.panel_bytes;
  const std::int64_t lane = n % kPanel;
  if (w.format == WeightFormat::affine8) {
    return panel[(k / 4 * kPanel + lane) * 4 + k % 4];
  }
  const int byte = panel[(k / 8 * kPanel + lane) * 4 + k % 4];
  return k % 8 < 4 ? byte & 15 : byte >> 4;
}

int zero_at(const WeightView& w, std::int64_t n, std::int64_t g) noexcept {
  return w.zeros == nullptr ? w.zero_point : w.zeros[(n / kPanel * w.groups + g) * kPanel + n % kPanel];
}

float scale_at(const WeightView& w, std::int64_t n, std::int64_t g) noexcept {
  const std::int64_t at = (n / kPanel * w.groups + g) * kPanel + n % kPanel;
  if (w.scale_type == ScaleType::f32) {
    return static_cast<const float*>(w.scales)[at];
  }
  const std::uint16_t bits = static_cast<const std::uint16_t*>(w.scales)[at];
  return w.scale_type == ScaleType::bf16 ? to_float(bfloat16{bits}) : to_float(float16{bits});
}

float weight_at(const WeightView& w, std::int64_t n, std::int64_t k) noexcept {
  if (is_affine(w.format)) {
    const std::int64_t g = k / w.group;
    const float value = static_cast<float>(code_at(w, n, k) - zero_at(w, n, g)) * scale_at(w, n, g);
    return w.anchor == nullptr ? value : w.row_scale[n] * (weight_at(*w.anchor, n, k) + value);
  }
  const std::int64_t at = k * kPanel + n % kPanel;
  const std::uint8_t* panel = w.codes + n / kPanel * w.panel_bytes;
  if (w.format == WeightFormat::f32) {
    return reinterpret_cast<const float*>(panel)[at];
  }
  const std::uint16_t bits = reinterpret_cast<const std::uint16_t*>(panel)[at];
  return w.format == WeightFormat::bf16 ? to_float(bfloat16{bits}) : to_float(float16{bits});
}

}  // namespace kedge
