// A decoder: embeddings, a loop over blocks, the head. Built from a ModelSpec and a Checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/exec.h"
#include "io/checkpoint.h"
#include "model/spec.h"

namespace kedge {

/// The past of one sequence: keys and values per attention block. fp32.
class SequenceState {
 public:
  /// capacity: positions that fit. Memory is taken here, once.
  SequenceState(const ModelSpec& spec, std::int64_t capacity);
  ~SequenceState();
  SequenceState(SequenceState&&) noexcept;
  SequenceState& operator=(SequenceState&&) noexcept;
  std::int64_t length() const noexcept;
  std::int64_t capacity() const noexcept;
  /// Forgets positions >= length.
  void truncate(std::int64_t length) noexcept;
  /// Counts positions that blocks have written; DecoderModel::forward does it itself, drivers of single blocks or
  /// layers call it after the last of a pass.
  void advance(std::int64_t tokens) noexcept;
  std::size_t num_bytes() const noexcept;
  static std::size_t bytes_for(const ModelSpec& spec, std::int64_t capacity) noexcept;

  struct Impl;
  Impl& impl() noexcept { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// `count` new tokens of one sequence, appended to its state.
struct Segment {
  SequenceState* state = nullptr;
  std::span<const std::int32_t> tokens;
};

/// Which rows get logits.
enum class LogitRows { none, last_of_each_segment, all };

class WeightSource;  // nn/weight_source.h

/// One block (mixer with its norm): everything between two additions to the residual stream.
class Block {
 public:
  static std::unique_ptr<Block> load(const Checkpoint& checkpoint, const ModelSpec& spec, int block,
                                     const LoadOptions& options);
  /// From any source of weights; experts are packed in parallel when threads is not null.
  static std::unique_ptr<Block> build(const WeightSource& source, const ModelSpec& spec, int block,
                                      const LoadOptions& options, ThreadPool* threads);
  ~Block();
  /// h += mixer(norm(h)); h: [T, H], rows of the segments one after the other; state must be at the same length for
  /// each block of a pass (the decoder advances it after the last).
  void forward(const ExecContext& ctx, float* h, std::span<const Segment> segments) const;
  /// A MoE block's norm, router and selection on h [T, H], for the probe's sake (moe_input, routing); h stays. CHECKs
  /// that it is a MoE block.
  void observe_routing(const ExecContext& ctx, const float* h, std::int64_t rows) const;
  std::size_t num_bytes() const noexcept;
  /// Packed bytes read to compute one token (k experts of a MoE block).
  std::size_t active_bytes() const noexcept;
  /// Which kernels serve it, a line each.
  std::string explain() const;

 private:
  Block();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class DecoderModel {
 public:
  /// Packs block by block and lets go of the source's pages. Error as Checkpoint; Error(unsupported) for an unknown
  /// model_type lists the families; Error(bad_file) for tensors of the wrong shape.
  static DecoderModel load(const Checkpoint& checkpoint, const LoadOptions& options, ThreadPool& threads);
  /// Random weights of a spec's shape, built in packed form without a file. scheme: of the linears that `quantize`
  /// would quantize: "f32", "bf16" or a QuantScheme's name; embeddings and head are bf16 (f32 with "f32"). Every
  /// matrix has memory of its own. Error(usage) for a scheme that does not fit the shapes.
  static DecoderModel random(const ModelSpec& spec, const std::string& scheme, std::uint64_t seed,
                             const LoadOptions& options, ThreadPool& threads);
  ~DecoderModel();
  DecoderModel(DecoderModel&&) noexcept;

  const ModelSpec& spec() const noexcept;
  const LoadOptions& options() const noexcept;
  /// logits: [rows, vocab] by LogitRows; may be null with none. Tokens out of the vocabulary: Error(usage).
  /// A segment that does not fit its state's capacity: Error(usage).
  void forward(const ExecContext& ctx, std::span<const Segment> segments, LogitRows rows, float* logits) const;
  /// Token embeddings of the segments into h [T, H].
  void embed(const ExecContext& ctx, std::span<const Segment> segments, float* h) const;
  /// The blocks of one layer on given hidden states h [T, H], in place; writes keys and values at the states' current
  /// length without advancing it (a local audit feeds each layer another model's hidden states).
  void forward_layer(const ExecContext& ctx, int layer, std::span<const Segment> segments, float* h) const;
  /// Bytes of packed weights.
  std::size_t num_bytes() const noexcept;
  /// Packed bytes that decoding one token reads: attention, dense FFN, router, k experts of each layer, lm_head.
  std::size_t active_bytes_per_token() const noexcept;
  std::string explain() const;

 private:
  DecoderModel();
  static DecoderModel build(const WeightSource& source, ModelSpec spec, const LoadOptions& options,
                            ThreadPool& threads);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
