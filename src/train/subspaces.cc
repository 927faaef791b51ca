#include "train/subspaces.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <limits>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/normal.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>

#include "base/cpu.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "comm/communicator.h"
#include "kedge/error.h"
#include "model/family.h"
#include "moe/routing_audit.h"
#include "record/envelope.h"
#include "stats/mutual_information.h"
#include "train/manifold.h"
#include "train/record.h"
#include "twin/anchored.h"
#include "twin/reconstruction_moe.h"

namespace kedge::training {
namespace {

namespace fs = std::filesystem;

constexpr double kNoise = 0.1;  ///< its expected norm over the signal's
constexpr std::int64_t kTestVectors = 4096, kMostSubspaces = 16;
constexpr int kPermutations = 999;
constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;

/// Streams of one seed that have nothing to do with each other: encoders drawn as the subspaces are would know them.
std::uint64_t stream(std::uint64_t seed, std::uint64_t number) { return seed * 0x9E3779B97F4A7C15ull + number; }

ReconstructionMoe layer_of(const TrainOptions& options, const Json& config) {
  const std::string where = options.config.string();
  const ModelSpec spec = family_of(config, where).spec(config, where);
  for (const BlockSpec& block : spec.blocks) {
    const auto* moe = std::get_if<ReconstructionMoe>(&block.mixer);
    if (moe == nullptr || moe->output != ExpertOutput::reconstruction) continue;
    if (moe->router.num_experts > kMostSubspaces) {
      throw Error(ErrorCode::usage, fmt::format("{} subspaces", moe->router.num_experts),
                  fmt::format("at most {}, for experts are matched to them", kMostSubspaces));
    }
    return *moe;
  }
  throw Error(ErrorCode::usage, where + " has no layer whose experts are autoencoders",
              "a kedge_mcqsmoe config with expert_output \"reconstruction\"");
}

void check_run(const TrainOptions& o) {
  if (o.config.empty()) throw Error(ErrorCode::usage, "there is no layer to train", "--config FILE");
  if (o.out.empty()) throw Error(ErrorCode::usage, "there is no place for the result", "--out DIR");
  if (o.steps < 1 || o.batch_size < 1 || !(o.lr >= 0) || !(o.balance_loss >= 0) || !(o.reconstruction_loss >= 0)) {
    throw Error(ErrorCode::usage, "steps, batch size, learning rate or a loss's weight is out of range",
                "at least 1 step and vector, nothing negative");
  }
  if (fs::exists(o.out / kRecordFile)) {
    throw Error(ErrorCode::exists, o.out.string() + " holds a finished run", "", "choose another --out or remove it");
  }
  std::error_code error;
  fs::create_directories(o.out, error);
  if (error) throw Error(ErrorCode::io, "cannot create " + o.out.string() + ": " + error.message());
}

/// Vectors and their owners.
struct Drawn {
  at::Tensor x;       ///< [N, d]
  at::Tensor owners;  ///< [N] int64
};

class Union {
 public:
  Union(const ErrorRouterSpec& spec, std::uint64_t seed)
      : spec_(spec), generator_(at::detail::createCPUGenerator(seed)) {
    const at::Tensor random = normal({spec.num_experts, spec.bottleneck, spec.hidden_size});
    bases_ = twin::retract(Manifold::stiefel_qr, random);
  }
  Drawn draw(std::int64_t count) {
    Drawn out;
    out.owners = at::randint(spec_.num_experts, {count}, generator_, at::TensorOptions().dtype(at::kLong));
    const at::Tensor codes = normal({count, 1, spec_.bottleneck});
    const at::Tensor signal = at::bmm(codes, bases_.index_select(0, out.owners)).squeeze(1);
    const double noise =
        kNoise * std::sqrt(static_cast<double>(spec_.bottleneck) / static_cast<double>(spec_.hidden_size));
    const at::Tensor sum = signal + noise * normal({count, spec_.hidden_size});
    out.x = sum / sum.norm(2, -1, /*keepdim=*/true);
    return out;
  }

 private:
  at::Tensor normal(at::IntArrayRef shape) {
    return at::empty(shape, at::TensorOptions().dtype(at::kFloat)).normal_(0.0, 1.0, generator_);
  }
  ErrorRouterSpec spec_;
  at::Generator generator_;
  at::Tensor bases_;  ///< [E, r, d]
};

/// A matrix of all experts under Adam, on its manifold.
struct Leaf {
  Leaf(Manifold where, const at::Tensor& first)
      : manifold(where),
        value(twin::retract(where, first).set_requires_grad(true)),
        first_moment(at::zeros_like(first)),
        second_moment(at::zeros_like(first)) {
    value.mutable_grad() = at::zeros_like(first);
  }
  void step(double lr, std::int64_t count) {
    const at::NoGradGuard no_gradients;
    const at::Tensor before = value.detach().clone();
    const at::Tensor gradient = project_to_tangent(manifold, before, value.grad());
    at::Tensor moved = before.clone();
    at::_fused_adamw_({moved}, {gradient}, {first_moment}, {second_moment}, {},
                      {at::full({}, static_cast<double>(count), at::kFloat)}, lr, kBeta1, kBeta2, 0.0, kEps,
                      /*amsgrad=*/false, /*maximize=*/false);
    value.copy_(twin::retract(manifold, before + project_to_tangent(manifold, before, moved - before)));
    value.grad().zero_();
  }
  Manifold manifold;
  at::Tensor value, first_moment, second_moment;
};

class Autoencoders {
 public:
  Autoencoders(const ReconstructionMoe& spec, std::uint64_t seed) : spec_(spec) {
    const ErrorRouterSpec& r = spec.router;
    at::Generator generator = at::detail::createCPUGenerator(seed);
    const auto random = [&](at::IntArrayRef shape) {
      const double deviation = 1 / std::sqrt(static_cast<double>(shape.back()));
      return at::empty(shape, at::TensorOptions().dtype(at::kFloat)).normal_(0.0, deviation, generator);
    };
    leaves_.emplace_back(spec.encoder_manifold, random({r.num_experts, r.bottleneck, r.hidden_size}));
    if (!r.tied) leaves_.emplace_back(Manifold::none, random({r.num_experts, r.hidden_size, r.bottleneck}));
  }
  twin::ReconstructionMoeTensors tensors() const {
    twin::ReconstructionMoeTensors w;
    w.encoder = leaves_[0].value;
    if (!spec_.router.tied) w.decoder = leaves_[1].value;
    return w;
  }
  /// One step on x [N, d]; returns the selected experts' mean error before it.
  double step(const at::Tensor& x, const TrainOptions& options, std::int64_t count) {
    const std::int64_t n = spec_.router.num_experts;
    const twin::ErrorRouted routed = twin::reconstruction_moe(spec_, tensors(), x);
    const at::Tensor load = at::bincount(routed.expert_ids.flatten(), {}, n).to(at::kFloat);
    const at::Tensor balance =
        (load / load.sum() * routed.probabilities.mean(at::IntArrayRef({0}))).sum() * static_cast<double>(n);
    const at::Tensor error = routed.errors.gather(-1, routed.expert_ids).mean();
    const at::Tensor total = error * options.reconstruction_loss + balance * options.balance_loss;
    total.backward();
    if (!std::isfinite(total.item<double>())) {
      throw Error(ErrorCode::unsupported, fmt::format("training diverged in step {}: the loss is not finite", count),
                  "finite losses", "choose a smaller --lr");
    }
    for (Leaf& leaf : leaves_) leaf.step(options.lr, count);
    return error.item<double>();
  }
  std::int64_t elements() const {
    std::int64_t sum = 0;
    for (const Leaf& leaf : leaves_) sum += leaf.value.numel();
    return sum;
  }

 private:
  ReconstructionMoe spec_;
  std::vector<Leaf> leaves_;
};

void write_result(const TrainOptions& options, const Json& config, const TrainReport& report, const Json& results) {
  Provenance provenance = make_provenance({.isa = detect_isa()}, report.threads);
  provenance.seeds = {options.seed, options.data_seed.value_or(options.seed),
                      options.routing_seed.value_or(options.seed)};
  const Json settings = {{"kind", "subspaces"},
                         {"config", config},
                         {"steps", options.steps},
                         {"batch_size", options.batch_size},
                         {"lr", options.lr},
                         {"balance_loss", options.balance_loss},
                         {"reconstruction_loss", options.reconstruction_loss},
                         {"noise", kNoise}};
  write_envelope(options.out / kRecordFile,
                 make_envelope("kedge.subspaces/1", provenance, settings, results, Json::array()));
}

Json measure(const ReconstructionMoe& spec, const twin::ReconstructionMoeTensors& w, const Drawn& test) {
  const at::NoGradGuard no_gradients;
  const std::int64_t n = spec.router.num_experts, count = test.x.size(0);
  const twin::ErrorRouted routed = twin::reconstruction_moe(spec, w, test.x);
  const at::Tensor first = routed.expert_ids.select(1, 0).contiguous();
  std::vector<std::int64_t> counts(static_cast<std::size_t>(n * n), 0), load(static_cast<std::size_t>(n), 0);
  std::vector<int> experts, owners;
  for (std::int64_t i = 0; i < count; ++i) {
    experts.push_back(static_cast<int>(first.const_data_ptr<std::int64_t>()[i]));
    owners.push_back(static_cast<int>(test.owners.const_data_ptr<std::int64_t>()[i]));
    ++counts[static_cast<std::size_t>(owners.back() * n + experts.back())];
    ++load[static_cast<std::size_t>(experts.back())];
  }
  const double agreement = static_cast<double>(best_matching(counts, n)) / static_cast<double>(count);
  const PermutationTest test_of = mutual_information_test(experts, owners, kPermutations, 1);
  return {{"specialisation", agreement},
          {"over_chance", agreement * static_cast<double>(n)},
          {"mutual_information", {{"nats", test_of.value}, {"null_high", test_of.null_high}, {"p", test_of.p}}},
          {"mean_error", routed.errors.gather(-1, routed.expert_ids).mean().item<double>()},
          {"load_entropy_bits", load_entropy_bits(load)},
          {"counts", counts}};
}

}  // namespace

std::int64_t best_matching(const std::vector<std::int64_t>& counts, std::int64_t n) {
  // best[set]: of the first |set| owners, matched to the experts of the set.
  std::vector<std::int64_t> best(std::size_t{1} << n, std::numeric_limits<std::int64_t>::min());
  best[0] = 0;
  for (std::size_t set = 1; set < best.size(); ++set) {
    const std::int64_t owner = std::popcount(set) - 1;
    for (std::int64_t e = 0; e < n; ++e) {
      if ((set >> e & 1) == 0) continue;
      best[set] =
          std::max(best[set], best[set ^ (std::size_t{1} << e)] + counts[static_cast<std::size_t>(owner * n + e)]);
    }
  }
  return best.back();
}

TrainReport train_subspaces(const TrainOptions& options, Communicator* ranks) {
  if (ranks != nullptr && ranks->size() > 1) {
    throw Error(ErrorCode::usage, "subspaces are not trained by several ranks", "", "start it once, without mpirun");
  }
  check_run(options);
  const auto start = std::chrono::steady_clock::now();
  const Json config = read_json(options.config);
  const ReconstructionMoe spec = layer_of(options, config);
  TrainReport report;
  report.threads = std::max(1, options.threads);
  at::set_num_threads(report.threads);
  Union vectors(spec.router, stream(options.data_seed.value_or(options.seed), 1));
  const Drawn test = vectors.draw(kTestVectors);
  Autoencoders experts(spec, stream(options.routing_seed.value_or(options.seed), 2));
  const Json before = measure(spec, experts.tensors(), test);
  for (std::int64_t step = 1; step <= options.steps; ++step) {
    throw_if_interrupted();
    report.loss = experts.step(vectors.draw(options.batch_size).x, options, step);
  }
  const Json after = measure(spec, experts.tensors(), test);
  report.model_type = "kedge_mcqsmoe";
  report.parameters = report.active_parameters = experts.elements();
  report.steps = options.steps;
  report.tokens = options.steps * options.batch_size;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.tokens_per_second = static_cast<double>(report.tokens) / report.seconds;
  report.valid_loss = after["mean_error"];
  report.specialisation = after["specialisation"];
  report.device = "cpu";
  write_result(options, config, report,
               {{"before", before},
                {"after", after},
                {"chance", 1.0 / static_cast<double>(spec.router.num_experts)},
                {"test_vectors", kTestVectors},
                {"seconds", report.seconds}});
  return report;
}

}  // namespace kedge::training
