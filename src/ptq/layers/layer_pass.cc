#include "ptq/layers/layer_pass.h"

#include <algorithm>

#include "base/interrupt.h"

namespace kedge {
namespace {

// Enough rows that each expert of a layer sees some, few enough that a chunk's captured inputs stay small.
constexpr std::int64_t kChunkRows = 4096;

ModelSpec layer_spec(const ModelSpec& spec, int layer) {
  ModelSpec out = spec;
  std::erase_if(out.blocks, [&](const BlockSpec& block) { return block.source_layer != layer; });
  return out;
}

}  // namespace

LayerPass::LayerPass(const ModelSpec& spec, int layer, std::int64_t sequences, std::int64_t seqlen,
                     const LoadOptions& options, ThreadPool& threads)
    : spec_(layer_spec(spec, layer)), options_(options), threads_(threads), tokens_(static_cast<std::size_t>(seqlen)) {
  const std::int64_t step = std::clamp<std::int64_t>(kChunkRows / seqlen, 1, sequences);
  for (std::int64_t s = 0; s < step; ++s) states_.emplace_back(spec_, seqlen);
  for (std::int64_t first = 0; first < sequences; first += step) {
    const std::int64_t count = std::min(step, sequences - first);
    chunks_.push_back({first * seqlen, count * seqlen, count});
  }
}

std::unique_ptr<Block> LayerPass::build(const WeightSource& source, std::size_t block) {
  return Block::build(source, spec_, static_cast<int>(block), options_, &threads_);
}

void LayerPass::forward(const Block& block, const Chunk& chunk, float* h, ForwardProbe* probe) {
  std::vector<Segment> segments;
  for (std::int64_t s = 0; s < chunk.sequences; ++s) segments.push_back({&states_[static_cast<std::size_t>(s)], tokens_});
  block.forward(context(probe), h, segments);
}

void LayerPass::advance(const Block& block, HiddenStates& states) {
  for (const Chunk& chunk : chunks_) {
    throw_if_interrupted();
    forward(block, chunk, states.row(chunk.first_row));
  }
}

}  // namespace kedge
