// Observers: against torch.ao's (tests/goldens/mnist/expected.json), and what each is for.
#include "ptq/activation_scales.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/json.h"
#include "base/rng.h"
#include "io/idx.h"
#include "kedge/error.h"
#include "model/classifier.h"
#include "nn/probe.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

const fs::path kGoldens = fs::path(KEDGE_SOURCE_DIR) / "tests/goldens/mnist";
const fs::path kFixture = fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/mnist";

class Collector : public ForwardProbe {
 public:
  unsigned sites() const noexcept override { return static_cast<unsigned>(Site::linear_input); }
  void linear_input(std::string_view module, std::int64_t rows, std::int64_t size, const float* x,
                    std::int64_t ld) override {
    EXPECT_EQ(ld, size);
    inputs[std::string(module)].emplace_back(x, x + rows * size);
  }
  std::map<std::string, ActivationBatches> inputs;
};

TEST(ActivationScales, EqualTorchsObservers) {
  const Json expected = read_json(kGoldens / "expected.json");
  const auto images = expected["calibration_images"].get<std::int64_t>();
  const auto batch = expected["calibration_batch"].get<std::int64_t>();
  const ImageSet train = read_mnist(kFixture, MnistPart::train);
  ThreadPool threads(1);
  Arena arena;
  int compared = 0;
  for (const char* name : {"ffn", "moe", "moe2"}) {
    const Classifier classifier = Classifier::open(kGoldens / name, {.isa = detect_isa()});
    Collector collector;
    std::vector<float> x(static_cast<std::size_t>(batch * 784)), logits(static_cast<std::size_t>(batch * 10));
    for (std::int64_t begin = 0; begin < images; begin += batch) {
      normalize_images(classifier.spec(), train.image(begin), batch, x.data());
      classifier.forward({threads, arena, &collector}, x.data(), batch, logits.data());
    }
    for (const char* observer : {"min-max", "moving-average"}) {
      for (const auto& [module, scale] : expected["networks"][name]["scales"][observer].items()) {
        ASSERT_TRUE(collector.inputs.contains(module)) << module;
        EXPECT_NEAR(static_scale(collector.inputs[module], parse_observer(observer)) / scale.get<double>(), 1, 2e-5)
            << name << " " << module << " " << observer;
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, 2 * (3 + 10 + 10));
}

ActivationBatches normal_batches(double outlier) {
  Rng rng(1);
  ActivationBatches batches(8);
  for (auto& batch : batches) {
    for (int i = 0; i < 4096; ++i) batch.push_back(static_cast<float>(rng.normal()));
  }
  if (outlier > 0) batches[3][7] = static_cast<float>(outlier);
  return batches;
}

/// Mean squared error of int8 with this scale.
double error_of(const ActivationBatches& batches, double scale) {
  double sum = 0;
  for (const auto& batch : batches) {
    for (const float x : batch) {
      const double q = std::min(127.0, std::max(-127.0, std::nearbyint(x / scale)));
      sum += std::pow(x - q * scale, 2);
    }
  }
  return sum;
}

TEST(ActivationScales, ClippingObserversIgnoreAnOutlier) {
  const ActivationBatches batches = normal_batches(60.0);
  const double all = static_scale(batches, ActivationObserver::min_max);
  EXPECT_FLOAT_EQ(static_cast<float>(all * 127), 60.0f);
  const double share = static_scale(batches, ActivationObserver::percentile);
  EXPECT_NEAR(share * 127, 3.9, 0.4);  // P(|x| > 3.89) = 1e-4
  const double divergence = static_scale(batches, ActivationObserver::histogram);
  EXPECT_LT(divergence * 127, 10);
  EXPECT_GT(divergence * 127, 2.5);
  EXPECT_LT(static_scale(batches, ActivationObserver::moving_average), 0.2 * all);
  // The typical value is better off, which is what they give the outlier up for.
  ActivationBatches typical = batches;
  typical[3][7] = 0;
  for (const double scale : {share, divergence}) EXPECT_LT(error_of(typical, scale), 0.1 * error_of(typical, all));
}

TEST(ActivationScales, KeepTheWholeOfAnEvenRange) {
  ActivationBatches batches(1);
  for (int i = 0; i <= 20000; ++i) batches[0].push_back(static_cast<float>(i) / 20000.0f);
  for (const std::string& name : observer_names()) {
    EXPECT_NEAR(static_scale(batches, parse_observer(name)) * 127, 1.0, 0.07) << name;
  }
}

TEST(ActivationScales, ZerosHaveAScale) {
  for (const std::string& name : observer_names()) {
    EXPECT_EQ(static_scale({std::vector<float>(100, 0.0f)}, parse_observer(name)), 1.0f) << name;
  }
  EXPECT_THROW(parse_observer("maximum"), Error);
}

}  // namespace
}  // namespace kedge
