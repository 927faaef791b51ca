#include "nn/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace kedge {
namespace {

/// theta^(2i / d), [d / 2], as torch computes a scalar to an fp32 tensor.
std::vector<float> powers(const RopeSpec& spec) {
  std::vector<float> out(static_cast<std::size_t>(spec.rotary_dim / 2));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(spec.rotary_dim);
    out[i] = static_cast<float>(std::pow(static_cast<double>(spec.theta), static_cast<double>(exponent)));
  }
  return out;
}

float llama3_frequency(const RopeSpec& spec, float inv_freq) {
  const auto context = static_cast<float>(spec.original_max_position_embeddings);
  const float long_wavelength = context / spec.low_freq_factor;
  const float short_wavelength = context / spec.high_freq_factor;
  const float wavelength = static_cast<float>(2.0 * std::numbers::pi) / inv_freq;
  if (wavelength > long_wavelength) return inv_freq / spec.factor;
  if (wavelength < short_wavelength) return inv_freq;
  const float smooth = (context / wavelength - spec.low_freq_factor) / (spec.high_freq_factor - spec.low_freq_factor);
  return (1.0f - smooth) * inv_freq / spec.factor + smooth * inv_freq;
}

/// The dimension that makes `rotations` turns over the original context.
double yarn_dimension(const RopeSpec& spec, double rotations) {
  const auto context = static_cast<double>(spec.original_max_position_embeddings);
  return static_cast<double>(spec.rotary_dim) * std::log(context / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(static_cast<double>(spec.theta)));
}

std::vector<float> yarn_frequencies(const RopeSpec& spec, const std::vector<float>& power) {
  double low = yarn_dimension(spec, spec.beta_fast);
  double high = yarn_dimension(spec, spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(spec.rotary_dim - 1));
  if (low == high) high += 0.001;  // as transformers: keeps the ramp finite

  std::vector<float> out(power.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const float position = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float keep = 1.0f - std::clamp(position, 0.0f, 1.0f);
    const float extrapolated = 1.0f / power[i];
    const float interpolated = 1.0f / (spec.factor * power[i]);
    out[i] = interpolated * (1.0f - keep) + extrapolated * keep;
  }
  return out;
}

float yarn_attention_factor(const RopeSpec& spec) {
  if (spec.attention_factor != 0.0f) return spec.attention_factor;
  if (spec.mscale != 0.0f && spec.mscale_all_dim != 0.0f) {
    return static_cast<float>(yarn_mscale(spec.factor, spec.mscale) / yarn_mscale(spec.factor, spec.mscale_all_dim));
  }
  return static_cast<float>(yarn_mscale(spec.factor, 1.0));
}

}  // namespace

double yarn_mscale(double scale, double mscale) { return scale <= 1.0 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0; }

RopeFrequencies rope_frequencies(const RopeSpec& spec) {
  KEDGE_CHECK(spec.rotary_dim > 0 && spec.rotary_dim % 2 == 0);
  RopeFrequencies out;
  const std::vector<float> power = powers(spec);
  if (spec.type == RopeSpec::Type::yarn) {
    out.inv_freq = yarn_frequencies(spec, power);
    out.attention_factor = yarn_attention_factor(spec);
    return out;
  }
  for (const float p : power) {
    const float inv_freq = 1.0f / p;
    switch (spec.type) {
      case RopeSpec::Type::linear: out.inv_freq.push_back(inv_freq / spec.factor); break;
      case RopeSpec::Type::llama3: out.inv_freq.push_back(llama3_frequency(spec, inv_freq)); break;
      default: out.inv_freq.push_back(inv_freq);
    }
  }
  return out;
}

RopeTable make_rope_table(const RopeSpec& spec, std::int64_t positions) {
  RopeFrequencies frequencies = rope_frequencies(spec);
  RopeTable table(std::move(frequencies.inv_freq), frequencies.attention_factor);
  table.reserve(positions);
  return table;
}

float mla_softmax_scale(const Mla& spec) {
  double scale = 1.0 / std::sqrt(static_cast<double>(spec.qk_nope_head_dim + spec.qk_rope_head_dim));
  if (spec.rope.type != RopeSpec::Type::standard && spec.rope.mscale_all_dim != 0.0f) {
    const double mscale = yarn_mscale(spec.rope.factor, spec.rope.mscale_all_dim);
    scale *= mscale * mscale;
  }
  return static_cast<float>(scale);
}

}  // namespace kedge
