// Against sums in double, and bit for bit over instruction sets.
#include "kernels/reduce/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace kedge {
namespace {

std::vector<float> normals(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(rng.normal());
  return x;
}

TEST(Reduce, SumsOnEveryInstructionSet) {
  constexpr float kDelta = 0.7f;
  for (const std::int64_t size : {1, 15, 16, 17, 64, 100, 257}) {
    const auto a = normals(size, 1), b = normals(size, 2), c = normals(size, 3);
    double dot = 0, squared = 0, huber = 0, minus = 0, magnitude = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double x = a[i], y = b[i], z = c[i], r = std::fabs(x - y);
      dot += x * y;
      squared += r * r;
      huber += r <= kDelta ? r * r / 2 : kDelta * (r - kDelta / 2);
      minus += x * (y - 2 * z);
      magnitude += std::fabs(x * y) + r * r + 2 * std::fabs(x * z);
    }
    const ReduceKernels& scalar = reduce_kernels(Isa::scalar);
    for (const Isa isa : available_isas()) {
      const ReduceKernels& k = reduce_kernels(isa);
      const auto check = [&](float value, float reference, double expected) {
        EXPECT_EQ(value, reference) << isa_name(isa) << " " << size;
        EXPECT_NEAR(value, expected, 1e-6 * magnitude) << isa_name(isa) << " " << size;
      };
      check(k.dot(a.data(), b.data(), size), scalar.dot(a.data(), b.data(), size), dot);
      check(k.squared_distance(a.data(), b.data(), size), scalar.squared_distance(a.data(), b.data(), size), squared);
      check(k.huber_distance(a.data(), b.data(), size, kDelta), scalar.huber_distance(a.data(), b.data(), size, kDelta),
            huber);
      check(k.dot_minus_twice(a.data(), b.data(), c.data(), size),
            scalar.dot_minus_twice(a.data(), b.data(), c.data(), size), minus);
    }
  }
}

TEST(Reduce, NaNStays) {
  std::vector<float> a = normals(33, 1), b = normals(33, 2);
  a[32] = std::numeric_limits<float>::quiet_NaN();
  for (const Isa isa : available_isas()) {
    const ReduceKernels& k = reduce_kernels(isa);
    EXPECT_TRUE(std::isnan(k.dot(a.data(), b.data(), 33)));
    EXPECT_TRUE(std::isnan(k.squared_distance(a.data(), b.data(), 33)));
    EXPECT_TRUE(std::isnan(k.huber_distance(a.data(), b.data(), 33, 1.0f)));
  }
}

}  // namespace
}  // namespace kedge
