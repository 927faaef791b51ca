// kedge quantize: a Hugging Face checkpoint -> a smaller one, in compressed-tensors' pack-quantized form.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kedge {

/// Modules whose name matches `pattern` get `scheme` ("none": they stay in high precision).
/// pattern: a glob over the whole name ('*' any text, '?' one character), or "re:" and a regular expression that
/// must match from the name's start, as compressed-tensors has it. Names are those of the file.
struct QuantizeOverride {
  std::string pattern;
  std::string scheme;
};

/// Where calibration text comes from and how it is packed (src/ptq/calibration_data.h).
struct CalibrationOptions {
  std::vector<std::filesystem::path> files = {};  ///< text, or .jsonl; none: the bundled text
  std::string field = "text";                ///< of JSON lines: a string, or chat messages
  std::int64_t nsamples = 128;               ///< sequences at most; 0: all
  std::int64_t seqlen = 0;                   ///< 0: 2048, or the context where that is shorter
  std::uint64_t seed = 42;
  /// Of four times nsamples sequences those that give every expert tokens (src/ptq/balance.h); the original model runs
  /// over them once, whole in memory.
  bool balance = false;
};

struct QuantizeOptions {
  std::filesystem::path source;
  std::filesystem::path destination;  ///< must not exist; a partial folder of the same plan is resumed
  std::string scheme = "w4a16-g128";  ///< a preset or a name of the grammar (src/quant/scheme.h)
  /// quantize_methods(), or "auto": kedge, which needs no gradients.
  std::string method = "auto";
  std::string scale_dtype = "auto";               ///< float32, float16, bfloat16; auto: the type of the source's weight
  std::vector<QuantizeOverride> overrides;        ///< later ones win
  int threads = 0;                                ///< 0: one per CPU that this process may use
  std::uint64_t max_shard_bytes = 1'000'000'000;  ///< a file holds whole layers, at least one, up to about this
  bool dry_run = false;                           ///< plan only: no weight is read, nothing is written
  // Of methods that need calibration, of the router refit and of mixed precision.
  CalibrationOptions calibration;
  std::filesystem::path cache_dir;                 ///< hidden states in files there; empty: in memory
  double damping = 0.01;                           ///< of GPTQ's Hessian, times the mean of its diagonal
  double gptaq_alpha = 1.0;                        ///< strength of GPTAQ's correction
  std::optional<bool> act_order;                   ///< columns by falling diagonal of the Hessian
  std::string scale_search;  ///< "minmax", "mse", "full-range", "row-search"; empty: the method's own
  double routing_weight = 3;                       ///< of the method kedge: of later routers, against the prediction
  double residual_weight = 0.5;                    ///< of the method kedge: share of earlier losses to make up for
  bool gate_weighted = false;                      ///< experts' Hessians weighted by the gate's scores
  std::string expert_fallback = "all-tokens";      ///< of experts with too few tokens: "all-tokens", "rtn", "error"
  std::int64_t min_expert_tokens = 128;
  std::optional<bool> router_refit;                ///< solve routers anew for the quantized path
  double refit_ridge = 0.01;
  std::string refit_weighting = "boundary";        ///< "boundary", "none"
  double refit_tau_margins = 2.0;
  // Of methods that tune by gradients (src/ptq/tune.h); they take expert_fallback and min_expert_tokens too.
  std::int64_t iters = 200;
  std::int64_t batch_size = 8;             ///< sequences of a step
  double lr = 0;                           ///< 0: 1 / iters
  std::string device = "auto";             ///< "cpu", "cuda", "cuda:N", "auto"
  std::string compute_dtype = "float32";   ///< of the matrix products: "float32", "bfloat16"
  std::string base = "rounding";           ///< "rounding", "clipping"
  std::string objective;                   ///< "mse=1,value=0.05"; empty: the method's own
  std::string router;                      ///< "same", "next", "both"; empty: the method's own
  std::int64_t loss_k = 0, loss_m = 0;     ///< experts that the terms look at; 0: by the term
  double gamma = 1, tau = 2;               ///< in mean boundary margins
  std::string phi = "hinge";               ///< "hinge", "softplus"
  std::string value_weights = "boundary";  ///< "none", "sensitivity", "boundary"
  bool centring = true;                    ///< of softmax routers' logits
  /// Bits per weight of the quantized matrices, codes, scales and zeros: 2, 3, 4 or 8 bits by measured sensitivity, with
  /// the scheme's group and symmetry (src/ptq/mixed_precision.h). 0: the scheme for all. Measured in a dry run too.
  double target_bits = 0;
  /// "layer": all experts of a layer share their bits; "model": those of all layers (transformers 5 reads nothing else);
  /// "expert": none.
  std::string bits_per = "model";
  std::string sensitivity = "both";  ///< "error", "kld", "routing", "both" (src/ptq/sensitivity.h)
  // Of the classifiers that kedge train mnist makes, with static inputs (src/ptq/classifier.h).
  std::filesystem::path data = {};        ///< the folder with the four files of MNIST; training images alone are read
  std::string observer = "min-max";       ///< "min-max", "moving-average", "histogram", "percentile"
  std::int64_t calibration_images = 1024;
};

/// Modules of one role and scheme; scheme "none": kept as they were. Role "other" counts all that is no matrix product.
struct QuantizeGroup {
  std::string role;
  std::string scheme;
  std::int64_t modules = 0;
  std::int64_t weights = 0;
  std::uint64_t source_bytes = 0;
  std::uint64_t output_bytes = 0;
  /// Over all weights of the group. None: not quantized, a dry run, or a run that had but to be put in place.
  std::optional<double> relative_rms_error{};
  double bits_per_weight() const noexcept { return weights == 0 ? 0 : 8.0 * double(output_bytes) / double(weights); }
};

/// Mixed precision: what the matrices of one role in one layer got.
struct QuantizeAllocation {
  int layer = 0;
  std::string role;
  std::map<int, std::int64_t> units;  ///< by bits: experts, else 1
  double error = 0;                   ///< squared, of the block's output at 3 bits over the output's square
  double kld = 0;                     ///< of the model with the whole block, and nothing else, rounded to 3 bits
  double routing = 0;                 ///< 1 - Jaccard of that model, mean over all MoE layers
};

struct QuantizeReport {
  std::string scheme, method;
  std::string model_type;
  std::string source_hash;  ///< empty in a dry run
  std::string recipe_hash;
  std::vector<QuantizeGroup> groups;
  std::vector<QuantizeAllocation> allocation;  ///< empty without mixed precision
  std::uint64_t source_bytes = 0, output_bytes = 0;  ///< of tensors, without headers
  std::int64_t weights = 0;                          ///< all parameters
  bool kedge_only = false;               ///< stored in a form that no other program opens
  std::int64_t channel_fallbacks = 0;    ///< modules whose inputs are no multiple of the group: one scale per channel
  double bits_per_weight = 0;            ///< of everything stored
  double quantized_bits_per_weight = 0;  ///< of the quantized modules alone
  std::int64_t shards = 0, shards_resumed = 0;
  int threads = 0;  ///< 0 in a dry run
  double seconds = 0;
  bool dry_run = false;
};

/// Throws Error: usage (unknown scheme, method or scale type, a pattern that matches nothing, SRC = DST or DST inside
/// SRC), exists (DST), unsupported (an already quantized source), bad_file (NaN or infinity in a weight), io,
/// interrupted (the partial folder stays and is resumed by the same call). tuners: of methods that need torch
/// (kedge-torch has them); null: such a method is Error(unsupported). ranks: share the calibration sequences; rank 0
/// alone writes DST and has the whole report. The sums over tokens are in another order than one rank's, so that codes
/// can differ by a rounding; the same number of ranks gives the same bytes. null: one rank. With more,
/// Error(unsupported) for a method without calibration data or with tuners.
class Communicator;
class LayerTunerFactory;
QuantizeReport quantize(const QuantizeOptions& options, LayerTunerFactory* tuners = nullptr,
                        Communicator* ranks = nullptr);

/// Does the method tune by gradients? Error(usage) for one that there is not.
bool quantize_method_needs_torch(const std::string& method);
/// Names of the quantization methods, for help and completion.
std::vector<std::string> quantize_methods();

}  // namespace kedge
