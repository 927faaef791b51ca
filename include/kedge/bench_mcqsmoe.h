// kedge bench mcqsmoe: the six rows of the MCQSMoE papers, with random weights, beside dense layers and the machine's
// limits.
//
//   serial, parallel, zero-copy, workspace   d 1024, r 128, FFN of 4096, E 8, k 2, 32 tokens; experts with FFNs
//   small                                    d 256, r 64, E 16, k 2, 32 tokens; the autoencoders are the experts
//   large                                    d 512, r 128, E 32, k 2, 64 tokens; the same
// Deltas of 4 bits in groups of 64 on an fp16 anchor, rows on the sphere. One implementation: serial is one thread;
// parallel all of them, with a batch of rows copied together per expert and fresh scratch memory for each batch;
// zero-copy is parallel without that copy; workspace is parallel with scratch that is kept; small and large have both.
// All of the first four give the same bits. Beside each row, by turns with it: the same on one thread, and three dense
// two-matrix layers: int4 in groups of 64 with as many stored parameters; int4 and fp32 with as many floating-point
// operations as the layer's model does for a token (routing and k experts; the anchor's own products are not counted).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kedge/bench.h"
#include "kedge/options.h"

namespace kedge {

struct McqsMoeBenchOptions {
  /// Of the shared anchor: "fused" (A + D_e made as it is read), "split" (x A^T + x D_e^T), "decoded" (one fp32 matrix
  /// per expert).
  std::string form = "fused";
  std::int64_t tokens = 0;  ///< of every row's batch; 0: as above
  std::uint64_t seed = 1;
  int repetitions = 5;
  bool limits = true;
  RuntimeOptions runtime;
};

struct McqsMoeDense {
  std::int64_t intermediate_size = 0;
  std::int64_t parameters = 0;
  double flops = 0;  ///< per batch
  BenchRate rate;    ///< tokens/s, on as many threads as the row
};

struct McqsMoeBenchRow {
  std::string name;
  std::string output;  ///< "ffn", "reconstruction"
  std::int64_t hidden_size = 0, bottleneck = 0, intermediate_size = 0, num_experts = 0, num_experts_per_tok = 0;
  std::int64_t tokens = 0;
  int threads = 1;
  std::int64_t parameters = 0;                 ///< of the weights that the anchors and deltas stand for
  std::uint64_t weight_bytes = 0;              ///< packed, in memory; all of it is read when every expert has a token
  double routing_flops = 0, expert_flops = 0;  ///< per batch, as computed
  double active_flops = 0;                     ///< per batch, as the model counts: routing and k experts per token
  BenchRate rate;                              ///< tokens/s
  double routing_share = 0;                    ///< of the batch's time, measured by itself at the median
  BenchRate one_thread;                        ///< tokens/s of the same row on one thread; rate's where threads is 1
  McqsMoeDense stored, active, active_fp32;

  double over_one_thread() const noexcept;  ///< median over the turns of tokens/s over those on one thread
  double gigaflops() const noexcept;  ///< GFLOP/s at the median, as computed
  double gigabytes() const noexcept;  ///< GB/s of weights at the median
};

struct McqsMoeBenchReport {
  McqsMoeBenchOptions options;
  std::string isa;
  std::vector<McqsMoeBenchRow> rows;
  bool has_limits = false;
  MachineLimits limits;
};

/// Error(usage) for a form or runtime that there is not.
McqsMoeBenchReport bench_mcqsmoe(const McqsMoeBenchOptions& options);

std::string mcqsmoe_text(const McqsMoeBenchReport& report);
std::string mcqsmoe_json(const McqsMoeBenchReport& report);  ///< envelope kedge.bench-mcqsmoe/1

}  // namespace kedge
