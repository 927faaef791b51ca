#include "nn/kv_cache.h"

namespace kedge {

KvCache::KvCache(std::int64_t heads, std::int64_t positions, std::int64_t key_dim, std::int64_t val_dim)
    : kv_heads(heads),
      capacity(positions),
      head_dim(key_dim),
      value_dim(val_dim),
      keys(static_cast<std::size_t>(heads * positions * key_dim) * sizeof(float)),
      values(static_cast<std::size_t>(heads * positions * val_dim) * sizeof(float)) {}

}  // namespace kedge
