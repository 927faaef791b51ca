// A probe that fills a RoutingTrace, whatever the order in which tokens are computed: each pass says which rows of
// the trace its tokens are (prefill of a batch, chunks, or one token of each sequence at a time).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "nn/probe.h"
#include "routing/trace.h"

namespace kedge {

struct RecordOptions {
  bool routing = true;
  bool logits = false;         ///< extra "logits" [rows_shape..., V]; every token must get them
  bool hidden_states = false;  ///< extra "hidden_states.i" [rows_shape..., H], i = 0 .. num_layers
  Shape rows_shape{};          ///< [S, L]; empty for [T]
  std::int64_t vocab_size = 0, hidden_size = 0;
  int num_layers = 0;
};

class RecordingProbe : public ForwardProbe {
 public:
  /// routers: the MoE layers, ascending. The trace's memory for `tokens` rows is taken here.
  RecordingProbe(std::span<const std::pair<int, RouterSpec>> routers, std::int64_t tokens,
                 const RecordOptions& options = {});
  /// The rows of the trace that the tokens of the next pass are, in batch order. Must be set before each pass.
  void set_rows(std::vector<std::int64_t> rows);
  /// Rows [begin, begin + count).
  void set_rows(std::int64_t begin, std::int64_t count);

  /// token_ids, sequence_offsets, positions and phase are the caller's to fill.
  RoutingTrace& trace() noexcept { return trace_; }

  unsigned sites() const noexcept override;
  void hidden_state(int index, std::int64_t tokens, std::int64_t hidden_size, const float* x) override;
  void routing(int layer, const RoutingDecision& decision) override;
  void logits(std::int64_t rows, std::int64_t vocab, const float* x) override;

 private:
  void scatter(Tensor& target, std::int64_t rows, std::int64_t width, const float* x);
  RoutingTrace trace_;
  RecordOptions options_;
  std::int64_t capacity_;
  std::vector<std::int64_t> rows_;
};

}  // namespace kedge
