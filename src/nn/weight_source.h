// Where modules get their weights at load time: a checkpoint (model/checkpoint_source.h) or a generator of random
// weights (model/random_source.h). Names are canonical (model/family.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "kernels/gemm/gemm.h"
#include "quant/anchor_delta.h"

namespace kedge {

/// Calls are const and may come from several threads at once.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// "<module>.weight", [rows, cols]. A view lives as long as the source. Error(not_found), Error(bad_file).
  virtual WeightData weight(const std::string& module, std::int64_t rows, std::int64_t cols) const = 0;
  /// The matrices of all experts that share an anchor, by the stack's name ("model.layers.1.mlp.experts.up_proj");
  /// null: each expert's is asked for by itself. Error(bad_file), Error(mismatch).
  virtual std::shared_ptr<const AnchorDelta> stack(const std::string&) const { return nullptr; }
  /// A vector by its full name ("model.norm.weight"), as fp32. Error(not_found), Error(bad_file).
  virtual std::vector<float> vector(const std::string& name, std::int64_t size) const = 0;
  /// The module's weight has been packed: the memory behind it may go.
  virtual void done(const std::string& module) const noexcept = 0;
};

/// A plain or quantized matrix as fp32 [rows, cols]. Error(unsupported) for other types; `module` names it there.
Tensor to_float_matrix(const WeightData& data, const std::string& module);
/// Packs what the file has: f32, bf16 and f16 in that type, f64 as f32, quantized codes as they are. Errors as
/// to_float_matrix.
PackedWeight pack_weight_data(const WeightData& data, const LoadOptions& options, const std::string& module);

}  // namespace kedge
