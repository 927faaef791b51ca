// Runs the blocks of one layer over all calibration sequences, some sequences at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/arena.h"
#include "base/exec.h"
#include "model/decoder.h"
#include "nn/weight_source.h"
#include "ptq/layers/hidden_states.h"

namespace kedge {

class LayerPass {
 public:
  /// Sequences [first, first + count) of the set, as rows of a HiddenStates.
  struct Chunk {
    std::int64_t first_row = 0, rows = 0, sequences = 0;
  };

  LayerPass(const ModelSpec& spec, int layer, std::int64_t sequences, std::int64_t seqlen, const LoadOptions& options,
            ThreadPool& threads);

  const ModelSpec& spec() const noexcept { return spec_; }  ///< of this layer alone
  std::size_t num_blocks() const noexcept { return spec_.blocks.size(); }
  const std::vector<Chunk>& chunks() const noexcept { return chunks_; }
  const LoadOptions& options() const noexcept { return options_; }
  ExecContext context(ForwardProbe* probe = nullptr) noexcept { return {threads_, arena_, probe}; }

  std::unique_ptr<Block> build(const WeightSource& source, std::size_t block);
  /// h [chunk rows, H] in place.
  void forward(const Block& block, const Chunk& chunk, float* h, ForwardProbe* probe = nullptr);
  /// All chunks of the states in place. Answers a Ctrl-C between chunks.
  void advance(const Block& block, HiddenStates& states);

 private:
  ModelSpec spec_;
  LoadOptions options_;
  ThreadPool& threads_;
  Arena arena_;
  std::vector<std::int32_t> tokens_;  ///< [seqlen]; blocks read their number alone
  std::vector<SequenceState> states_;
  std::vector<Chunk> chunks_;
};

}  // namespace kedge
