// A loaded model whose passes are timed one at a time, so that two can take turns.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "kedge/bench.h"

namespace kedge {

class BenchSubject {
 public:
  /// Error(usage) as bench(); else as loading a model. Loads it, with threads of its own.
  explicit BenchSubject(const BenchOptions& options);
  ~BenchSubject();
  BenchSubject(BenchSubject&&) noexcept;

  /// One sequence of random tokens, prefilled and then continued with other random tokens: which expert a token goes to
  /// depends on it, and a model left to choose its own tokens may end in a loop over few experts. Seconds of the
  /// prefill and of the decoding.
  std::pair<double, double> once();

  /// All but the rates and the limits.
  BenchReport describe() const;
  std::string explain() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
