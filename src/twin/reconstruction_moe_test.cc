// The differentiable layer: outputs against PyTorch in fp64 (tests/goldens/mcqsmoe) and thereby against the engine,
// gradients against finite differences, rounding against the file format's.
#include "twin/reconstruction_moe.h"

#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "kedge/error.h"
#include "moe/testing.h"
#include "twin/anchored.h"
#include "twin/model.h"
#include "twin/testing.h"

namespace kedge::twin {
namespace {

using namespace testing;
using namespace testing_moe;

Tensor doubles(const std::vector<float>& values, at::IntArrayRef shape) {
  return from_floats(values, shape).to(at::kDouble);
}

double largest_difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

/// A golden's layer as free parameters: anchors and deltas where it has them, else matrices; the tokens; T.
struct Subject {
  explicit Subject(const std::string& name) : golden(name) {
    const ErrorRouterSpec& router = golden.spec.router;
    const std::int64_t d = router.hidden_size, f = golden.spec.intermediate_size, r = router.bottleneck;
    add("encoder", r, d);
    add("decoder", d, r);
    add("gate", f, d);
    add("up", f, d);
    add("down", d, f);
    parameters["x"] = doubles(golden.values<float>("x", DType::f32), {golden.tokens, d});
    parameters["temperature"] = at::full({}, router.temperature, at::TensorOptions().dtype(at::kDouble));
  }

  void add(const std::string& name, std::int64_t n, std::int64_t k) {
    const std::int64_t experts = golden.spec.router.num_experts;
    if (const auto it = golden.plain.find(name); it != golden.plain.end()) {
      parameters[name] = doubles(it->second, {experts, n, k});
      return;
    }
    const auto it = golden.stacks.find(name);
    if (it == golden.stacks.end()) return;
    const AnchorDelta& w = it->second;
    std::vector<float> values(static_cast<std::size_t>(n * k));
    decode_anchor(w, values);
    parameters[name + ".anchor"] = doubles(values, {n, k});
    std::vector<Tensor> deltas;
    for (const QuantTensor& delta : w.deltas) {
      dequantize(delta, values);
      deltas.push_back(doubles(values, {n, k}));
    }
    parameters[name + ".deltas"] = at::stack(deltas);
    if (!w.target_norm.empty()) norms[name] = doubles(w.target_norm, {experts, n});
  }

  Tensor matrix(const std::string& name) const {
    if (const auto it = parameters.find(name); it != parameters.end()) return it->second;
    const auto it = golden.stacks.find(name);
    if (it == golden.stacks.end()) return {};
    const auto norm = norms.find(name);
    return anchored_weights(it->second.args, parameters.at(name + ".anchor"), parameters.at(name + ".deltas"),
                            norm == norms.end() ? Tensor() : norm->second, /*quantized=*/false);
  }

  ErrorRouted forward() const {
    return reconstruction_moe(golden.spec,
                              {matrix("encoder"), matrix("decoder"), matrix("gate"), matrix("up"), matrix("down"),
                               parameters.at("temperature")},
                              parameters.at("x"));
  }

  McqsMoeGolden golden;
  std::map<std::string, Tensor> parameters, norms;
};

TEST(ReconstructionMoeTwin, ComputesWhatPyTorchDoes) {
  for (const std::string& name : case_names()) {
    SCOPED_TRACE(name);
    const Subject subject(name);
    const McqsMoeGolden& golden = subject.golden;
    const at::NoGradGuard no_gradients;
    const ErrorRouted out = subject.forward();
    EXPECT_EQ(to_integers(out.expert_ids), golden.values<std::int32_t>("ids", DType::i32));
    const auto difference = [&](const char* tensor, const Tensor& ours) {
      const Tensor theirs = doubles(golden.values<float>(tensor, DType::f32), ours.sizes());
      return ((ours - theirs).abs() / theirs.abs().clamp_min(1)).max().item<double>();
    };
    EXPECT_LE(difference("errors", out.errors), 1e-6);
    EXPECT_LE(difference("weights", out.weights), 2e-6);
    EXPECT_LE(difference("y", out.y), 2e-6);
    EXPECT_LE(largest_difference(out.probabilities.sum(-1), at::ones_like(out.probabilities.sum(-1))), 1e-12);
  }
}

TEST(ReconstructionMoeTwin, DecodesAsTheFileFormatDoes) {
  for (const std::string& name : case_names()) {
    const Subject subject(name);
    for (const auto& [stack, w] : subject.golden.stacks) {
      const Tensor ours = subject.matrix(stack);
      std::vector<float> values(static_cast<std::size_t>(w.rows * w.cols));
      for (std::int64_t e = 0; e < w.experts(); ++e) {
        decode(w, e, values);
        EXPECT_LE(largest_difference(ours.select(0, e), doubles(values, {w.rows, w.cols})), 1e-6)
            << name << " " << stack;
      }
    }
  }
}

/// Every path that training uses carries a gradient: outputs, errors, probabilities.
Tensor loss_of(const ErrorRouted& out, const Tensor& direction) {
  const Tensor p = out.probabilities;
  return (out.y * direction).sum() + out.errors.gather(-1, out.expert_ids).sum() * 0.05 +
         (p.narrow(1, 0, 2) * p.narrow(1, 1, 2)).sum();
}

TEST(ReconstructionMoeTwin, GradientsAreFiniteDifferences) {
  constexpr double kStep = 1e-6;
  for (const std::string& name : case_names()) {
    if (name == "toy_lm") continue;  // squared_tied_linear and ffn_gelu_norms, larger
    SCOPED_TRACE(name);
    Subject subject(name);
    Rng rng(7);
    Tensor direction = at::empty_like(subject.parameters.at("x"));
    for (std::int64_t i = 0; i < direction.numel(); ++i) direction.mutable_data_ptr<double>()[i] = rng.normal();
    for (auto& [key, parameter] : subject.parameters) parameter.set_requires_grad(true);
    loss_of(subject.forward(), direction).backward();

    int checked = 0;
    double worst = 0;
    for (auto& [key, parameter] : subject.parameters) {
      SCOPED_TRACE(key);
      ASSERT_TRUE(parameter.grad().defined());
      const Tensor gradient = parameter.grad().contiguous();
      const std::int64_t largest = gradient.abs().argmax().item<std::int64_t>();
      const double scale = std::max(1e-3, std::fabs(gradient.const_data_ptr<double>()[largest]));
      EXPECT_GT(scale, 1e-3);
      for (const std::int64_t i : {largest, parameter.numel() / 3, parameter.numel() - 1}) {
        const at::NoGradGuard no_gradients;
        double* value = parameter.mutable_data_ptr<double>() + i;
        const double before = *value;
        *value = before + kStep;
        const double above = loss_of(subject.forward(), direction).item<double>();
        *value = before - kStep;
        const double below = loss_of(subject.forward(), direction).item<double>();
        *value = before;
        const double expected = (above - below) / (2 * kStep), ours = gradient.const_data_ptr<double>()[i];
        EXPECT_LE(std::fabs(ours - expected), 1e-6 * scale) << i << ": " << ours << " for " << expected;
        worst = std::max(worst, std::fabs(ours - expected) / scale);
        ++checked;
      }
    }
    EXPECT_GE(checked, 9);
    std::printf("%s: %d derivatives within %.1e\n", name.c_str(), checked, worst);
  }
}

TEST(Anchored, RoundsAsTheFileFormatDoesAndPassesTheGradient) {
  Rng rng(3);
  std::vector<float> values(6 * 128);
  for (float& value : values) value = static_cast<float>(rng.normal() * 0.05);
  std::fill(values.begin(), values.begin() + 32, 0.0f);
  for (const int bits : {2, 4, 8}) {
    for (const std::int64_t group : {32, 64}) {
      const QuantTensor q = quantize_rtn(values, 6, 128, {bits, true, QuantStrategy::group, group}, DType::f16);
      std::vector<float> expected(values.size());
      dequantize(q, expected);
      const Tensor w = from_floats(values, {6, 128}).set_requires_grad(true);
      const Tensor rounded = fake_quantize(w, bits, group);
      // w + (rounded - w): within a rounding of the value that is stored.
      EXPECT_LE(largest_difference(rounded, from_floats(expected, {6, 128})), 1e-7) << bits << " " << group;
      (rounded * 3).sum().backward();
      EXPECT_LE(largest_difference(w.grad(), at::full_like(w, 3)), 0);
    }
  }
}

TEST(Anchored, QuantizedWeightsAreWhatTheEngineEncodes) {
  Rng rng(4);
  const std::int64_t experts = 3, rows = 8, cols = 64;
  std::vector<float> values(static_cast<std::size_t>(experts * rows * cols));
  for (float& value : values) value = static_cast<float>(rng.normal());
  for (const DType anchor_dtype : {DType::f16, DType::bf16, DType::i8}) {
    for (const Manifold manifold : {Manifold::none, Manifold::sphere, Manifold::stiefel_polar, Manifold::stiefel_qr}) {
      const AnchorDeltaArgs args{anchor_dtype, 4, 32, manifold};
      const AnchorDelta w = encode_anchor_delta(values, experts, rows, cols, args, {}, "w");
      const Tensor placed = retract(manifold, doubles(values, {experts, rows, cols})).to(at::kFloat);
      const Tensor anchor = placed.to(at::kDouble).mean(0).to(at::kFloat);
      std::vector<float> stored(static_cast<std::size_t>(rows * cols));
      decode_anchor(w, stored);
      const Tensor ours = anchored_weights(args, anchor, placed - from_floats(stored, {rows, cols}), {}, true);
      int apart = 0;
      for (std::int64_t e = 0; e < experts; ++e) {
        std::vector<float> one(stored.size());
        decode(w, e, one);
        apart += ((ours.select(0, e) - from_floats(one, {rows, cols})).abs() > 1e-5).sum().item<int>();
      }
      EXPECT_EQ(apart, 0) << manifold_name(manifold);
    }
  }
}

TEST(Anchored, DependentRowsAreRefused) {
  const Tensor w = at::ones({2, 8}, at::TensorOptions().dtype(at::kDouble));
  EXPECT_THROW(retract(Manifold::stiefel_polar, w), Error);
}

/// tools/mcqsmoe_reference.py; the engine's side is in model/mcqsmoe_test.cc.
TEST(ReconstructionMoe, AWholeModelIsPyTorchsInDoublePrecision) {
  const std::filesystem::path folder = std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/goldens/mcqsmoe/lm";
  const SafetensorsFile expected(folder / "golden.safetensors");
  const auto read = [&](const std::string& name) {
    const TensorView view = expected.tensor(name);
    std::vector<float> values(static_cast<std::size_t>(view.size()));
    convert_to_float(view.dtype, view.data, view.size(), values.data());
    return from_floats(values, view.shape);
  };
  const TensorView view = expected.tensor("input_ids");
  std::vector<std::int32_t> ids(static_cast<std::size_t>(view.size()));
  std::memcpy(ids.data(), view.data, view.num_bytes());
  const at::NoGradGuard no_gradients;
  for (const std::string& device : devices()) {
    SCOPED_TRACE(device);
    Model model = Model::load(Checkpoint::open(folder), options_on(device));
    const Output output = model.forward(from_ids(ids, view.shape));
    EXPECT_LE(largest_difference(output.logits.to(at::kCPU), read("logits")), 1e-4);
    ASSERT_EQ(output.routing.size(), 2u);
    for (const Routing& routing : output.routing) {
      const at::Tensor logits = read("router_logits." + std::to_string(routing.layer));  // -error / temperature
      EXPECT_LE(largest_difference(routing.errors.to(at::kCPU), -0.1 * logits), 1e-5);
    }
  }
}

}  // namespace
}  // namespace kedge::twin
