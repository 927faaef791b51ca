#include "train/batches.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"

namespace kedge::training {
namespace {

at::Tensor empty_ids(std::int64_t count, std::int64_t length) {
  return at::empty({count, length}, at::TensorOptions().dtype(at::kLong));
}

}  // namespace

Batches::Batches(const std::vector<std::vector<std::int32_t>>& rows, std::int64_t batch_size, bool shuffle,
                 std::uint64_t seed)
    : rows_(rows), batch_size_(batch_size), shuffle_(shuffle), seed_(seed), order_(rows.size()) {
  KEDGE_CHECK(!rows.empty() && batch_size > 0);
}

void Batches::draw(std::int64_t pass) {
  pass_ = pass;
  std::iota(order_.begin(), order_.end(), 0);
  if (!shuffle_) return;
  Rng rng(seed_ ^ (0x9e3779b97f4a7c15ull * static_cast<std::uint64_t>(pass + 1)));
  for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[rng.below(i)]);
}

std::vector<std::int64_t> Batches::rows_of(std::int64_t step) {
  const auto count = static_cast<std::int64_t>(rows_.size());
  std::vector<std::int64_t> out;
  for (std::int64_t i = (step - 1) * batch_size_; i < step * batch_size_; ++i) {
    if (i / count != pass_) draw(i / count);
    out.push_back(order_[static_cast<std::size_t>(i % count)]);
  }
  return out;
}

at::Tensor Batches::at_step(std::int64_t step) {
  const std::vector<std::int64_t> chosen = rows_of(step);
  at::Tensor ids = empty_ids(batch_size_, static_cast<std::int64_t>(rows_[0].size()));
  auto* to = ids.mutable_data_ptr<std::int64_t>();
  for (const std::int64_t row : chosen) {
    to = std::copy(rows_[static_cast<std::size_t>(row)].begin(), rows_[static_cast<std::size_t>(row)].end(), to);
  }
  return ids;
}

at::Tensor rows_tensor(const std::vector<std::vector<std::int32_t>>& rows, std::int64_t begin, std::int64_t end) {
  at::Tensor ids = empty_ids(end - begin, static_cast<std::int64_t>(rows[static_cast<std::size_t>(begin)].size()));
  auto* to = ids.mutable_data_ptr<std::int64_t>();
  for (std::int64_t r = begin; r < end; ++r) {
    const auto& row = rows[static_cast<std::size_t>(r)];
    KEDGE_CHECK(static_cast<std::int64_t>(row.size()) == ids.size(1));
    to = std::copy(row.begin(), row.end(), to);
  }
  return ids;
}

}  // namespace kedge::training
