// What a SequenceState holds. For src/model only.
#pragma once

#include <cstdint>
#include <vector>

#include "model/decoder.h"
#include "nn/kv_cache.h"

namespace kedge {

struct SequenceState::Impl {
  std::vector<KvCache> kv;             ///< per block; empty for blocks without a past
  std::vector<RopeTable> ropes;        ///< one per distinct RopeSpec
  std::vector<const RopeTable*> rope;  ///< per block, into ropes; null without
  std::int64_t length = 0, capacity = 0;
};

}  // namespace kedge
