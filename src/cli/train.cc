#include "kedge/train.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <string_view>

#include <fmt/format.h>

#include "base/check.h"
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
    {.name = "KIND",
     .help =
         "what to train: lm, a language model; mnist, a classifier of handwritten digits; subspaces, experts routed "
         "by reconstruction error, on vectors whose kind is known",
     .is_path = false,
     .choices = "lm|mnist|subspaces"},
};

constexpr Flag kFlags[] = {
    {.name = "config",
     .type = FlagType::path,
     .help = "the model: a config.json of a family that kedge knows; none: that of --init",
     .value_name = "FILE"},
    {.name = "init",
     .type = FlagType::path,
     .help = "a model directory whose weights to start from; none: random ones",
     .value_name = "DIR"},
    {.name = "tokenizer",
     .type = FlagType::path,
     .help = "a model directory, or a tokenizer.json; none: that of --init"},
    text_flag("UTF-8 text files to train on"),
    {.name = "valid", .type = FlagType::paths, .help = "text files to measure the loss on", .value_name = "FILE"},
    {.name = "out",
     .type = FlagType::path,
     .help = "folder for the model, its checkpoints and the log",
     .value_name = "DIR"},
    {.name = "steps",
     .type = FlagType::integer,
     .fallback = "1000",
     .help = "steps in all",
     .minimum = 1,
     .maximum = 1e12},
    {.name = "batch-size",
     .type = FlagType::integer,
     .fallback = "16",
     .help = "sequences of a step; mnist: images, 64 unless said",
     .minimum = 1,
     .maximum = 1e6},
    seqlen_flag("tokens of a sequence"),
    {.name = "shuffle",
     .type = FlagType::boolean,
     .fallback = "true",
     .help = "take the sequences in a new random order in each pass over the text, not as they come"},
    {.name = "objective",
     .fallback = "auto",
     .help = "masked-diffusion: fill in masked tokens, with attention both ways; auto: next-token, unless the config "
             "has a mask_token_id",
     .choices = "auto|next-token|masked-diffusion"},
    {.name = "optimizer",
     .fallback = "adamw",
     .help = "muon: for the matrices of the layers, adamw for the rest",
     .choices = "adamw|muon"},
    {.name = "lr",
     .type = FlagType::number,
     .fallback = "0.001",
     .help = "the highest learning rate",
     .minimum = 0,
     .maximum = 1e3},
    {.name = "min-lr-ratio",
     .type = FlagType::number,
     .fallback = "0.1",
     .help = "the last learning rate over the highest",
     .minimum = 0,
     .maximum = 1},
    {.name = "warmup-ratio",
     .type = FlagType::number,
     .fallback = "0.05",
     .help = "share of the steps in which the learning rate rises",
     .minimum = 0,
     .maximum = 1},
    {.name = "schedule",
     .fallback = "cosine",
     .help = "how the learning rate falls after that",
     .choices = "cosine|linear|constant"},
    {.name = "weight-decay",
     .type = FlagType::number,
     .fallback = "0.1",
     .help = "of matrices and embeddings",
     .minimum = 0,
     .maximum = 1e3},
    {.name = "beta1",
     .type = FlagType::number,
     .fallback = "0.9",
     .help = "of adamw",
     .minimum = 0,
     .maximum = 0.999999},
    {.name = "beta2",
     .type = FlagType::number,
     .fallback = "0.95",
     .help = "of adamw",
     .minimum = 0,
     .maximum = 0.999999},
    {.name = "eps", .type = FlagType::number, .fallback = "1e-8", .help = "of adamw", .minimum = 1e-30, .maximum = 1},
    {.name = "momentum",
     .type = FlagType::number,
     .fallback = "0.95",
     .help = "of muon",
     .minimum = 0,
     .maximum = 0.999999},
    {.name = "clip",
     .type = FlagType::number,
     .fallback = "1",
     .help = "largest norm of the gradient; 0: no limit",
     .minimum = 0,
     .maximum = 1e9},
    {.name = "balance-loss",
     .type = FlagType::number,
     .fallback = "0.01",
     .help = "weight of the balance loss of softmax routers and of routing by error",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "z-loss",
     .type = FlagType::number,
     .fallback = "0.001",
     .help = "weight of the z-loss of softmax routers",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "bias-update-speed",
     .type = FlagType::number,
     .fallback = "0.001",
     .help = "step of the selection bias, of routers that have one",
     .minimum = 0,
     .maximum = 1e3},
    {.name = "reconstruction-loss",
     .type = FlagType::number,
     .fallback = "0.1",
     .help = "weight of the selected experts' errors, of routing by reconstruction error",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "round-after",
     .type = FlagType::number,
     .fallback = "0.25",
     .help = "share of the steps after which shared anchors and their deltas are rounded; 1: never",
     .minimum = 0,
     .maximum = 1},
    {.name = "dtype",
     .fallback = "float32",
     .help = "type of the matrix products; weights and their updates are fp32",
     .choices = "float32|bfloat16"},
    {.name = "save-dtype",
     .fallback = "auto",
     .help = "type of the finished model's weights; auto: the config's",
     .choices = "auto|float32|bfloat16|float16"},
    {.name = "device", .fallback = "auto", .help = "cpu, cuda, cuda:N; auto: a GPU where there is one"},
    {.name = "threads",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "threads; 0: one per CPU that kedge may use",
     .minimum = 0,
     .maximum = 4096},
    {.name = "seed",
     .type = FlagType::integer,
     .fallback = "42",
     .help = "of the first weights and of the order",
     .minimum = 0},
    {.name = "data-seed", .type = FlagType::integer, .help = "of the order alone; none: --seed", .minimum = 0},
    {.name = "routing-seed",
     .type = FlagType::integer,
     .help = "of the routers' first weights alone; none: --seed",
     .minimum = 0},
    {.name = "save-every",
     .type = FlagType::integer,
     .fallback = "200",
     .help = "steps between checkpoints; 0: only at the end and when stopped",
     .minimum = 0,
     .maximum = 1e12},
    {.name = "keep",
     .type = FlagType::integer,
     .fallback = "1",
     .help = "checkpoints to keep, the newest ones",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "eval-every",
     .type = FlagType::integer,
     .fallback = "200",
     .help = "steps between measurements on --valid; 0: only at the end",
     .minimum = 0,
     .maximum = 1e12},
    {.name = "eval-sequences",
     .type = FlagType::integer,
     .fallback = "64",
     .help = "sequences of --valid at most; 0: all",
     .minimum = 0,
     .maximum = 1e12},
    {.name = "model",
     .fallback = "moe",
     .help = "mnist: the network; dense, or with four experts by a learned router or by reconstruction error",
     .choices = "ffn|moe|mcqsmoe"},
    {.name = "data", .type = FlagType::path, .help = "mnist: the folder with its four files", .value_name = "DIR"},
    {.name = "epochs",
     .type = FlagType::integer,
     .fallback = "6",
     .help = "mnist: passes over the training images",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "top-k", .help = "mnist: experts of an image; 4: all; none: 1, with mcqsmoe 2", .choices = "1|2|4"},
    {.name = "capacity-factor",
     .type = FlagType::number,
     .fallback = "1.25",
     .help = "mnist: times the mean load, the images that an expert computes in a step at most; 0: no limit",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "noisy-gating",
     .type = FlagType::boolean,
     .fallback = "true",
     .help = "mnist: add N(0, 1) to the router's logits in training"},
    {.name = "dropout",
     .type = FlagType::number,
     .fallback = "0.1",
     .help = "mnist: share of hidden values left out in training",
     .minimum = 0,
     .maximum = 0.99},
    {.name = "max-shift",
     .type = FlagType::integer,
     .fallback = "1",
     .help = "mnist: pixels by which training images are moved at most",
     .minimum = 0,
     .maximum = 27},
};

// What the kind "mnist" reads; of the others "model" to "max-shift" are its alone.
constexpr std::string_view kMnistFlags[] = {
    "out",  "batch-size", "lr",    "balance-loss",    "reconstruction-loss", "threads", "seed",     "model",
    "data", "epochs",     "top-k", "capacity-factor", "noisy-gating",        "dropout", "max-shift"};
constexpr std::size_t kFirstMnistFlag = 7;
constexpr std::string_view kSubspacesFlags[] = {
    "config",  "out",  "steps",     "batch-size",  "lr", "balance-loss", "reconstruction-loss",
    "threads", "seed", "data-seed", "routing-seed"};
// Flags of "mnist" that not every network reads.
struct NetworkFlag {
  std::string_view name;
  bool moe, mcqsmoe;
};
constexpr NetworkFlag kNetworkFlags[] = {{"balance-loss", true, true},
                                         {"top-k", true, true},
                                         {"capacity-factor", true, true},
                                         {"noisy-gating", true, false},
                                         {"reconstruction-loss", false, true}};
constexpr std::int64_t kMnistBatch = 64;

/// Error(usage) for a flag that says nothing to this kind. Not for what the environment has: it is for all commands.
void check_flags(const Arguments& arguments, const std::string& kind) {
  const bool mnist = kind == "mnist", subspaces = kind == "subspaces";
  const std::span<const std::string_view> known = kMnistFlags, own = known.subspan(kFirstMnistFlag);
  for (const Flag& flag : kFlags) {
    const auto in = [&](std::span<const std::string_view> names) {
      return std::find(names.begin(), names.end(), flag.name) != names.end();
    };
    const bool says_something = subspaces ? in(kSubspacesFlags) : mnist ? in(known) : !in(own);
    if (!arguments.on_command_line(flag.name) || says_something) continue;
    throw Error(ErrorCode::usage, fmt::format("--{} says nothing to train {}", flag.name, kind), "", "leave it out");
  }
  if (!mnist) return;
  const std::string model = arguments.text("model");
  for (const NetworkFlag& row : kNetworkFlags) {
    const bool read = (model == "moe" && row.moe) || (model == "mcqsmoe" && row.mcqsmoe);
    if (read || !arguments.on_command_line(row.name)) continue;
    throw Error(ErrorCode::usage, fmt::format("--{} says nothing to --model {}", row.name, model), "", "leave it out");
  }
}

/// One expert's softmin weight is 1 whatever its error, so by error the task says nothing to the router with one.
std::int64_t top_k_of(const Arguments& arguments) {
  if (arguments.given("top-k")) return std::stoll(arguments.text("top-k"));
  return arguments.text("model") == "mcqsmoe" ? 2 : 1;
}

TrainOptions train_options(const Arguments& arguments) {
  TrainOptions options;
  options.kind = arguments.text("KIND");
  options.config = arguments.text("config");
  options.init = arguments.text("init");
  options.tokenizer = arguments.text("tokenizer");
  options.texts = arguments.paths("text");
  options.valid = arguments.paths("valid");
  options.out = arguments.text("out");
  options.objective = arguments.text("objective");
  options.steps = arguments.integer("steps");
  options.batch_size = arguments.integer("batch-size");
  options.seqlen = arguments.integer("seqlen");
  options.shuffle = arguments.flag("shuffle");
  options.optimizer = arguments.text("optimizer");
  options.lr = arguments.number("lr");
  options.min_lr_ratio = arguments.number("min-lr-ratio");
  options.warmup_ratio = arguments.number("warmup-ratio");
  options.schedule = arguments.text("schedule");
  options.weight_decay = arguments.number("weight-decay");
  options.beta1 = arguments.number("beta1");
  options.beta2 = arguments.number("beta2");
  options.eps = arguments.number("eps");
  options.momentum = arguments.number("momentum");
  options.clip = arguments.number("clip");
  options.balance_loss = arguments.number("balance-loss");
  options.z_loss = arguments.number("z-loss");
  options.bias_update_speed = arguments.number("bias-update-speed");
  options.reconstruction_loss = arguments.number("reconstruction-loss");
  options.round_after = arguments.number("round-after");
  options.dtype = arguments.text("dtype");
  options.save_dtype = arguments.text("save-dtype");
  options.device = arguments.text("device");
  options.threads = static_cast<int>(arguments.integer("threads"));
  options.seed = static_cast<std::uint64_t>(arguments.integer("seed"));
  const auto seed_if_given = [&](const char* name) -> std::optional<std::uint64_t> {
    if (!arguments.given(name)) return std::nullopt;
    return static_cast<std::uint64_t>(arguments.integer(name));
  };
  options.data_seed = seed_if_given("data-seed");
  options.routing_seed = seed_if_given("routing-seed");
  options.save_every = arguments.integer("save-every");
  options.keep = arguments.integer("keep");
  options.eval_every = arguments.integer("eval-every");
  options.eval_sequences = arguments.integer("eval-sequences");
  const bool mnist = options.kind == "mnist";
  check_flags(arguments, options.kind);
  if (mnist && !arguments.given("batch-size")) options.batch_size = kMnistBatch;
  options.mnist = {.network = arguments.text("model"),
                   .data = arguments.text("data"),
                   .epochs = arguments.integer("epochs"),
                   .top_k = top_k_of(arguments),
                   .capacity_factor = arguments.number("capacity-factor"),
                   .noisy_gating = arguments.flag("noisy-gating"),
                   .dropout = arguments.number("dropout"),
                   .max_shift = arguments.integer("max-shift")};
  return options;
}

std::string mnist_text(const TrainReport& report) {
  std::string out = fmt::format("{} parameters, {} for each image\n", report.parameters, report.active_parameters);
  out += fmt::format("{} steps, loss {:.4f}; on the test images {:.4f}, accuracy {:.2f} %\n", report.steps, report.loss,
                     report.valid_loss, 100 * report.test_accuracy);
  if (report.expert_load.empty()) return out;
  out += "share of the images by expert:";
  for (const double load : report.expert_load) out += fmt::format(" {:.3f}", load);
  return out + fmt::format("; over capacity {:.2f} %\n", 100 * report.over_capacity);
}

std::string subspaces_text(const TrainReport& report) {
  return fmt::format("{} steps, mean error {:.4f}; of the held-out vectors {:.2f} % go to their owner's expert\n",
                     report.steps, report.valid_loss, 100 * report.specialisation);
}

std::string report_text(const TrainReport& report) {
  std::string out =
      fmt::format("{}: {:.2f} M parameters, {:.2f} M for each token\n", report.model_type,
                  static_cast<double>(report.parameters) / 1e6, static_cast<double>(report.active_parameters) / 1e6);
  out += fmt::format("{} steps, {} tokens, loss {:.4f}", report.steps, report.tokens, report.loss);
  if (!std::isnan(report.valid_loss)) out += fmt::format(", on --valid {:.4f}", report.valid_loss);
  out += "\n";
  if (!report.expert_load.empty()) {
    out += "busiest expert over the mean, by layer:";
    for (const double load : report.expert_load) out += fmt::format(" {:.2f}", load);
    out += "\n";
  }
  return out;
}

int run_train(const Arguments& arguments) {
  KEDGE_CHECK(arguments.torch() != nullptr);
  const TrainOptions options = train_options(arguments);
  const TrainReport report = arguments.torch()->train(options, arguments.ranks());
  if (!arguments.is_root()) return 0;
  const bool mnist = options.kind == "mnist";
  const bool subspaces = options.kind == "subspaces";
  const std::string text = mnist ? mnist_text(report) : subspaces ? subspaces_text(report) : report_text(report);
  print(arguments.flag("json") ? read_json(options.out / "training.json").dump(2) + "\n" : text);
  note(fmt::format("wrote {} ({:.0f} {}/s)", options.out.string(), report.tokens_per_second,
                   mnist       ? "images"
                   : subspaces ? "vectors"
                               : "tokens"));
  return 0;
}

Needs needs_of(const Arguments&) { return Needs::torch; }

}  // namespace

constinit const Command train_command{
    .name = "train",
    .summary = "Train a small MoE language model from a config and a text, or a classifier of MNIST",
    .positionals = kPositionals,
    .flags = kFlags,
    .common = kPlainFlags,
    .example =
        "kedge train lm --config models/demo-4m/config.json --tokenizer models/demo-4m --text book.txt --out my-moe",
    .run = run_train,
    .details =
        "Runs in kedge-torch. The text is cut into sequences of --seqlen tokens. A run that was stopped, by Ctrl-C or "
        "a "
        "kill, goes on with the same command from its newest checkpoint, as if it had not been stopped. mnist takes "
        "a minute and reads the flags whose help says so, --out, --batch-size, --lr, --balance-loss, "
        "--reconstruction-loss, --seed and --threads (0: one). subspaces takes seconds and reads --config, --out, "
        "--steps, "
        "--batch-size, --lr, --balance-loss, --reconstruction-loss, --threads and the seeds: as many subspaces as the "
        "config has experts, which must be "
        "autoencoders (expert_output reconstruction); the share of vectors that go to their owner's expert is printed. "
        "Started by mpirun, the ranks share the sequences of each step of lm.",
    .needs_with = needs_of,
    .ranks = true};

}  // namespace kedge::cli
