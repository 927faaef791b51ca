// A model, a tokenizer, and one running sequence: prefill, then decode.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/exec.h"
#include "generate/sampler.h"
#include "generate/tokenizer.h"
#include "kedge/options.h"
#include "model/decoder.h"

namespace kedge {

/// Error(usage), Error(unsupported): unknown words, an ISA that this machine lacks, fewer than 0 threads.
LoadOptions make_load_options(const RuntimeOptions& options);

/// What is loaded once and shared by sessions and trips.
struct LoadedModel {
  Checkpoint checkpoint;
  DecoderModel model;
  ThreadPool& threads;
};
LoadedModel load_model(const std::filesystem::path& directory, const LoadOptions& options, ThreadPool& threads);

/// eos ids of generation_config.json, else of config.json.
std::vector<std::int32_t> eos_token_ids(const Checkpoint& checkpoint);

class Session {
 public:
  /// context: positions to reserve; Error(usage) when above max_position_embeddings.
  Session(const LoadedModel& model, std::int64_t context, ForwardProbe* probe = nullptr);
  ~Session();

  /// Appends tokens and leaves the last row's logits in logits(). Chunks of `batch` tokens.
  void prefill(std::span<const std::int32_t> tokens, std::int64_t batch = 512);
  /// One decode step. No allocation after the first.
  void decode(std::int32_t token);
  std::span<const float> logits() const noexcept;  ///< [vocab]
  std::int64_t length() const noexcept;
  void reset();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
