// Keys and values of one sequence in one attention block, fp32, and the rows that a batch gives to a sequence.
#pragma once

#include <cstdint>

#include "kernels/rope/rope.h"
#include "tensor/tensor.h"

namespace kedge {

/// k: [kv_heads][capacity][head_dim], v: [kv_heads][capacity][value_dim].
struct KvCache {
  std::int64_t kv_heads = 0, capacity = 0, head_dim = 0, value_dim = 0;
  Buffer keys, values;

  KvCache() = default;
  KvCache(std::int64_t kv_heads, std::int64_t capacity, std::int64_t head_dim, std::int64_t value_dim);

  float* k(std::int64_t head, std::int64_t position) noexcept {
    return keys.as<float>() + (head * capacity + position) * head_dim;
  }
  float* v(std::int64_t head, std::int64_t position) noexcept {
    return values.as<float>() + (head * capacity + position) * value_dim;
  }
  std::size_t num_bytes() const noexcept { return keys.size() + values.size(); }
};

/// Rows [begin, begin + tokens) of a batch belong to one sequence, at positions start, start + 1, ...
struct SegmentRows {
  std::int64_t begin = 0, tokens = 0, start = 0;
  KvCache* kv = nullptr;
  const RopeTable* rope = nullptr;  ///< reserved for the cache's capacity
};

}  // namespace kedge
