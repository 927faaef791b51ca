// Runs a model over one sequence after the other, in chunks, and keeps the routing of the sequence.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "generate/session.h"
#include "kedge/options.h"
#include "model/decoder.h"
#include "routing/recording_probe.h"

namespace kedge {

using MoeRouters = std::vector<std::pair<int, RouterSpec>>;

LoadOptions parse_load_options(const RuntimeOptions& runtime);
MoeRouters moe_routers(const ModelSpec& spec);

class Recorder {
 public:
  /// max_tokens: of a sequence. hidden_states: kept for LocalRunner.
  Recorder(const DecoderModel& model, ThreadPool& threads, std::int64_t max_tokens, bool hidden_states);
  /// Begins a sequence of `tokens` tokens; forgets the one before.
  void start(std::int64_t tokens);
  /// Appends a chunk; logits: [count, V], or null for none.
  void append(std::span<const std::int32_t> tokens, float* logits);
  /// The sequence so far.
  const RoutingTrace& trace() noexcept { return probe_->trace(); }
  const MoeRouters& routers() const noexcept { return routers_; }

 private:
  const DecoderModel& model_;
  ThreadPool& threads_;
  Arena scratch_;
  MoeRouters routers_;
  SequenceState state_;
  RecordOptions options_;
  std::optional<RecordingProbe> probe_;
};

/// Runs each MoE layer of a model on hidden states that another model's Recorder kept.
class LocalRunner {
 public:
  LocalRunner(const DecoderModel& model, ThreadPool& threads, std::int64_t max_tokens);
  std::vector<LayerTrace> run(std::span<const std::int32_t> tokens, const RoutingTrace& source);

 private:
  const DecoderModel& model_;
  ThreadPool& threads_;
  Arena scratch_;
  MoeRouters routers_;
  SequenceState state_;
  std::vector<float> h_;
};

}  // namespace kedge
