// Which sequences a step sees: a function of seed and step alone, so that a resumed run needs no state.
#pragma once

#include <cstdint>
#include <vector>

#include "twin/tensor.h"

namespace kedge::training {

/// Step t (from 1) takes positions (t - 1) B to t B - 1 of pass after pass over the rows; each pass in an order of its
/// own, drawn from (seed, pass), or as they are.
class Batches {
 public:
  /// rows: of equal length, at least one; must outlive this.
  Batches(const std::vector<std::vector<std::int32_t>>& rows, std::int64_t batch_size, bool shuffle,
          std::uint64_t seed);
  /// [B, T] int64.
  at::Tensor at_step(std::int64_t step);
  std::vector<std::int64_t> rows_of(std::int64_t step);

 private:
  void draw(std::int64_t pass);

  const std::vector<std::vector<std::int32_t>>& rows_;
  std::int64_t batch_size_;
  bool shuffle_;
  std::uint64_t seed_;
  std::int64_t pass_ = -1;
  std::vector<std::int64_t> order_;
};

/// Rows [begin, end) as [n, T] int64.
at::Tensor rows_tensor(const std::vector<std::vector<std::int32_t>>& rows, std::int64_t begin, std::int64_t end);

}  // namespace kedge::training
