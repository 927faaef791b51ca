// Classifiers against PyTorch's logits (tests/goldens/mnist, tools/make_mnist_goldens.py): fp32, and int8 with dynamic
// and static inputs; the same bits on every instruction set, thread count and batch; what a config is told.
#include "model/classifier.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <gtest/gtest.h>

#include "base/json.h"
#include "kedge/error.h"
#include "model/classify.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

const fs::path kGoldens = fs::path(KEDGE_SOURCE_DIR) / "tests/goldens/mnist";
const fs::path kFixture = fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/mnist";

struct Setting {
  Isa isa = Isa::scalar;
  int threads = 1;
  std::int64_t batch = 12;
};

std::vector<float> logits_of(const std::string& name, std::int64_t images, const Setting& setting) {
  const Classifier classifier = Classifier::open(kGoldens / name, {.isa = setting.isa});
  const ClassifierSpec& spec = classifier.spec();
  const ImageSet set = read_mnist(kFixture, MnistPart::test);
  std::vector<float> x(static_cast<std::size_t>(images * spec.num_inputs()));
  normalize_images(spec, set.image(0), images, x.data());
  std::vector<float> logits(static_cast<std::size_t>(images * spec.num_classes));
  ThreadPool threads(setting.threads);
  Arena arena;
  for (std::int64_t begin = 0; begin < images; begin += setting.batch) {
    classifier.forward({threads, arena}, x.data() + begin * spec.num_inputs(), std::min(setting.batch, images - begin),
                       logits.data() + begin * spec.num_classes);
  }
  return logits;
}

struct Golden {
  const char* network;
  const char* kind;
  const char* folder;
};
constexpr Golden kAll[] = {
    {"ffn", "fp32", "ffn"},   {"ffn", "dynamic", "ffn-dynamic"},   {"ffn", "static", "ffn-static"},
    {"moe", "fp32", "moe"},   {"moe", "dynamic", "moe-dynamic"},   {"moe", "static", "moe-static"},
    {"moe2", "fp32", "moe2"}, {"moe2", "dynamic", "moe2-dynamic"}, {"moe2", "static", "moe2-static"},
};
constexpr double kTolerance = 2e-5;  // fp32 rounding of values up to 5

class ClassifierGoldens : public ::testing::TestWithParam<Golden> {};

TEST_P(ClassifierGoldens, EqualPyTorch) {
  const Json expected = read_json(kGoldens / "expected.json");
  const auto images = expected["images"].get<std::int64_t>();
  const Golden& golden = GetParam();
  const Json& rows = expected["networks"][golden.network][golden.kind];
  const std::vector<float> logits = logits_of(golden.folder, images, {.isa = detect_isa()});
  ASSERT_EQ(rows.size() * rows[0].size(), logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    EXPECT_NEAR(logits[i], rows[i / rows[0].size()][i % rows[0].size()].get<double>(), kTolerance)
        << golden.folder << " image " << i / rows[0].size();
  }
}

TEST_P(ClassifierGoldens, SameBitsEverywhere) {
  constexpr std::int64_t kImages = 100;
  const std::string name = GetParam().folder;
  const std::vector<float> reference = logits_of(name, kImages, {Isa::scalar, 1, 100});
  for (int isa = 0; isa <= static_cast<int>(detect_isa()); ++isa) {
    for (const Setting& setting : {Setting{static_cast<Isa>(isa), 1, 1}, Setting{static_cast<Isa>(isa), 3, 7},
                                   Setting{static_cast<Isa>(isa), 2, 100}}) {
      const std::vector<float> logits = logits_of(name, kImages, setting);
      for (std::size_t i = 0; i < logits.size(); ++i) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(logits[i]), std::bit_cast<std::uint32_t>(reference[i]))
            << name << " isa " << isa << " batch " << setting.batch;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, ClassifierGoldens, ::testing::ValuesIn(kAll),
                         [](const auto& info) { return std::string(info.param.network) + "_" + info.param.kind; });

TEST(Classifier, HasTheReportsSizes) {
  EXPECT_EQ(count_parameters(mnist_spec(ClassifierNetwork::ffn, 1)), 235'146);
  EXPECT_EQ(count_parameters(mnist_spec(ClassifierNetwork::moe, 1)), 730'894);
  const ClassifierSpec one = mnist_spec(ClassifierNetwork::moe, 1), all = mnist_spec(ClassifierNetwork::moe, 4);
  EXPECT_EQ(count_active_parameters(all), count_parameters(all));
  EXPECT_EQ(count_active_parameters(one), 730'894 - 3 * (2 * (256 * 256 + 256)));
  EXPECT_EQ(count_flops(all) - count_flops(one), 2 * 3 * 2 * 256 * 256);
  // Four encoders of 32 x 256 in place of a router of 4 x 256 with a bias.
  EXPECT_EQ(count_parameters(mnist_spec(ClassifierNetwork::mcqsmoe, 2)), 730'894 - 4 * 257 + 4 * 32 * 256);
}

TEST(Classifier, ConfigsRoundTrip) {
  for (const ClassifierNetwork network : {ClassifierNetwork::ffn, ClassifierNetwork::moe, ClassifierNetwork::mcqsmoe}) {
    const Json config = classifier_config(mnist_spec(network, 2));
    EXPECT_EQ(classifier_config(classifier_spec(config, "config.json")), config);
  }
}

TEST(Classifier, RefusesBrokenConfigs) {
  const auto code_of = [](const char* key, const Json& value) {
    Json config = classifier_config(mnist_spec(ClassifierNetwork::moe, 1));
    config[key] = value;
    try {
      classifier_spec(config, "config.json");
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::exists;
  };
  EXPECT_EQ(code_of("model_type", "olmoe"), ErrorCode::unsupported);
  EXPECT_EQ(code_of("network", "mcqsmoe"), ErrorCode::bad_file) << "without router_bottleneck";
  for (const auto& [key, value] : std::vector<std::pair<const char*, Json>>{{"network", "cnn"},
                                                                            {"image_size", 0},
                                                                            {"image_std", 0},
                                                                            {"hidden_sizes", Json::array()},
                                                                            {"hidden_sizes", Json::array({256, 128})},
                                                                            {"num_experts", 0},
                                                                            {"num_experts_per_tok", 5},
                                                                            {"num_classes", "ten"}}) {
    EXPECT_EQ(code_of(key, value), ErrorCode::bad_file) << key << " " << value;
  }
}

TEST(Classify, CountsAndSeesTheRouting) {
  const Classifier classifier = Classifier::open(kGoldens / "moe2", {.isa = detect_isa()});
  const ImageSet images = read_mnist(kFixture, MnistPart::test);
  ThreadPool threads(1);
  Arena arena;
  const Answers answers = classify({threads, arena}, classifier, images, 33);
  ASSERT_EQ(answers.predicted.size(), 100u);
  ASSERT_EQ(answers.experts.size(), 200u);
  ASSERT_EQ(answers.entropy.size(), 100u);
  const std::vector<float> logits = logits_of("moe2", 100, {.isa = detect_isa()});
  std::int64_t right = 0;
  double loss = 0;
  for (std::int64_t i = 0; i < 100; ++i) {
    const float* z = logits.data() + i * 10;
    right += std::max_element(z, z + 10) - z == images.label(i) ? 1 : 0;
    double sum = 0;
    for (int k = 0; k < 10; ++k) sum += std::exp(static_cast<double>(z[k]));
    loss += std::log(sum) - static_cast<double>(z[images.label(i)]);
    EXPECT_NE(answers.experts[static_cast<std::size_t>(2 * i)], answers.experts[static_cast<std::size_t>(2 * i + 1)]);
    EXPECT_GE(answers.entropy[static_cast<std::size_t>(i)], 0.0f);
    EXPECT_LE(answers.entropy[static_cast<std::size_t>(i)], std::log(4.0f) + 1e-6f);
  }
  EXPECT_DOUBLE_EQ(answers.accuracy, static_cast<double>(right) / 100);
  EXPECT_NEAR(answers.loss, loss / 100, 1e-6);
}

TEST(Classify, RefusesOtherImages) {
  ImageSet images = read_mnist(kFixture, MnistPart::test);
  const Classifier classifier = Classifier::open(kGoldens / "ffn", {});
  ThreadPool threads(1);
  Arena arena;
  images.cols = 14;
  images.count *= 2;
  EXPECT_THROW(classify({threads, arena}, classifier, images), Error);
}

}  // namespace
}  // namespace kedge
