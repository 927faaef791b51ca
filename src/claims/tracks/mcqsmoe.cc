// Tracks T, Q and QS of the layer that routes by reconstruction error.
//
// T   [setup] goldens (folders as of the subject "decoder", of the family kedge_mcqsmoe), replays, shapes ("E N K" of
//     stacks with random weights), group_size. Metrics: those of the subject "decoder", over goldens; and over the
//     stacks of goldens and shapes
//       row_norm_error  largest | ||W_e[i]|| - t | / t over all experts
//       memory_ratio    16 over the stored bits per weight, row scales included
// Q, QS (in kedge-torch)  [setup] config, steps, batch_size, lr: a layer of autoencoders trained on a union of
//     subspaces (train/subspaces.h). One sample per seed:
//       load_entropy_share            entropy of the experts' load over its maximum
//       owner_agreement_over_chance   share of vectors whose first expert is their owner's, times the experts; since
//                                     experts are matched to owners first, random ones are a little above 1
//     or one per test and seed (without seeds: seed 0):
//       failed_tests                  0 or 1, of six: creation, forward, deterministic routing, specialisation, audit
//                                     entropy, ways to combine
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <sstream>

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/toml_section.h"
#include "bench/mcqsmoe.h"
#include "claims/tracks/rows.h"
#include "io/checkpoint.h"
#include "kedge/error.h"
#include "model/family.h"
#include "moe/routing_audit.h"
#include "record/provenance.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

bool is_weight_metric(const std::string& metric) noexcept {
  return metric == "row_norm_error" || metric == "memory_ratio";
}

// ---- T: weights

struct WeightSetup {
  std::vector<fs::path> goldens;
  std::vector<std::array<std::int64_t, 3>> shapes;  ///< E, N, K
  std::int64_t group_size = 64;
};

WeightSetup read_weight_setup(const Claim& claim) {
  TomlSection section(claim.file, "[setup]", claim.setup);
  WeightSetup setup;
  if (const TomlValue* goldens = section.find("goldens")) setup.goldens = section.paths("goldens", *goldens);
  if (const TomlValue* shapes = section.find("shapes")) {
    for (const std::string& text : section.texts("shapes", *shapes)) {
      std::istringstream in(text);
      std::array<std::int64_t, 3> shape{};
      if (!(in >> shape[0] >> shape[1] >> shape[2]) || *std::min_element(shape.begin(), shape.end()) < 1) {
        section.fail(shapes->line, "\"" + text + "\" is no shape", "experts, rows and columns, such as \"4 1024 256\"");
      }
      setup.shapes.push_back(shape);
    }
  }
  setup.group_size = section.integer("group_size", setup.group_size, 1);
  section.refuse_others();
  if (setup.goldens.empty() && setup.shapes.empty()) section.fail(section.line(), "no weights", "goldens or shapes");
  return setup;
}

double weight_metric(const std::string& metric, const AnchorDelta& stack) {
  return metric == "row_norm_error" ? manifold_error(stack) : 16.0 / bits_per_weight(stack);
}

void add_sample(TrackOutcome& outcome, std::string label, double value) {
  const auto cluster = static_cast<std::int64_t>(outcome.samples.size());
  outcome.samples.push_back({std::move(label), cluster, {{"value", value}}});
}

TrackOutcome measure_weights(const Claim& claim, const TrackContext& context) {
  const WeightSetup setup = read_weight_setup(claim);
  TrackOutcome outcome;
  for (const fs::path& folder : setup.goldens) {
    const Checkpoint checkpoint = Checkpoint::open(folder);
    const ModelSpec spec = model_spec(checkpoint);
    for (const int layer : spec.moe_layers()) {
      for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
        const std::string name = fmt::format("model.layers.{}.mlp.experts.{}", layer, part);
        if (!checkpoint.stack_shape(name)) continue;
        add_sample(outcome, folder.filename().string() + ", " + name,
                   weight_metric(claim.metric, checkpoint.stack(name)));
      }
    }
    outcome.inputs.push_back(record_input("golden", folder));
  }
  for (const auto& [experts, rows, cols] : setup.shapes) {
    Rng rng(1);
    std::vector<float> weights(static_cast<std::size_t>(experts * rows * cols));
    for (float& w : weights) w = static_cast<float>(rng.uniform() - 0.5);
    const AnchorDelta stack = encode_anchor_delta(weights, experts, rows, cols,
                                                  {DType::f16, 4, setup.group_size, Manifold::sphere}, {}, "random");
    add_sample(outcome, fmt::format("random, {} experts of {} x {}", experts, rows, cols),
               weight_metric(claim.metric, stack));
  }
  context.log(fmt::format("  {} stacks", outcome.samples.size()));
  return outcome;
}

// ---- Q, QS: training on a union of subspaces, and six tests

TrainOptions read_training(const Claim& claim) {
  TomlSection section(claim.file, "[setup]", claim.setup);
  TrainOptions training;
  training.kind = "subspaces";
  const std::vector<fs::path> configs = section.paths("config", section.require("config", "a list of one config.json"));
  if (configs.size() != 1) section.fail(section.line(), "\"config\" names several", "a list of one config.json");
  training.config = configs[0];
  training.steps = section.integer("steps", training.steps, 1);
  training.batch_size = section.integer("batch_size", training.batch_size, 1);
  if (const TomlValue* lr = section.find("lr")) training.lr = section.as<double>("lr", *lr, "a number");
  section.refuse_others();
  return training;
}

/// The layer of the config's first block that has one.
ReconstructionMoe layer_of(const fs::path& config) {
  const Json json = read_json(config);
  const ModelSpec spec = family_of(json, config.string()).spec(json, config.string());
  for (const BlockSpec& block : spec.blocks) {
    if (const auto* moe = std::get_if<ReconstructionMoe>(&block.mixer)) {
      ReconstructionMoe layer = *moe;
      layer.router.orthonormal = false;  // the tests' random rows are on the sphere
      return layer;
    }
  }
  throw Error(ErrorCode::bad_file, config.string() + " has no layer that routes by error", "a kedge_mcqsmoe config");
}

constexpr std::int64_t kTokens = 64;

struct Pass {
  std::vector<float> x, y;
  RoutingAudit audit;
};

Pass pass_of(const ReconstructionMoe& spec, std::uint64_t seed, int num_threads) {
  const McqsMoeLayer layer(spec, AnchorForm::fused, {detect_isa(), Numerics::consistent, Activations::fp32}, seed);
  Pass pass;
  Rng rng(seed + 10);
  pass.x.resize(static_cast<std::size_t>(kTokens * spec.router.hidden_size));
  for (float& value : pass.x) value = static_cast<float>(rng.uniform() - 0.5);
  pass.y.resize(pass.x.size());
  ThreadPool threads(num_threads);
  Arena arena;
  layer.block().forward({threads, arena}, 0, pass.x.data(), kTokens, pass.y.data(), &pass.audit);
  return pass;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(double{a[i]} - double{b[i]}));
  return worst;
}

bool creates(const ReconstructionMoe& spec, std::uint64_t seed) {
  const McqsMoeLayer layer(spec, AnchorForm::fused, {detect_isa(), Numerics::consistent, Activations::fp32}, seed);
  ReconstructionMoe impossible = spec;
  impossible.router.num_experts_per_tok = spec.router.num_experts + 1;
  try {
    pass_of(impossible, seed, 1);
    return false;  // more experts than there are is an error
  } catch (const Error&) {
  }
  return layer.parameters() > 0 && layer.block().num_bytes() > 0;
}

bool forwards(const ReconstructionMoe& spec, std::uint64_t seed) {
  const Pass pass = pass_of(spec, seed, 1);
  const bool finite = std::all_of(pass.y.begin(), pass.y.end(), [](float v) { return std::isfinite(v); });
  return finite && std::any_of(pass.y.begin(), pass.y.end(), [](float v) { return v != 0; });
}

bool routes_alike(const ReconstructionMoe& spec, std::uint64_t seed) {
  const Pass first = pass_of(spec, seed, 1);
  for (const int threads : {1, 2, 3}) {
    const Pass again = pass_of(spec, seed, threads);
    if (again.audit.token_experts != first.audit.token_experts || again.y != first.y) return false;
  }
  return true;
}

bool counts_entropy(const ReconstructionMoe& spec, std::uint64_t seed) {
  const std::pair<std::array<std::int64_t, 4>, double> known[] = {
      {{8, 7, 1, 0}, 1.272}, {{8, 6, 2, 0}, 1.406}, {{7, 6, 3, 0}, 1.505}};
  for (const auto& [counts, bits] : known) {
    if (std::fabs(load_entropy_bits(counts) - bits) > 5e-4) return false;
  }
  const RoutingAudit audit = pass_of(spec, seed, 1).audit;
  return audit.load_entropy_bits > 0 && audit.load_entropy_bits <= audit.max_entropy_bits &&
         std::fabs(audit.max_entropy_bits - std::log2(static_cast<double>(spec.router.num_experts))) < 1e-12;
}

// residual = x + softmin; with one expert softmin, best and uniform are the same; with two, softmin and uniform are
// not.
bool combines(ReconstructionMoe spec, std::uint64_t seed) {
  const auto y_of = [&](CombineMethod method, std::int64_t k) {
    spec.router.combine = method, spec.router.num_experts_per_tok = k;
    return pass_of(spec, seed, 1);
  };
  const Pass softmin = y_of(CombineMethod::softmin, 2);
  std::vector<float> sum = softmin.x;
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += softmin.y[i];
  const std::vector<float> best = y_of(CombineMethod::best, 2).y;
  return largest_difference(y_of(CombineMethod::residual, 2).y, sum) < 1e-5 &&
         largest_difference(y_of(CombineMethod::softmin, 1).y, best) < 1e-5 &&
         largest_difference(y_of(CombineMethod::uniform, 1).y, best) < 1e-5 &&
         largest_difference(y_of(CombineMethod::uniform, 2).y, softmin.y) > 0;
}

class Quality {
 public:
  explicit Quality(const TrackContext& context) : context_(context) {}

  TrackOutcome measure(const Claim& claim, const ClaimSize& size) {
    TrackOutcome outcome;
    const TrainOptions training = read_training(claim);
    const ReconstructionMoe spec = layer_of(training.config);
    const std::vector<std::uint64_t> seeds = size.seeds.empty() ? std::vector<std::uint64_t>{0} : size.seeds;
    for (const std::uint64_t seed : seeds) {
      const Json results = trained(training, seed, outcome);
      const Json& after = results.at("after");
      const double chance = after.at("over_chance").get<double>();
      if (claim.metric == "failed_tests") {
        const bool more = chance > results.at("before").at("over_chance").get<double>();
        const bool sure = after.at("mutual_information").at("p").get<double>() < 0.05;
        add_tests(spec, seed, more && sure, size, outcome);
        continue;
      }
      const double entropy = after.at("load_entropy_bits").get<double>();
      const double share = entropy / std::log2(static_cast<double>(spec.router.num_experts));
      outcome.samples.push_back({fmt::format("seed {}", seed),
                                 static_cast<std::int64_t>(seed),
                                 {{"value", claim.metric == "load_entropy_share" ? share : chance}}});
    }
    outcome.inputs.push_back(record_input("config", training.config));
    return outcome;
  }

 private:
  void add_tests(const ReconstructionMoe& spec, std::uint64_t seed, bool specialises, const ClaimSize& size,
                 TrackOutcome& outcome) const {
    const std::pair<const char*, bool> tests[] = {{"creation", creates(spec, seed)},
                                                  {"forward", forwards(spec, seed)},
                                                  {"deterministic routing", routes_alike(spec, seed)},
                                                  {"specialisation", specialises},
                                                  {"audit entropy", counts_entropy(spec, seed)},
                                                  {"ways to combine", combines(spec, seed)}};
    for (const auto& [name, passed] : tests) {
      const std::string label = size.seeds.empty() ? name : fmt::format("{}, seed {}", name, seed);
      outcome.samples.push_back({label, static_cast<std::int64_t>(seed), {{"value", passed ? 0.0 : 1.0}}});
      context_.log(fmt::format("  {}: {}", label, passed ? "passed" : "failed"));
    }
  }

  // The record's results. Each seed is trained once for all claims of the same settings.
  Json trained(TrainOptions training, std::uint64_t seed, TrackOutcome& outcome) const {
    const std::string name = fmt::format("subspaces_{}_{}_{}_{}_seed{}", sha256_file(training.config).substr(0, 8),
                                         training.steps, training.batch_size, training.lr, seed);
    training.out = context_.bundle / "records" / "Q" / name;
    training.seed = seed;
    training.threads = 1;
    const fs::path record = training.out / "training.json";
    if (!fs::exists(record)) {
      const TalkScope talk(false);
      const TrainReport report = context_.train(training, nullptr);
      context_.log(
          fmt::format("  seed {}: specialisation {:.3f} in {:.0f} s", seed, report.specialisation, report.seconds));
    }
    outcome.artifacts.push_back({fs::relative(record, context_.bundle).generic_string(), {}});
    return read_json(record).at("results");
  }

  const TrackContext& context_;
};

}  // namespace

void check_mcqsmoe_parity(const Claim& claim) {
  if (!is_weight_metric(claim.metric)) return check_parity(claim);
  if (claim.effect != Effect::value) {
    throw Error(ErrorCode::bad_file, claim.file.string() + ": weights are compared with nothing", "effect = \"value\"");
  }
  read_weight_setup(claim);
}

void run_mcqsmoe_parity(std::span<const TrackJob> jobs, const TrackContext& context) {
  for (const TrackJob& job : jobs) {
    if (is_weight_metric(job.claim->metric)) {
      context.done(job, measure_weights(*job.claim, context));
    } else {
      run_parity(std::span(&job, 1), context);
    }
  }
}

void check_mcqsmoe_quality(const Claim& claim) {
  constexpr std::array kMetrics = {"load_entropy_share", "owner_agreement_over_chance", "failed_tests"};
  if (std::find(kMetrics.begin(), kMetrics.end(), claim.metric) == kMetrics.end()) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: track {} has no metric \"{}\"", claim.file.string(), claim.track, claim.metric),
                "load_entropy_share, owner_agreement_over_chance or failed_tests");
  }
  layer_of(read_training(claim).config);
}

void run_mcqsmoe_quality(std::span<const TrackJob> jobs, const TrackContext& context) {
  Quality quality(context);
  for (const TrackJob& job : jobs) {
    TrackOutcome outcome;
    if (context.train == nullptr) {
      outcome.not_run =
          "the layer is trained by gradients, and this is kedge without libtorch: kedge-torch verify runs it";
      outcome.missing_subject = true;
    } else {
      outcome = quality.measure(*job.claim, job.size);
    }
    context.done(job, std::move(outcome));
  }
}

}  // namespace kedge
