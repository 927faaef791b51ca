// The segments of a batch, checked. For src/model only.
#pragma once

#include <cstdint>
#include <span>

#include "model/decoder.h"

namespace kedge {

/// Rows of all segments together. Error(usage): a segment that does not fit its state. CHECKs that each segment has a
/// state and no two share one.
std::int64_t count_rows(std::span<const Segment> segments);

}  // namespace kedge
