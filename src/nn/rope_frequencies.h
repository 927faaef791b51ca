// Inverse frequencies of rotary embeddings, as transformers' ROPE_INIT_FUNCTIONS compute them.
//
//   standard: f[i] = 1 / theta^(2i / d)                      linear: f[i] / factor
//   llama3:   long wavelengths divided by factor, short ones kept, a linear ramp between (Llama 3.1 report)
//   yarn:     ramp between f and f / factor over dimensions; cos and sin scaled (arXiv 2309.00071)
// Every step is rounded to fp32 as the tensors there are. The power is computed in double and rounded once: ISA
// variants of the C library's pow differ far below that rounding.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/rope/rope.h"
#include "nn/mixers.h"

namespace kedge {

struct RopeFrequencies {
  std::vector<float> inv_freq;  ///< [rotary_dim / 2]
  float attention_factor = 1.0f;
};

RopeFrequencies rope_frequencies(const RopeSpec& spec);
/// A table reserved for positions [0, positions).
RopeTable make_rope_table(const RopeSpec& spec, std::int64_t positions);

/// 0.1 * mscale * ln(scale) + 1, and 1 for scale <= 1 (YaRN).
double yarn_mscale(double scale, double mscale);
/// Softmax scale of latent attention: qk_head_dim^-0.5, times yarn_mscale(factor, mscale_all_dim)^2 where a scaled
/// rope sets mscale_all_dim (DeepSeek-V3).
float mla_softmax_scale(const Mla& spec);

}  // namespace kedge
