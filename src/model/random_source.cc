#include "model/random_source.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/rng.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// Matrices begin at one of so many places of the pool (in steps of 64 elements). Matrices may overlap there; what is
// built from them is packed into memory of its own.
constexpr std::size_t kPlaces = 4096;
constexpr std::size_t kStep = 64;
// transformers' initializer_range.
constexpr float kDeviation = 0.02f;

bool is_kept_plain(const std::string& module) {
  return module.ends_with("lm_head") || module.ends_with("embed_tokens") || module.ends_with(".mlp.gate");
}

std::uint64_t hash_name(const std::string& name, std::uint64_t seed) {
  std::uint64_t hash = 0xcbf29ce484222325ull ^ seed;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace

RandomSource::RandomSource(const std::string& scheme, std::uint64_t seed, std::int64_t longest) : seed_(seed) {
  if (scheme == "f32") {
    dtype_ = DType::f32;
  } else if (scheme != "bf16") {
    args_ = parse_matrix_scheme(scheme).weights;
  }
  const std::int64_t length = longest + static_cast<std::int64_t>(kPlaces * kStep);
  pool_ = Tensor(dtype_, {length});
  Rng rng(seed);
  // Sums of four uniform values: near enough to normal, and quick.
  for (std::int64_t i = 0; i < length; ++i) {
    const std::uint64_t bits = rng.next();
    const auto sum =
        static_cast<float>((bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48));
    const float value = (sum / 65536.0f - 2.0f) * 1.7320508f * kDeviation;
    if (dtype_ == DType::f32) {
      pool_.data<float>()[i] = value;
    } else {
      pool_.data<bfloat16>()[i] = to_bfloat16(value);
    }
  }
  if (!args_) return;
  codes_.resize(static_cast<std::size_t>(length));
  const auto mask = static_cast<std::uint8_t>(args_->max_code());
  for (std::size_t i = 0; i < codes_.size(); i += 8) {
    std::uint64_t bits = rng.next();
    for (std::size_t j = i; j < std::min(i + 8, codes_.size()); ++j, bits >>= 8) {
      codes_[j] = static_cast<std::uint8_t>(bits) & mask;
    }
  }
}

std::size_t RandomSource::place(const std::string& module) const { return hash_name(module, seed_) % kPlaces * kStep; }

WeightData RandomSource::weight(const std::string& module, std::int64_t rows, std::int64_t cols) const {
  const std::size_t begin = place(module);
  if (!args_ || is_kept_plain(module)) {
    return TensorView{dtype_, {rows, cols}, pool_.data<std::byte>() + begin * dtype_bits(dtype_) / 8};
  }
  QuantTensor q;
  q.args = *args_;
  q.rows = rows;
  q.cols = cols;
  if (cols % q.group() != 0) {
    throw Error(ErrorCode::usage,
                fmt::format("groups of {} do not divide the {} inputs of '{}'", q.group(), cols, module),
                "a scheme whose group divides every matrix");
  }
  q.codes.assign(codes_.begin() + static_cast<std::ptrdiff_t>(begin),
                 codes_.begin() + static_cast<std::ptrdiff_t>(begin) + rows * cols);
  // The deviation of uniform codes is their range / sqrt(12).
  const float scale = kDeviation * 3.4641016f / static_cast<float>(args_->max_code());
  q.scales.resize(static_cast<std::size_t>(rows * q.groups()));
  for (std::size_t i = 0; i < q.scales.size(); ++i) {
    q.scales[i] = to_float(to_bfloat16(scale * (0.75f + 0.5f * static_cast<float>((begin + i * 37) % 64) / 64.0f)));
  }
  if (!args_->symmetric) {
    q.zeros.resize(q.scales.size());
    for (std::size_t i = 0; i < q.zeros.size(); ++i) {
      q.zeros[i] = static_cast<std::uint8_t>(args_->mid_code() + static_cast<int>(i % 3) - 1);
    }
  }
  return q;
}

std::vector<float> RandomSource::vector(const std::string& name, std::int64_t size) const {
  std::vector<float> out(static_cast<std::size_t>(size));
  const bool is_norm = name.ends_with("norm.weight");
  Rng rng(hash_name(name, seed_));
  for (float& value : out) value = static_cast<float>((is_norm ? 1.0 : 0.0) + kDeviation * rng.normal());
  return out;
}

}  // namespace kedge
