#include "comm/sum.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"

namespace kedge {
namespace {

// Rank 0 holds one part of all ranks at a time.
constexpr std::size_t kBytesAtOnce = std::size_t{64} << 20;

template <class T>
std::string_view bytes_of(std::span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

template <class T>
void sum_part(Communicator& ranks, std::span<T> values) {
  const std::vector<std::string> all = ranks.gather(bytes_of(std::span<const T>(values)));
  std::vector<T> other(values.size());
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    KEDGE_CHECK(all[rank].size() == values.size_bytes());
    std::memcpy(other.data(), all[rank].data(), values.size_bytes());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += other[i];
  }
  const std::string sums = ranks.broadcast(ranks.is_root() ? bytes_of(std::span<const T>(values)) : std::string_view());
  KEDGE_CHECK(sums.size() == values.size_bytes());
  std::memcpy(values.data(), sums.data(), sums.size());
}

template <class T>
void sum_all(Communicator* ranks, std::span<T> values) {
  if (ranks == nullptr || ranks->size() == 1) return;
  for (std::size_t first = 0; first < values.size(); first += kBytesAtOnce / sizeof(T)) {
    sum_part(*ranks, values.subspan(first, std::min(kBytesAtOnce / sizeof(T), values.size() - first)));
  }
}

template <class T>
T sum_one(Communicator* ranks, T value) {
  sum_all(ranks, std::span(&value, 1));
  return value;
}

}  // namespace

void sum_over_ranks(Communicator* ranks, std::span<float> values) { sum_all(ranks, values); }
void sum_over_ranks(Communicator* ranks, std::span<double> values) { sum_all(ranks, values); }
void sum_over_ranks(Communicator* ranks, std::span<std::int64_t> values) { sum_all(ranks, values); }
double sum_over_ranks(Communicator* ranks, double value) { return sum_one(ranks, value); }
std::int64_t sum_over_ranks(Communicator* ranks, std::int64_t value) { return sum_one(ranks, value); }

}  // namespace kedge
