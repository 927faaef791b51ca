#include "kedge/quantize.h"

#include <optional>

#include <fmt/format.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/result.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {
    {"SRC", "the model: a Hugging Face directory in bf16, fp16 or fp32"},
    {"DST", "the new directory; it must not exist (may be left out with --dry-run)", false},
};

constexpr Flag kFlags[] = {
    {.name = "recipe",
     .type = FlagType::path,
     .help =
         "a TOML file with flags as keys (scheme = \"w3a16-g128\"); what is given here or in the environment counts",
     .value_name = "FILE"},
    {.name = "scheme",
     .fallback = "w4a16-g128",
     .help =
         "w<2|3|4|8>a16[-g32|-g64|-g128|-channel][-asym], or a preset of compressed-tensors (W4A16, W8A16); "
         "anchor-int<4|2>[-g<group>][-fp16|-bf16|-int8][-sphere]: experts as deltas on an anchor that a layer's share, "
         "which kedge alone opens; of classifiers also w8a8-dynamic, w8a8-static"},
    {.name = "method",
     .fallback = "auto",
     .help = "how codes are chosen: rtn, rtn-mse, awq, gptq, gptaq, kedge; by gradients (kedge-torch): autoround, "
             "topk-mse, eaquant-kl, vsraq; auto: kedge"},
    {.name = "scale-dtype",
     .fallback = "auto",
     .help = "type of the stored scales; auto: the source weight's. transformers rounds dequantized experts to it, so "
             "float32 gives it kedge's logits",
     .choices = "auto|float32|float16|bfloat16"},
    {.name = "target-bits",
     .type = FlagType::number,
     .fallback = "0",
     .help =
         "mean bits per quantized weight, scales and zeros included: every layer gets 2, 3, 4 or 8 bits by measured "
         "sensitivity, with the scheme's group; 0: the scheme's bits for all",
     .minimum = 0,
     .maximum = 16},
    {.name = "bits-per",
     .fallback = "model",
     .help =
         "with --target-bits: which experts share their bits: all of the model (transformers 5 reads nothing else), "
         "those of a layer, or none (kedge alone reads that)",
     .choices = "model|layer|expert"},
    {.name = "sensitivity",
     .fallback = "both",
     .help =
         "with --target-bits: what an error is weighted by: nothing, its effect on the KL divergence, on the choice "
         "of experts, or both",
     .choices = "error|kld|routing|both"},
    {.name = "override",
     .type = FlagType::list,
     .help = "another scheme, or none, for the modules that match (a glob, or re: and a regular expression); "
             "later ones win",
     .value_name = "PATTERN=SCHEME"},
    {.name = "dry-run",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "print sizes and bits per weight, write nothing; reads no weights, but for --target-bits"},
    {.name = "max-shard-size",
     .type = FlagType::integer,
     .fallback = "1000",
     .help = "megabytes in one file, about; a file holds whole layers",
     .value_name = "MB",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "calibration",
     .type = FlagType::paths,
     .help = "text or .jsonl files to calibrate on; none: the bundled text"},
    {.name = "calibration-field",
     .fallback = "text",
     .help = "the member of a JSON line that holds its text, or its chat messages",
     .value_name = "NAME"},
    {.name = "nsamples",
     .type = FlagType::integer,
     .fallback = "128",
     .help = "calibration sequences; 0: all that there are",
     .minimum = 0,
     .maximum = 1e9},
    {.name = "seqlen",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "tokens of a calibration sequence; 0: 2048, or the context where that is shorter",
     .minimum = 0,
     .maximum = 1e7},
    {.name = "seed", .type = FlagType::integer, .fallback = "42", .help = "of the choice of sequences", .minimum = 0},
    {.name = "balance",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "choose the sequences among four times as many, so that rare experts get tokens"},
    {.name = "cache-dir",
     .type = FlagType::path,
     .help = "keep hidden states in files there instead of in memory",
     .value_name = "DIR"},
    {.name = "router-refit",
     .fallback = "auto",
     .help = "solve each router anew for the inputs that it sees after quantization; auto: with --method auto",
     .choices = "auto|on|off"},
    {.name = "refit-ridge",
     .type = FlagType::number,
     .fallback = "0.01",
     .help = "of the refit's regression, times the mean of the Gram's diagonal",
     .minimum = 1e-9,
     .maximum = 1e3},
    {.name = "refit-weighting",
     .fallback = "boundary",
     .help = "tokens near an expert's boundary weigh more, or all weigh the same",
     .choices = "boundary|none"},
    {.name = "refit-tau",
     .type = FlagType::number,
     .fallback = "2",
     .help = "how wide that boundary is, in mean margins",
     .minimum = 1e-3,
     .maximum = 1e3},
    {.name = "damping",
     .type = FlagType::number,
     .fallback = "0.01",
     .help = "of GPTQ's Hessian, times the mean of its diagonal",
     .minimum = 1e-9,
     .maximum = 10},
    {.name = "gptaq-alpha",
     .type = FlagType::number,
     .fallback = "1",
     .help = "strength of GPTAQ's correction for the difference between the original's inputs and the quantized path's",
     .minimum = 0,
     .maximum = 2},
    {.name = "act-order",
     .fallback = "auto",
     .help = "GPTQ takes columns by falling diagonal of the Hessian; auto: with --method auto",
     .choices = "auto|on|off"},
    {.name = "scale-search",
     .help =
         "scales from the extremes, clipped for the least squared error, by the larger extreme with a sign, or those "
         "clipped row by row for the least error after rounding with error feedback; none: row-search with --method "
         "kedge, else minmax",
     .choices = "minmax|mse|full-range|row-search"},
    {.name = "routing-weight",
     .type = FlagType::number,
     .fallback = "3",
     .help = "--method kedge: what later routers read, against what the prediction reads; 0: the prediction alone",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "residual-weight",
     .type = FlagType::number,
     .fallback = "0.5",
     .help = "--method kedge: of what the residual stream lost in earlier layers, the share to make up for",
     .minimum = 0,
     .maximum = 1},
    {.name = "gate-weighted",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "weigh the tokens of an expert by the gate's scores"},
    {.name = "expert-fallback",
     .fallback = "all-tokens",
     .help = "experts that see too few tokens: calibrate them on all tokens of the layer, round them to nearest where "
             "they see none, or stop",
     .choices = "all-tokens|rtn|error"},
    {.name = "min-expert-tokens",
     .type = FlagType::integer,
     .fallback = "128",
     .help = "fewer calibration tokens are too few for an expert",
     .minimum = 1,
     .maximum = 1e9},
    {.name = "iters",
     .type = FlagType::integer,
     .fallback = "200",
     .help = "steps of a layer's tuning, of the methods that tune by gradients; 0: none",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "batch-size",
     .type = FlagType::integer,
     .fallback = "8",
     .help = "sequences of a step",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "lr",
     .type = FlagType::number,
     .fallback = "0",
     .help = "length of the first step; they shrink to 0; 0: 1 / iters",
     .minimum = 0,
     .maximum = 1},
    {.name = "device", .fallback = "auto", .help = "where to tune: cpu, cuda, cuda:N; auto: a GPU where there is one"},
    {.name = "compute-dtype",
     .fallback = "float32",
     .help = "type of the matrix products while tuning; routers are computed in fp32",
     .choices = "float32|bfloat16"},
    {.name = "base",
     .fallback = "rounding",
     .help = "what is tuned: rounding and clipping, or clipping and scales alone",
     .choices = "rounding|clipping"},
    {.name = "objective",
     .help = "terms and weights, as mse=1,value=0.05,order=0.025,boundary=0.025; also topk-mse, kl, kl-full; none: the "
             "method's own",
     .value_name = "TERMS"},
    {.name = "router",
     .help = "whose logits the routing terms compare: the layer's own router, the next layer's, or both; none: the "
             "method's own",
     .choices = "same|next|both"},
    {.name = "loss-k",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "experts of topk-mse and kl; 0: twice as many as a token gets, and as many",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "loss-m",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "experts of value and boundary; 0: twice as many as a token gets",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "gamma",
     .type = FlagType::number,
     .fallback = "1",
     .help = "gaps between experts need be no wider than this, in mean margins",
     .minimum = 1e-6,
     .maximum = 1e6},
    {.name = "tau",
     .type = FlagType::number,
     .fallback = "2",
     .help = "how wide the boundary is that value's weights know, in mean margins",
     .minimum = 1e-6,
     .maximum = 1e6},
    {.name = "phi", .fallback = "hinge", .help = "shape of order and boundary", .choices = "hinge|softplus"},
    {.name = "value-weights",
     .fallback = "boundary",
     .help = "weights of value: all the same, the slope of the routing output, or that near the boundary",
     .choices = "none|sensitivity|boundary"},
    {.name = "centring",
     .type = FlagType::boolean,
     .fallback = "true",
     .help = "value compares the logits of softmax routers less their mean"},
    {.name = "data",
     .type = FlagType::path,
     .help = "w8a8-static: the folder with the four files of MNIST; calibration reads training images alone",
     .value_name = "DIR"},
    {.name = "observer",
     .fallback = "min-max",
     .help = "w8a8-static: how an input's scale follows from the values that calibration sees",
     .choices = "min-max|moving-average|histogram|percentile"},
    {.name = "calibration-images",
     .type = FlagType::integer,
     .fallback = "1024",
     .help = "w8a8-static: training images to calibrate on, chosen by --seed",
     .minimum = 1,
     .maximum = 1e9},
    {.name = "threads",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "threads; 0: one per CPU that kedge may use",
     .minimum = 0,
     .maximum = 4096},
};

std::vector<QuantizeOverride> overrides(const Arguments& arguments) {
  std::vector<QuantizeOverride> out;
  for (const std::string& text : arguments.list("override")) {
    const std::size_t at = text.rfind('=');  // a pattern may hold '=', a scheme does not
    if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
      throw Error(ErrorCode::usage, "--override is \"" + text + "\"", "PATTERN=SCHEME or PATTERN=none");
    }
    out.push_back({text.substr(0, at), text.substr(at + 1)});
  }
  return out;
}

std::string in_megabytes(std::uint64_t bytes) { return fmt::format("{:.2f}", double(bytes) / 1e6); }

void print_table(const QuantizeReport& report) {
  print(fmt::format("{:<14}{:<16}{:>8}{:>15}{:>12}{:>12}{:>8}{:>12}\n", "role", "scheme", "modules", "weights",
                    "source MB", "output MB", "bits", report.dry_run ? "" : "rel. error"));
  for (const QuantizeGroup& group : report.groups) {
    const std::string error = group.relative_rms_error ? fmt::format("{:.4f}", *group.relative_rms_error) : "";
    print(fmt::format("{:<14}{:<16}{:>8}{:>15}{:>12}{:>12}{:>8.3f}{:>12}\n", group.role, group.scheme, group.modules,
                      group.weights, in_megabytes(group.source_bytes), in_megabytes(group.output_bytes),
                      group.bits_per_weight(), error));
  }
  print(fmt::format("{:<14}{:<16}{:>8}{:>15}{:>12}{:>12}{:>8.3f}\n", "all", "", "", report.weights,
                    in_megabytes(report.source_bytes), in_megabytes(report.output_bytes), report.bits_per_weight));
  if (report.kedge_only) {
    print("transformers and vLLM cannot open this directory: its experts share anchors, which only kedge reads\n");
  }
  if (report.channel_fallbacks > 0) {
    print(fmt::format("{} modules have inputs that are no multiple of the group: they get one scale per channel\n",
                      report.channel_fallbacks));
  }
}

void print_allocation(const QuantizeReport& report) {
  if (report.allocation.empty()) return;
  print(fmt::format("\n{:<8}{:<15}{:>8}{:>8}{:>8}{:>8}{:>12}{:>12}{:>12}\n", "layer", "role", "2 bits", "3 bits", "4 bits",
                    "8 bits", "error", "KLD", "1 - J"));
  for (const QuantizeAllocation& row : report.allocation) {
    std::string counts;
    for (const int bits : {2, 3, 4, 8}) {
      const auto at = row.units.find(bits);
      counts += fmt::format("{:>8}", at == row.units.end() ? "" : std::to_string(at->second));
    }
    print(fmt::format("{:<8}{:<15}{}{:>12.3g}{:>12.3g}{:>12.3g}\n", row.layer, row.role, counts, row.error, row.kld,
                      row.routing));
  }
}

void print_json(const QuantizeOptions& options, const QuantizeReport& report) {
  const Json config = {{"source", options.source.string()},
                       {"destination", options.destination.string()},
                       {"scheme", report.scheme},
                       {"method", report.method},
                       {"scale_dtype", options.scale_dtype},
                       {"recipe_hash", report.recipe_hash},
                       {"dry_run", report.dry_run}};
  Json results = {{"model_type", report.model_type},
                  {"source_hash", report.source_hash.empty() ? Json(nullptr) : Json(report.source_hash)},
                  {"weights", report.weights},
                  {"source_bytes", report.source_bytes},
                  {"output_bytes", report.output_bytes},
                  {"bits_per_weight", report.bits_per_weight},
                  {"quantized_bits_per_weight", report.quantized_bits_per_weight},
                  {"kedge_only", report.kedge_only},
                  {"channel_fallbacks", report.channel_fallbacks},
                  {"shards", report.shards},
                  {"shards_resumed", report.shards_resumed},
                  {"seconds", report.seconds}};
  results["groups"] = Json::array();
  for (const QuantizeGroup& group : report.groups) {
    Json row = {{"role", group.role},
                {"scheme", group.scheme},
                {"modules", group.modules},
                {"weights", group.weights},
                {"source_bytes", group.source_bytes},
                {"output_bytes", group.output_bytes},
                {"bits_per_weight", group.bits_per_weight()}};
    if (group.relative_rms_error) row["relative_rms_error"] = *group.relative_rms_error;
    results["groups"].push_back(std::move(row));
  }
  for (const QuantizeAllocation& row : report.allocation) {
    Json units = Json::object();
    for (const auto& [bits, count] : row.units) units[std::to_string(bits)] = count;
    results["allocation"].push_back({{"layer", row.layer},
                                     {"role", row.role},
                                     {"units", std::move(units)},
                                     {"error", row.error},
                                     {"kld", row.kld},
                                     {"routing", row.routing}});
  }
  print(result_json("kedge.quantize/1", {}, report.threads, config, std::move(results)));
}

// "on", "off"; "auto": nullopt.
std::optional<bool> choice(const Arguments& arguments, const char* flag) {
  const std::string word = arguments.text(flag);
  return word == "auto" ? std::nullopt : std::optional(word == "on");
}

void set_tuning(const Arguments& arguments, QuantizeOptions& options) {
  options.iters = arguments.integer("iters");
  options.batch_size = arguments.integer("batch-size");
  options.lr = arguments.number("lr");
  options.device = arguments.text("device");
  options.compute_dtype = arguments.text("compute-dtype");
  options.base = arguments.text("base");
  options.objective = arguments.text("objective");
  options.router = arguments.text("router");
  options.loss_k = arguments.integer("loss-k");
  options.loss_m = arguments.integer("loss-m");
  options.gamma = arguments.number("gamma");
  options.tau = arguments.number("tau");
  options.phi = arguments.text("phi");
  options.value_weights = arguments.text("value-weights");
  options.centring = arguments.flag("centring");
}

// A plan needs no gradients.
Needs needs_of(const Arguments& arguments) {
  const bool tunes = !arguments.flag("dry-run") && quantize_method_needs_torch(arguments.text("method"));
  return tunes ? Needs::torch : Needs::nothing;
}

int run_quantize(const Arguments& arguments) {
  QuantizeOptions options;
  options.source = arguments.text("SRC");
  options.destination = arguments.text("DST");
  options.scheme = arguments.text("scheme");
  options.method = arguments.text("method");
  options.scale_dtype = arguments.text("scale-dtype");
  options.overrides = overrides(arguments);
  options.threads = static_cast<int>(arguments.integer("threads"));
  options.max_shard_bytes = static_cast<std::uint64_t>(arguments.integer("max-shard-size")) * 1'000'000;
  options.dry_run = arguments.flag("dry-run");
  options.calibration = {arguments.paths("calibration"), arguments.text("calibration-field"),
                         arguments.integer("nsamples"), arguments.integer("seqlen"),
                         static_cast<std::uint64_t>(arguments.integer("seed")),
                         arguments.flag("balance")};
  options.cache_dir = arguments.text("cache-dir");
  options.damping = arguments.number("damping");
  options.gptaq_alpha = arguments.number("gptaq-alpha");
  options.act_order = choice(arguments, "act-order");
  options.scale_search = arguments.text("scale-search");
  options.routing_weight = arguments.number("routing-weight");
  options.residual_weight = arguments.number("residual-weight");
  options.gate_weighted = arguments.flag("gate-weighted");
  options.expert_fallback = arguments.text("expert-fallback");
  options.min_expert_tokens = arguments.integer("min-expert-tokens");
  options.router_refit = choice(arguments, "router-refit");
  options.refit_ridge = arguments.number("refit-ridge");
  options.refit_weighting = arguments.text("refit-weighting");
  options.refit_tau_margins = arguments.number("refit-tau");
  set_tuning(arguments, options);
  options.data = arguments.text("data");
  options.observer = arguments.text("observer");
  options.calibration_images = arguments.integer("calibration-images");
  options.target_bits = arguments.number("target-bits");
  options.bits_per = arguments.text("bits-per");
  options.sensitivity = arguments.text("sensitivity");
  if (options.destination.empty() && !options.dry_run) {
    throw Error(ErrorCode::usage, "DST is missing", "the directory to write, or --dry-run");
  }
  const QuantizeReport report =
      quantize(options, arguments.torch() != nullptr ? arguments.torch()->tuners : nullptr, arguments.ranks());
  if (!arguments.is_root()) return 0;
  if (arguments.flag("json")) {
    print_json(options, report);
  } else {
    print_table(report);
    print_allocation(report);
  }
  if (!report.dry_run) {
    note(fmt::format("wrote {} ({} of {}) in {:.1f} s", options.destination.string(), megabytes(report.output_bytes),
                     megabytes(report.source_bytes), report.seconds));
  }
  return 0;
}

}  // namespace

constinit const Command quantize_command{
    .name = "quantize",
    .summary = "Quantize a checkpoint to a compressed-tensors directory that kedge and transformers open",
    .positionals = kPositionals,
    .flags = kFlags,
    .common = kPlainFlags,
    .example = "kedge quantize models/demo-4m demo-w4 --scheme w4a16-g128",
    .run = run_quantize,
    .details =
        "Attention, MLP and expert matrices are quantized; routers, norms, embeddings and lm_head stay as they "
        "are. One layer is in memory at a time. A run that was stopped leaves DST.partial; the same command "
        "resumes it and gives the bytes of an undisturbed run. Methods that tune by gradients run in kedge-torch. "
        "Started by mpirun, the ranks share the calibration sequences; methods without gradients. SRC may "
        "be a classifier that kedge train mnist made: all its matrices but the router's are rounded to nearest.",
    .needs_with = needs_of,
    .recipe_flag = "recipe",
    .ranks = true};

}  // namespace kedge::cli
