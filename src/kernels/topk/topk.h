// The k largest of a row: score descending, then index ascending (a lower index wins a tie). NaN ranks last.
#pragma once

#include <cstdint>

namespace kedge {

/// scores: [size]; ids: [k], k <= size. No allocation.
void topk(const float* scores, std::int64_t size, std::int64_t k, std::int32_t* ids) noexcept;

}  // namespace kedge
