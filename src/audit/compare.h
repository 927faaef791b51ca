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

class Channel {
 public:
  Channel(const ChannelOptions& options, const DecoderModel& model, ThreadPool& threads);

  void start(std::int64_t tokens);
  /// A chunk of the sequence and the original's logits for it [count, V]; nothing to do in local mode.
  void append(std::span<const std::int32_t> tokens, std::int64_t begin, std::span<const std::int32_t> sequence,
              const float* original_logits);
  void finish(std::span<const std::int32_t> sequence, const RoutingTrace& original);
  /// Of the sequence just finished.
  const std::vector<LayerTrace>& layers() const noexcept { return layers_; }
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
  std::vector<DistributionDiff> positions_;  ///< [tokens of the sequence]
  std::vector<LayerTrace> layers_;
};

}  // namespace kedge
