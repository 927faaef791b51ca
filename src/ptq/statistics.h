// What calibration knows about the input of a linear: sums over the tokens that reach it.
#pragma once

#include <cstdint>
#include <vector>

namespace kedge {

/// x: an input row on the quantized path, x~: the same token's on the original path, c: the row's weight (1, or the
/// gate's score where Hessians are weighted by it, MoEQuant arXiv 2505.03804: H = 2/N sum c x x^T).
struct InputStatistics {
  std::int64_t size = 0;     ///< K
  std::int64_t tokens = 0;   ///< rows seen
  bool all_tokens = false;   ///< an expert with too few tokens of its own: over all tokens instead
  std::vector<float> gram;   ///< [K, K], sum c x x^T; the upper triangle alone
  std::vector<float> cross;  ///< [K, K], sum c (x~ - x) x^T; empty unless the method asks (GPTAQ)
  /// [N, K], sum d x^T with d [N] what the outputs should carry besides: empty unless the method asks for it and the
  /// linear writes to the residual stream.
  std::vector<float> residual;
};

}  // namespace kedge
