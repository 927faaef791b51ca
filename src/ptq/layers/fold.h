// Per-channel scales moved between a linear layer and what comes before it, without changing what a block computes.
//
//   y = W x = (W diag(s)) (diag(1/s) x)
// 1/s goes where x is made: into the weight of an RMS norm, or into the rows of the matrix before. Both sides are
// exact: a norm's new weight w' is rounded to what the file stores and s = w / w' is taken from it; matrices that are
// to be quantized are scaled in fp32. A router that reads the same norm stays in the file's type, so its s are powers
// of two.
//
// Sites of a block: input norm -> q, k, v (MLA: q_proj or q_a_proj, kv_a_proj_with_mqa); q_a_layernorm -> q_b_proj;
// kv_a_layernorm -> kv_b_proj; v -> o (MLA: the v rows of kv_b_proj; one s for the heads that share a value head; not
// with clipped or biased values); post norm -> router, gate and up of all experts, shared expert, dense MLP; up ->
// down. A site where a matrix that is not quantized would change is left alone (the router excepted).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ptq/layers/layer.h"
#include "ptq/layers/layer_pass.h"
#include "ptq/layers/overlay_source.h"

namespace kedge {

struct FoldSite {
  std::string producer;  ///< canonical: a norm's tensor ("model.layers.0.input_layernorm.weight"), or a module
  bool is_norm = false;
  std::vector<const PlannedModule*> consumers;  ///< quantized matrices [rows, cols] whose columns take s
  const PlannedModule* router = nullptr;        ///< its columns take s too
  std::int64_t channels = 0;                    ///< scales of the site
  std::vector<std::int32_t> channel_of_column;  ///< [cols]
  std::vector<std::int32_t> row_of_channel;     ///< of a producing matrix [channels]
};

/// The sites of one block, in the order in which their inputs come to be. modules: of the block's layer.
std::vector<FoldSite> fold_sites(const ModelSpec& spec, const BlockSpec& block,
                                 const std::vector<const PlannedModule*>& modules);

/// What a fold works on. The overlay holds nothing quantized of this block yet.
struct BlockFold {
  const LayerInput& input;
  LayerPass& pass;
  OverlaySource& overlay;
  std::size_t block = 0;
  const HiddenStates& original;  ///< the block's input on either path
  const HiddenStates& quantized;
  LayerOutput& out;  ///< takes the norms and routers that changed
};

struct FoldReport {
  std::string producer;
  double alpha = 0;  ///< of the method's search; 0: nothing moved
  double error = 1;  ///< of the site's matrices on the calibration data, over the error without scales
};

/// The scales nearest to s that the site can take without rounding anything that is stored: of norms and routers as
/// above, else s itself. A channel that can take none gets 1.
std::vector<float> exact_scales(const BlockFold& fold, const FoldSite& site, const std::vector<float>& s);
/// s: from exact_scales, [channels].
void apply_scales(const BlockFold& fold, const FoldSite& site, const std::vector<float>& s);

}  // namespace kedge
