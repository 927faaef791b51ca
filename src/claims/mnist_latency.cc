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
  std::vector<double> seconds;
};

}  // namespace

Json measure_mnist_latency(const MnistReportOptions& options, std::uint64_t seed, const MnistData& data) {
  std::vector<Contestant> all;
  for (const MnistVariant& variant : mnist_variants()) {
    if (!variant.balance) continue;  // the same computation as with it
    for (const MnistForm& form : mnist_forms(variant)) {
      if (form.key() != form.scheme) continue;
      const auto folder = mnist_model_folder(options, {&variant, seed}, form);
      all.push_back({variant.name, form.scheme, Classifier::open(folder, {.isa = detect_isa()}), {}});
    }
  }
  ThreadPool threads(1);
  Arena arena;
  const ExecContext ctx{threads, arena};
  Json lines = Json::array();
  for (const std::int64_t batch : kBatches) {
    const ClassifierSpec& spec = all[0].classifier.spec();
    const std::int64_t sets = data.test.count / batch;
    std::vector<float> x(static_cast<std::size_t>(batch * spec.num_inputs()));
    std::vector<float> logits(static_cast<std::size_t>(batch * spec.num_classes));
    for (Contestant& c : all) c.seconds.clear();
    for (std::int64_t round = -kWarmUp; round < options.latency_rounds; ++round) {
      throw_if_interrupted();
      normalize_images(spec, data.test.image((round + kWarmUp) % sets * batch), batch, x.data());
      for (Contestant& c : all) {
        const auto start = std::chrono::steady_clock::now();
        c.classifier.forward(ctx, x.data(), batch, logits.data());
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        if (round >= 0) c.seconds.push_back(taken.count());
      }
    }
    for (const Contestant& c : all) {
      lines.push_back({{"variant", c.variant},
                       {"scheme", c.scheme},
                       {"batch", batch},
                       {"p50", quantile(c.seconds, 0.5)},
                       {"p95", quantile(c.seconds, 0.95)}});
    }
  }
  return {{"seed", seed}, {"rounds", options.latency_rounds}, {"forms", std::move(lines)}};
}

}  // namespace kedge
