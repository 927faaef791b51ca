// AWQ (arXiv 2306.00978): columns that meet large inputs are scaled up before rounding, and the scale is folded into
// what comes before (ptq/layers/fold.h). No gradients, nothing to pay at run time.
//
//   s = rms(x)^alpha / sqrt(max * min), alpha of 0, 1/20, ..., 19/20 with the least
//   sum over the site's matrices of tr((W - W^) G (W - W^)^T),  W^ = Q(W diag(s)) diag(1/s)
// G: the Gram of the matrix's inputs on the quantized path, observed while nothing of the block is quantized; Q: round
// to nearest with the recipe's scale search. Matrices of more than 512 rows are judged by 512 of them, evenly spaced.
// The paper takes the mean of |x| and a block's output error, and clips; here the rms, and
// MethodParameters::scale_search. Left out where nothing moves: alpha = 0 is round to nearest.
#pragma once

#include <vector>

#include "ptq/layers/fold.h"
#include "ptq/methods.h"

namespace kedge {

/// Rounding of the scaled weights.
QuantTensor awq(const MethodInput& input);
/// Searches and folds the scales of one block.
std::vector<FoldReport> awq_fold(const BlockFold& fold);

}  // namespace kedge
