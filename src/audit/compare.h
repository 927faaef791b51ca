// One way of running the quantized model against the original: fed sequence by sequence, summed up at the end.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audit/language.h"
#include "audit/recorder.h"
#include "base/thread_pool.h"
#include "generate/corpus.h"
#include "routing/comparison.h"

namespace kedge {

struct ChannelOptions {
  std::string name, mode, activations;
  std::int64_t max_tokens = 0;
};

/// What one sequence gave.
struct SequenceOutcome {
  std::vector<LayerTrace> layers;           ///< the quantized model's routing
  std::vector<DistributionDiff> positions;  ///< [tokens]; empty in local mode
};

class Channel {
 public:
  Channel(const ChannelOptions& options, const DecoderModel& model, ThreadPool& threads);

  void start(std::int64_t tokens);
  /// A chunk of the sequence and the original's logits for it [count, V]; nothing to do in local mode.
  void append(std::span<const std::int32_t> tokens, std::int64_t begin, std::span<const std::int32_t> sequence,
              const float* original_logits);
  /// Ends the sequence; original: its routing in the original.
  const SequenceOutcome& finish(std::span<const std::int32_t> sequence, const RoutingTrace& original);
  /// Counts a sequence that finish() has given here or in another rank. In the order of the text.
  void add(std::span<const LayerTrace> original, const SequenceOutcome& outcome);
  AuditComparison summary(const TokenRows& rows) const;

 private:
  ChannelOptions options_;
  const DecoderModel& model_;
  ThreadPool& threads_;
  RoutingComparison routing_;
  std::unique_ptr<Recorder> recorder_;  ///< free
  std::unique_ptr<LocalRunner> local_;  ///< local
  std::optional<LanguageComparison> language_;
  std::vector<float> logits_;                ///< [chunk, V]
  SequenceOutcome outcome_;                  ///< of the sequence under way
};

}  // namespace kedge
