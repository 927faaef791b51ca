// kedge audit: does the quantized model send tokens to the experts that the original sends them to, and what does it
// cost in next-token predictions? kedge trace: what one model's routers choose.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kedge/options.h"

namespace kedge {

/// A figure with its 95 % interval over sequences. NaN where there is none: a figure of nothing (the margin at a flip
/// when nothing flipped), or the error of a single sequence.
struct AuditValue {
  double mean = 0, low = 0, high = 0, standard_error = 0;
  std::int64_t n = 0;  ///< sequences
};
/// In the order in which reports print them. Names and formulas: docs/formats/audit-report.md.
using AuditMetrics = std::vector<std::pair<std::string, AuditValue>>;
/// CHECKs that the metric is there.
const AuditValue& metric(const AuditMetrics& metrics, std::string_view name);

enum class AuditMode {
  free,   ///< each model runs on its own hidden states: errors accumulate
  local,  ///< each quantized layer gets the original's hidden states: its own error alone. No language columns.
  both,
};
AuditMode parse_audit_mode(std::string_view name);  ///< "free", "local", "both"; Error(usage)

struct AuditOptions {
  std::filesystem::path original, quantized;
  std::vector<std::filesystem::path> texts;
  std::int64_t seqlen = 256;
  std::int64_t limit = 0;  ///< sequences at most; 0: all
  AuditMode mode = AuditMode::free;
  RuntimeOptions runtime;
  bool price_int8 = false;    ///< the quantized model once more with int8 activations; needs activations "fp32"
  std::filesystem::path out;  ///< folder for report.json and report.html; empty: none
  bool save_traces = false;   ///< also original.trace.safetensors and quantized.trace.safetensors (free-running) in out
  bool overwrite = false;     ///< replace a report that is already in out
};

struct AuditLayer {
  int layer = 0;
  std::int64_t experts = 0, top_k = 0;
  AuditMetrics metrics;
  AuditValue first_flip;  ///< share of tokens for which this is the first layer with another set of experts
  std::vector<std::int64_t> tokens_per_expert_original, tokens_per_expert_quantized;  ///< [E]
  std::int64_t dead_original = 0, dead_quantized = 0;                                 ///< experts without a token
};

/// Token-layers whose margin in the original lies in [low, high); the outer bins are open.
struct AuditMarginBin {
  double low = 0, high = 0;
  std::int64_t tokens = 0, flips = 0;
  AuditValue flip_rate;
};

struct AuditPositionBin {
  std::int64_t begin = 0, end = 0;  ///< positions within the sequence
  AuditValue kld;
};

/// One row of text.
struct AuditSample {
  int text = 0;  ///< index into AuditReport::texts
  std::int64_t tokens = 0;
  double jaccard = 0, exact_set = 0;
  double kld = 0, same_top = 0, nll_original = 0, nll_quantized = 0;  ///< NaN in local mode
};

/// The quantized model in one way of running it against the original.
struct AuditComparison {
  std::string name;         ///< "free", "local", "int8"
  std::string mode;         ///< "free" or "local"
  std::string activations;  ///< the quantized model's
  std::vector<AuditLayer> layers;
  AuditMetrics mean;                ///< routing metrics over all layers, then the language columns
  AuditValue unchanged_everywhere;  ///< share of tokens with the same sets in every layer
  std::vector<AuditMarginBin> flips_by_margin;
  std::vector<AuditPositionBin> kld_by_position;              ///< empty in local mode
  std::vector<std::pair<std::string, AuditMetrics>> by_text;  ///< per text file, when there are several
  std::vector<AuditSample> samples;
  bool has_language() const noexcept { return !kld_by_position.empty(); }
};

struct AuditModel {
  std::string path, model_type, quant_format, sha256;
  std::uint64_t file_bytes = 0;
};

struct AuditReport {
  AuditModel original, quantized;
  std::vector<std::string> texts;
  std::int64_t seqlen = 0, sequences = 0, tokens = 0, tokens_dropped = 0;
  std::vector<AuditComparison> comparisons;  ///< the first is what was asked for; then "local" and "int8" as asked
  double seconds = 0;
  std::string provenance_json;  ///< record/provenance.h as JSON
  std::string config_json;
};

/// Writes the reports to options.out when that is set. Error(mismatch): tokenizers, vocabularies, MoE layers, experts
/// or experts per token differ; Error(unsupported): no MoE layer; Error(exists): a report is in options.out already;
/// Error(usage), and what reading models and texts throws.
/// ranks: share the sequences; only rank 0 has the report and writes it, others return an empty one. null: one rank.
class Communicator;
AuditReport audit(const AuditOptions& options, Communicator* ranks = nullptr);

/// "1.88 % of expert selections changed ...": the result in one sentence.
std::string audit_verdict(const AuditReport& report);
std::string audit_table(const AuditReport& report);  ///< for a terminal
std::string audit_json(const AuditReport& report);   ///< schema kedge.audit/1
std::string audit_html(const AuditReport& report);

struct TraceOptions {
  std::filesystem::path model;
  std::filesystem::path ids;  ///< safetensors with input_ids [S, L], i64 or i32; or else
  std::vector<std::filesystem::path> texts;
  std::int64_t seqlen = 256;  ///< for texts
  std::int64_t limit = 0;     ///< sequences at most; 0: all
  std::filesystem::path out;
  bool logits = false, hidden_states = false;
  bool one_by_one = false;       ///< each sequence in a forward pass of its own, else all in one
  std::int64_t decode_from = 0;  ///< > 0: tokens from this position on are decoded one at a time with the cache
  bool overwrite = false;
  RuntimeOptions runtime;
};

struct TraceReport {
  std::int64_t sequences = 0, tokens = 0;
  std::vector<int> moe_layers;
  std::uint64_t file_bytes = 0;
};

/// docs/formats/routing-trace.md. Error(exists) when out is there and overwrite is not set.
TraceReport trace(const TraceOptions& options);

}  // namespace kedge
