#include "kernels/topk/topk.h"

#include <utility>

namespace kedge {
namespace {

/// Does a rank before b?
bool ranks_before(const float* scores, std::int32_t a, std::int32_t b) noexcept {
  const float x = scores[a], y = scores[b];
  if (x > y) return true;
  if (x < y) return false;
  const bool x_nan = x != x, y_nan = y != y;
  if (x_nan != y_nan) return y_nan;
  return a < b;
}

/// ids[0, size) is a heap with the last-ranked on top; ids[0] was replaced.
void sift_down(const float* scores, std::int32_t* ids, std::int64_t size) noexcept {
  std::int64_t at = 0;
  while (true) {
    std::int64_t child = 2 * at + 1;
    if (child >= size) return;
    if (child + 1 < size && ranks_before(scores, ids[child], ids[child + 1])) ++child;
    if (!ranks_before(scores, ids[at], ids[child])) return;
    std::swap(ids[at], ids[child]);
    at = child;
  }
}

void sift_up(const float* scores, std::int32_t* ids, std::int64_t at) noexcept {
  while (at > 0) {
    const std::int64_t parent = (at - 1) / 2;
    if (!ranks_before(scores, ids[parent], ids[at])) return;
    std::swap(ids[parent], ids[at]);
    at = parent;
  }
}

}  // namespace

void topk(const float* scores, std::int64_t size, std::int64_t k, std::int32_t* ids) noexcept {
  if (k <= 0) return;
  for (std::int64_t i = 0; i < k; ++i) {
    ids[i] = static_cast<std::int32_t>(i);
    sift_up(scores, ids, i);
  }
  for (std::int64_t i = k; i < size; ++i) {
    const auto id = static_cast<std::int32_t>(i);
    if (!ranks_before(scores, id, ids[0])) continue;
    ids[0] = id;
    sift_down(scores, ids, k);
  }
  for (std::int64_t n = k - 1; n > 0; --n) {
    std::swap(ids[0], ids[n]);
    sift_down(scores, ids, n);
  }
}

}  // namespace kedge
