// kedge bench: how fast a model runs here, and what share of the machine's own limits that is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kedge/options.h"

namespace kedge {

/// Measured, not looked up. "one": a single thread; "all": `threads` threads at once. Best of several runs.
struct MachineLimits {
  std::string isa;
  int threads = 1;
  std::uint64_t dram_buffer_bytes = 0;
  double dram_read_one = 0, dram_read_all = 0;  ///< GB/s (1e9), linear, huge pages where the system gives them
  double fp32_one = 0, fp32_all = 0;            ///< GFLOP/s, fused multiply-add (2 per lane)
  double int8_one = 0, int8_all = 0;            ///< GOP/s, 8-bit products summed in 32 bits; 0: no such instruction
  std::string int8_instruction;                 ///< "vpdpbusd zmm", "vpmaddubsw + vpmaddwd ymm"; empty: none
};

/// Takes a few seconds and a buffer of at most 2 GiB (a quarter of the free memory where that is less).
MachineLimits measure_limits(const RuntimeOptions& runtime);

struct BenchOptions {
  std::filesystem::path model;        ///< a model directory; empty: random weights of `shape`
  std::string shape;                  ///< bench_shapes(); Error(usage) when both or neither are given
  std::string scheme = "w4a16-g128";  ///< of random weights: "bf16", "f32" or a quantization scheme
  std::uint64_t seed = 1;             ///< of weights and tokens
  std::int64_t prefill = 512;         ///< tokens; 0: not measured
  std::int64_t decode = 64;           ///< tokens after the prefill; 0: not measured
  std::int64_t batch = 512;           ///< tokens per pass of the prefill
  int repetitions = 3;                ///< after one pass that is not counted
  bool limits = true;                 ///< measure the machine's limits first
  bool explain = false;               ///< say on stderr which kernel serves each weight
  RuntimeOptions runtime;
};

/// Tokens per second of each repetition.
struct BenchRate {
  std::vector<double> samples;
  double median = 0, lowest = 0, highest = 0;
};

struct BenchReport {
  BenchOptions options;
  std::string model_type;
  std::string isa;                     ///< the one that `options.runtime.isa` came out as
  int threads = 1;
  std::uint64_t weight_bytes = 0;      ///< packed, in memory
  std::uint64_t active_bytes = 0;      ///< packed bytes read to decode one token: k experts per layer, lm_head included
  double products_per_token = 0;  ///< multiply-adds with weights per prefilled token: without lm_head and attention
  bool int8 = false;                   ///< these products run on 8-bit integers (all but the router's)
  double load_seconds = 0;
  std::uint64_t peak_memory_bytes = 0; ///< of the process
  BenchRate prefill, decode;           ///< tokens/s; no samples: not measured
  bool has_limits = false;
  MachineLimits limits;

  double decode_gigabytes() const noexcept;  ///< GB/s of weights at the median
  double prefill_gigaops() const noexcept;   ///< GOP/s at the median, two per multiply-add
  double decode_limit() const noexcept;      ///< tokens/s if only the memory limited; 0 without limits
  double prefill_limit() const noexcept;     ///< tokens/s if only the arithmetic peak limited; 0 without limits
};

std::vector<std::string> bench_shapes();

/// Errors: usage (see BenchOptions; a context that the model does not have), else as loading a model.
BenchReport bench(const BenchOptions& options);

/// A few aligned lines for a terminal.
std::string bench_text(const BenchReport& report);
/// Envelope kedge.bench/1. Hashes the model's files for the provenance, which reads them once more.
std::string bench_json(const BenchReport& report);

}  // namespace kedge
