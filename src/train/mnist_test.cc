// The MNIST networks with gradients: they compute what the engine computes; every expert gets a gradient and changes
// the result; capacity, noise and the balance loss are what their formulas say.
#include <unistd.h>

#include <cmath>
#include <functional>
#include <set>

#include <ATen/Parallel.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <gtest/gtest.h>

#include "io/idx.h"
#include "kedge/error.h"
#include "kedge/train.h"
#include "model/classify.h"
#include "train/mnist_network.h"
#include "twin/testing.h"

namespace kedge::training {
namespace {

namespace fs = std::filesystem;
using twin::testing::to_floats;

const fs::path kFixture = fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/mnist";

/// A folder of its own that goes with the object.
struct Scratch {
  Scratch() : path(fs::path(::testing::TempDir()) / ("kedge-mnist-" + std::to_string(::getpid()))) {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Scratch() { fs::remove_all(path); }
  fs::path path;
};

struct Batch {
  explicit Batch(std::int64_t count) {
    at::set_num_threads(1);
    const ImageSet set = read_mnist(kFixture, MnistPart::train);
    x = at::empty({count, 784}, at::kFloat);
    normalize_images({}, set.image(0), count, x.mutable_data_ptr<float>());
    labels = at::empty({count}, at::kLong);
    for (std::int64_t i = 0; i < count; ++i) labels.mutable_data_ptr<std::int64_t>()[i] = set.label(i);
  }
  at::Tensor x, labels;
};

ClassifierSpec moe(std::int64_t top_k) { return mnist_spec(ClassifierNetwork::moe, top_k); }
ClassifierSpec by_error(std::int64_t top_k) { return mnist_spec(ClassifierNetwork::mcqsmoe, top_k); }

at::Tensor find(const std::vector<std::pair<std::string, at::Tensor>>& list, const std::string& name) {
  for (const auto& [own, value] : list) {
    if (own == name) return value;
  }
  ADD_FAILURE() << "no " << name;
  return {};
}

double length_of(const at::Tensor& x) { return at::linalg_vector_norm(x).item<double>(); }

/// Images whose logits differ by more than the order of sums explains.
std::set<std::int64_t> changed(const at::Tensor& a, const at::Tensor& b) {
  std::set<std::int64_t> out;
  const at::Tensor differ = ((a - b).abs() > 1e-4).any(1);
  for (std::int64_t i = 0; i < differ.size(0); ++i) {
    if (differ[i].item<bool>()) out.insert(i);
  }
  return out;
}

TEST(MnistNetwork, ComputesWhatTheEngineComputes) {
  const Batch batch(64);
  const Scratch scratch;
  for (const ClassifierSpec& spec :
       {mnist_spec(ClassifierNetwork::ffn, 1), moe(1), moe(2), moe(4), by_error(1), by_error(2)}) {
    const MnistNetwork network(spec, 7);
    Rng rng(1);
    const std::vector<float> expected = to_floats(network.forward(batch.x, {}, rng).logits);
    write_mnist_model(network, scratch.path);
    const Classifier classifier = Classifier::open(scratch.path, {.isa = detect_isa()});
    ThreadPool threads(1);
    Arena arena;
    std::vector<float> logits(640);
    classifier.forward({threads, arena}, batch.x.const_data_ptr<float>(), 64, logits.data());
    ASSERT_EQ(expected.size(), logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], expected[i], 2e-5);
  }
}

class MnistExperts : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(MnistExperts, AllGetGradientsAndChangeTheResult) {
  const Batch batch(320);
  MnistNetwork network(moe(GetParam()), 3);
  Rng rng(1);
  const MnistOutput out = network.forward(batch.x, {}, rng);
  at::cross_entropy_loss(out.logits, batch.labels).backward();
  for (std::int64_t e = 0; e < 4; ++e) {
    ASSERT_GT(out.load[static_cast<std::size_t>(e)], 0) << "choose another seed";
    const std::string prefix = "moe.experts." + std::to_string(e) + ".";
    for (const char* name : {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}) {
      EXPECT_GT(length_of(find(network.gradients(), prefix + name)), 0) << prefix << name;
    }
    const at::NoGradGuard no_gradients;
    const at::Tensor bias = find(network.parameters(), prefix + "fc2.bias"), before = bias.clone();
    bias.add_(0.5);
    const std::set<std::int64_t> images = changed(network.forward(batch.x, {}, rng).logits, out.logits);
    EXPECT_EQ(static_cast<std::int64_t>(images.size()), out.load[static_cast<std::size_t>(e)]);
    bias.copy_(before);
  }
  // With one expert per image too: the gate is a probability among all four.
  EXPECT_GT(length_of(find(network.gradients(), "moe.gate.weight")), 1e-4);
  EXPECT_GT(length_of(find(network.gradients(), "moe.gate.bias")), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(TopK, MnistExperts, ::testing::Values(1, 2, 4));

TEST(MnistNetwork, ByErrorEveryExpertAndEveryEncoderGetsAGradient) {
  const Batch batch(320);
  MnistNetwork network(by_error(2), 3);
  Rng rng(1);
  const MnistOutput out = network.forward(batch.x, {}, rng);
  at::cross_entropy_loss(out.logits, batch.labels).backward();
  const auto encoders = [&] { return find(network.gradients(), "moe.gate.weight").view({4, 32, 256}); };
  for (std::int64_t e = 0; e < 4; ++e) {
    ASSERT_GT(out.load[static_cast<std::size_t>(e)], 0) << "choose another seed";
    EXPECT_GT(length_of(find(network.gradients(), "moe.experts." + std::to_string(e) + ".fc1.weight")), 0);
    EXPECT_GT(length_of(encoders()[e]), 1e-6);
  }
  // The reconstruction is the chosen experts' mean error, by the definition: h of the engine's probe is not needed.
  const at::NoGradGuard no_gradients;
  const at::Tensor h =
      at::relu(at::linear(batch.x, find(network.parameters(), "fc1.weight"), find(network.parameters(), "fc1.bias")));
  const at::Tensor u = find(network.parameters(), "moe.gate.weight").view({4, 32, 256});
  const at::Tensor codes = at::einsum("erh,bh->ber", {u, h});
  const at::Tensor difference = h.unsqueeze(1) - at::einsum("erh,ber->beh", {u, codes});
  const at::Tensor errors = difference.square().sum(-1) / h.square().sum(-1, true);
  const double expected = std::get<0>(errors.sort(-1)).narrow(-1, 0, 2).mean().item<double>();
  EXPECT_NEAR(out.reconstruction.item<double>(), expected, 1e-5 * expected);
}

TEST(MnistNetwork, GradientsEqualFiniteDifferences) {
  const Batch batch(64);
  MnistNetwork network(moe(1), 5);
  Rng rng(1);
  const auto loss_of = [&] {
    const MnistOutput out = network.forward(batch.x, {}, rng);
    return at::cross_entropy_loss(out.logits.to(at::kDouble), batch.labels) + out.balance.to(at::kDouble) * 0.5;
  };
  loss_of().backward();
  // Biases of the gate move no choice by so little; weights of fc1 would.
  for (const char* name : {"moe.gate.bias", "moe.experts.1.fc2.bias", "fc2.bias"}) {
    const at::Tensor value = find(network.parameters(), name), gradient = find(network.gradients(), name);
    const at::NoGradGuard no_gradients;
    for (const std::int64_t i : {0, 2, 3}) {
      constexpr double kStep = 2e-3;
      at::Tensor element = value[i];
      element.add_(kStep);
      const double above = loss_of().item<double>();
      element.sub_(2 * kStep);
      const double below = loss_of().item<double>();
      element.add_(kStep);
      EXPECT_NEAR((above - below) / (2 * kStep), gradient[i].item<double>(), 2e-3) << name << " " << i;
    }
  }
}

TEST(MnistNetwork, ImagesOverCapacityPassTheExpertsBy) {
  const Batch batch(64);
  MnistNetwork network(moe(1), 3);
  Rng rng(1);
  const MnistOutput free = network.forward(batch.x, {}, rng);
  EXPECT_EQ(free.over_capacity, 0);
  const MnistNetworkSettings limited{.capacity_factor = 0.5};
  const std::int64_t capacity = expert_capacity(0.5, 64, 1, 4);
  EXPECT_EQ(capacity, 8);
  const MnistOutput out = network.forward(batch.x, limited, rng);
  std::int64_t over = 0;
  for (const std::int64_t load : free.load) over += std::max<std::int64_t>(0, load - capacity);
  EXPECT_EQ(out.load, free.load);
  EXPECT_EQ(out.over_capacity, over);
  ASSERT_GT(over, 0);
  // The others are computed as before, and those alone see the experts.
  EXPECT_EQ(static_cast<std::int64_t>(changed(out.logits, free.logits).size()), over);
  const at::NoGradGuard no_gradients;
  for (const auto& [name, value] : network.parameters()) {
    if (name.starts_with("moe.experts.") && name.ends_with("fc2.bias")) value.add_(1.0);
  }
  const auto seeing = changed(network.forward(batch.x, limited, rng).logits, out.logits);
  EXPECT_EQ(static_cast<std::int64_t>(seeing.size()), 64 - over);
}

TEST(MnistNetwork, CapacityIsTheReports) {
  EXPECT_EQ(expert_capacity(1.25, 64, 1, 4), 20);
  EXPECT_EQ(expert_capacity(1.25, 64, 2, 4), 40);
  EXPECT_EQ(expert_capacity(1.25, 64, 4, 4), 64);
  EXPECT_EQ(expert_capacity(1.25, 1, 1, 4), 1);
  EXPECT_EQ(expert_capacity(0, 64, 1, 4), 64);
}

TEST(MnistNetwork, BalanceLossMovesTheRouterTowardsEvenUse) {
  const Batch batch(320);
  MnistNetwork network(moe(1), 3);
  Rng rng(1);
  {
    const at::NoGradGuard no_gradients;
    find(network.parameters(), "moe.gate.bias")[2].add_(20.0);  // expert 2 gets everything
  }
  const MnistOutput collapsed = network.forward(batch.x, {}, rng);
  EXPECT_EQ(collapsed.load, (std::vector<std::int64_t>{0, 0, 320, 0}));
  EXPECT_NEAR(collapsed.balance.item<double>(), 4.0, 1e-3);
  {
    const at::NoGradGuard no_gradients;
    find(network.parameters(), "moe.gate.bias")[2].sub_(18.0);
  }
  network.flat_gradients().zero_();
  const MnistOutput uneven = network.forward(batch.x, {}, rng);
  uneven.balance.backward();
  const at::Tensor gradient = find(network.gradients(), "moe.gate.bias");
  EXPECT_GT(gradient[2].item<double>(), 0);  // descent lowers the bias of the busy expert
  for (const std::int64_t e : {0, 1, 3}) EXPECT_LT(gradient[e].item<double>(), 0);
}

TEST(MnistNetwork, NoiseIsNormalAndDropoutKeepsTheMean) {
  const Batch batch(320);
  const MnistNetwork network(moe(1), 3);
  Rng rng(9), same(9), other(10);
  const MnistNetworkSettings noisy{.noisy_gating = true};
  const MnistOutput out = network.forward(batch.x, noisy, rng);
  EXPECT_TRUE(changed(network.forward(batch.x, noisy, same).logits, out.logits).empty());
  EXPECT_FALSE(changed(network.forward(batch.x, noisy, other).logits, out.logits).empty());
  const MnistNetwork dense(mnist_spec(ClassifierNetwork::ffn, 1), 3);
  const at::Tensor plain = dense.forward(batch.x, {}, rng).logits;
  at::Tensor mean = at::zeros_like(plain);
  constexpr int kRuns = 200;
  for (int i = 0; i < kRuns; ++i) mean = mean + dense.forward(batch.x, {.dropout = 0.1}, rng).logits / kRuns;
  // fc2's ReLU bends the mean a little.
  EXPECT_LT(length_of(mean - plain) / length_of(plain), 0.1);
}

TEST(TrainMnist, RefusesWhatCannotBe) {
  const Scratch scratch;
  const auto code_of = [&](const std::function<void(TrainOptions&)>& change) {
    TrainOptions options;
    options.kind = "mnist";
    options.mnist.data = kFixture;
    options.out = scratch.path / "out";
    options.batch_size = 64;
    options.mnist.epochs = 1;
    change(options);
    try {
      train(options);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::mismatch;
  };
  EXPECT_EQ(code_of([](TrainOptions& o) { o.mnist.network = "cnn"; }), ErrorCode::usage);
  EXPECT_EQ(code_of([](TrainOptions& o) { o.mnist.top_k = 5; }), ErrorCode::usage);
  EXPECT_EQ(code_of([](TrainOptions& o) { o.mnist.dropout = std::nan(""); }), ErrorCode::usage);
  EXPECT_EQ(code_of([](TrainOptions& o) { o.batch_size = 321; }), ErrorCode::usage);
  EXPECT_EQ(code_of([](TrainOptions& o) { o.mnist.data.clear(); }), ErrorCode::usage);
  EXPECT_EQ(code_of([](TrainOptions& o) { o.mnist.data = "/nowhere"; }), ErrorCode::not_found);
  // A loss that is not finite ends the run and leaves no model.
  EXPECT_EQ(code_of([](TrainOptions& o) { o.lr = 1e12; }), ErrorCode::unsupported);
  EXPECT_FALSE(fs::exists(scratch.path / "out" / "model.safetensors"));
}

}  // namespace
}  // namespace kedge::training
