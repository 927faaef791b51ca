// Random weights of any shape, cheaply: every matrix is cut from one pool of random values at a place of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nn/weight_source.h"
#include "quant/scheme.h"

namespace kedge {

class RandomSource : public WeightSource {
 public:
  /// scheme: "f32", "bf16" or a QuantScheme's name. longest: elements of the largest matrix. Error(usage).
  RandomSource(const std::string& scheme, std::uint64_t seed, std::int64_t longest);

  WeightData weight(const std::string& module, std::int64_t rows, std::int64_t cols) const override;
  std::vector<float> vector(const std::string& name, std::int64_t size) const override;
  void done(const std::string&) const noexcept override {}

 private:
  /// Where in the pool a module's values begin.
  std::size_t place(const std::string& module) const;

  std::uint64_t seed_;
  DType dtype_ = DType::bf16;
  std::optional<QuantArgs> args_;
  Tensor pool_;                      ///< [longest + kPlaces], normal with a deviation of 0.02
  std::vector<std::uint8_t> codes_;  ///< the same length, uniform; empty when plain
};

}  // namespace kedge
