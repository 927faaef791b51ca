// The hidden units of a layer's experts in orders in which the experts are alike.
//
// The hidden units of a gated FFN may stand in any order: with P a permutation, P gate, P up and down P^T compute what
// gate, up and down do. Unit i of an expert is the vector of its row of gate, its row of up and its column of down,
// each projection divided by its root mean square over the layer. Every expert's units are assigned to those of the sum
// of the others (ptq/anchor/assignment.h) so that inner products are largest: first expert by expert against the sum so
// far, then once more against all others. Source of alignment by assignment: Ainsworth, Hayase, Srinivasa, Git Re-Basin
// (arXiv 2209.04836), section 3.2.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/exec.h"
#include "nn/weight_source.h"

namespace kedge {

struct ExpertShape {
  std::int64_t experts = 0, hidden_size = 0, intermediate_size = 0;  ///< E, H, I
};

struct Alignment {
  std::vector<std::vector<std::int32_t>>
      order;  ///< [E][I]: unit j of the aligned expert is unit order[j] of the original
  /// Of the experts' squared weights (each projection counts alike), the share that their mean holds.
  double shared_before = 0, shared_after = 0;
};

/// prefix: "model.layers.1.mlp.experts". Where no order shares more than the one that is there, that one stays.
Alignment align_experts(const ExecContext& ctx, Isa isa, const WeightSource& source, const std::string& prefix,
                        const ExpertShape& shape);

/// Of a matrix [rows, cols] in fp32: its rows, or its columns, in that order.
Tensor reorder_rows(const Tensor& matrix, const std::vector<std::int32_t>& order);
Tensor reorder_columns(const Tensor& matrix, const std::vector<std::int32_t>& order);

}  // namespace kedge
