// Token embeddings: the table in the file's own type, rows converted to fp32 when looked up. Where lm_head is tied to
// it, the head is a second, packed copy: a kernel's layout has no rows to look up.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/exec.h"
#include "nn/weight_source.h"

namespace kedge {

class Embedding {
 public:
  Embedding() = default;
  /// "<module>.weight" [vocab, hidden], copied (the source may go).
  static Embedding load(const WeightSource& source, const std::string& module, std::int64_t vocab, std::int64_t hidden);

  /// out: [tokens, hidden]. Ids are validated by the caller.
  void forward(const ExecContext& ctx, std::span<const std::int32_t> tokens, float* out) const;
  std::size_t num_bytes() const noexcept;

 private:
  std::int64_t hidden_ = 0;
  Tensor table_;  ///< plain; empty when quantized
  QuantTensor quantized_;
};

}  // namespace kedge
