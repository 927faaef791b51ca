// How long one pass takes: the model alone, after a warm-up, the networks in turn.
#include <chrono>

#include "base/cpu.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "claims/mnist_runs.h"
#include "kedge/error.h"
#include "model/classify.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

constexpr std::int64_t kBatches[] = {1, 64};
constexpr std::int64_t kWarmUp = 20;

struct Contestant {
  std::string variant, scheme;
  Classifier classifier;
};

}  // namespace

std::vector<std::vector<double>> time_in_turn(std::span<const Classifier* const> networks, const ImageSet& images,
                                              std::int64_t batch, std::int64_t rounds) {
  ThreadPool threads(1);
  Arena arena;
  const ExecContext ctx{threads, arena};
  const ClassifierSpec& spec = networks[0]->spec();
  const std::int64_t sets = images.count / batch;
  std::vector<float> x(static_cast<std::size_t>(batch * spec.num_inputs()));
  std::vector<float> logits(static_cast<std::size_t>(batch * spec.num_classes));
  std::vector<std::vector<double>> seconds(networks.size());
  for (std::int64_t round = -kWarmUp; round < rounds; ++round) {
    throw_if_interrupted();
    normalize_images(spec, images.image((round + kWarmUp) % sets * batch), batch, x.data());
    for (std::size_t n = 0; n < networks.size(); ++n) {
      const auto start = std::chrono::steady_clock::now();
      networks[n]->forward(ctx, x.data(), batch, logits.data());
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
      if (round >= 0) seconds[n].push_back(taken.count());
    }
  }
  return seconds;
}

Json measure_mnist_latency(const MnistReportOptions& options, std::uint64_t seed, const MnistData& data) {
  std::vector<Contestant> all;
  for (const MnistVariant& variant : mnist_variants()) {
    if (!variant.balance) continue;  // the same computation as with it
    for (const MnistForm& form : mnist_forms(variant)) {
      if (form.key() != form.scheme) continue;
      const auto folder = mnist_model_folder(options, {&variant, seed}, form);
      all.push_back({variant.name, form.scheme, Classifier::open(folder, {.isa = detect_isa()})});
    }
  }
  std::vector<const Classifier*> networks;
  for (const Contestant& c : all) networks.push_back(&c.classifier);
  Json lines = Json::array();
  for (const std::int64_t batch : kBatches) {
    const auto seconds = time_in_turn(networks, data.test, batch, options.latency_rounds);
    for (std::size_t i = 0; i < all.size(); ++i) {
      lines.push_back({{"variant", all[i].variant},
                       {"scheme", all[i].scheme},
                       {"batch", batch},
                       {"p50", quantile(seconds[i], 0.5)},
                       {"p95", quantile(seconds[i], 0.95)}});
    }
  }
  return {{"seed", seed}, {"rounds", options.latency_rounds}, {"forms", std::move(lines)}};
}

}  // namespace kedge
