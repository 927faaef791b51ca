// The operators against the kernels, and the kernels' step against libtorch's own gradients.
#include "ptq/methods_twin/fake_quant_ops.h"

#include <ATen/ops/where.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "kernels/fake_quant/fake_quant.h"
#include "twin/testing.h"

namespace kedge {
namespace {

using twin::testing::to_floats;

constexpr std::int64_t kGroups = 12, kGroup = 32;

at::Tensor uniform(at::IntArrayRef shape, double low, double high, std::uint64_t seed) {
  Rng rng(seed);
  at::Tensor out = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  for (std::int64_t i = 0; i < out.numel(); ++i) {
    out.mutable_data_ptr<float>()[i] = static_cast<float>(low + (high - low) * rng.uniform());
  }
  return out;
}

FakeQuantTensors make(const QuantArgs& args, DType scale_dtype, bool rounding) {
  FakeQuantTensors m;
  m.args = args;
  m.scale_dtype = scale_dtype;
  m.weights = uniform({kGroups, kGroup}, -0.3, 0.2, 1);
  m.weights.narrow(0, 0, kGroups / 2).neg_();  // either extreme is the larger one somewhere
  m.min = m.weights.amin(1).clamp_max(0);
  m.max = m.weights.amax(1).clamp_min(0);
  m.alpha = uniform({kGroups}, 0.6, 0.95, 2);
  m.beta = uniform({kGroups}, 0.6, 0.95, 3);
  if (rounding) m.rounding = uniform({kGroups, kGroup}, -0.45, 0.45, 4);
  if (!rounding) m.factor = uniform({kGroups}, 0.8, 1.2, 5);
  return m;
}

FakeQuantTensors copy(const FakeQuantTensors& m) {
  FakeQuantTensors out = m;
  for (at::Tensor* t : {&out.rounding, &out.alpha, &out.beta, &out.factor}) {
    if (t->defined()) *t = t->clone();
  }
  return out;
}

FakeQuantMatrix view(const FakeQuantTensors& m) {
  const auto data = [](const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr<float>() : nullptr; };
  return {m.args,      m.scale_dtype,    kGroups,       kGroup,       data(m.weights), data(m.min),
          data(m.max), data(m.rounding), data(m.alpha), data(m.beta), data(m.factor)};
}

at::Tensor straight_through(const at::Tensor& x, const at::Tensor& rounded) { return (rounded - x).detach() + x; }

/// auto-round's graph: every operator differentiable, roundings passed straight through.
at::Tensor graph(const FakeQuantTensors& m, const at::Tensor& v, const at::Tensor& alpha, const at::Tensor& beta,
                 const at::Tensor& factor) {
  const at::Tensor low = (alpha * m.min).unsqueeze(1), high = (beta * m.max).unsqueeze(1);
  at::Tensor exact;
  if (m.args.symmetric) {
    const at::Tensor size = high.maximum(-low);
    exact = at::where(high < -low, size, -size) / m.args.mid_code();
  } else {
    exact = (high - low) / m.args.max_code();
  }
  if (factor.defined()) exact = exact * factor.unsqueeze(1);
  const auto type = m.scale_dtype == DType::f16 ? at::kHalf : m.scale_dtype == DType::bf16 ? at::kBFloat16 : at::kFloat;
  const at::Tensor scale = straight_through(exact, exact.to(type).to(at::kFloat));
  const at::Tensor x = v.defined() ? m.weights / scale + v : m.weights / scale;
  const at::Tensor codes = straight_through(x, x.round());
  if (m.args.symmetric) return scale * codes.clamp(-m.args.mid_code(), m.args.mid_code() - 1);
  const at::Tensor z = -low / scale, zero = straight_through(z, z.round());
  return scale * ((codes + zero).clamp(0, m.args.max_code()) - zero);
}

struct Case {
  int bits;
  bool symmetric;
  DType scale_dtype;
  bool rounding;
};

class FakeQuantOps : public ::testing::TestWithParam<Case> {
 protected:
  FakeQuantTensors subject() const {
    const Case& c = GetParam();
    return make({c.bits, c.symmetric, QuantStrategy::group, kGroup}, c.scale_dtype, c.rounding);
  }
};

TEST_P(FakeQuantOps, AreTheKernels) {
  FakeQuantTensors ops = subject(), kernels = copy(ops);
  const at::Tensor gradient = uniform({kGroups, kGroup}, -1, 1, 6);
  ThreadPool threads(1);
  for (int i = 0; i < 5; ++i) {
    const FakeQuantMatrix matrix = view(kernels);
    at::Tensor out = at::empty({kGroups, kGroup}, gradient.options());
    float* to[] = {out.mutable_data_ptr<float>()};
    fake_quantize(threads, detect_isa(), {&matrix, 1}, to);
    EXPECT_EQ(to_floats(fake_quantize(ops)), to_floats(out));
    const float* from[] = {gradient.const_data_ptr<float>()};
    step_fake_quantization(threads, detect_isa(), {&matrix, 1}, from, 0.03f);
    step_fake_quantization(ops, gradient, 0.03f);
    EXPECT_LE((ops.alpha - kernels.alpha).abs().max().item<float>(), 1e-6f);
    EXPECT_LE((ops.beta - kernels.beta).abs().max().item<float>(), 1e-6f);
    if (ops.rounding.defined()) {
      EXPECT_LE((ops.rounding - kernels.rounding).abs().max().item<float>(), 1e-6f);
    }
    if (ops.factor.defined()) {
      EXPECT_LE((ops.factor - kernels.factor).abs().max().item<float>(), 1e-6f);
    }
    ops = copy(kernels);  // a difference in the last bit of a parameter is none of the next step
  }
}

TEST_P(FakeQuantOps, StepAgainstTheGradientsOfTheGraph) {
  FakeQuantTensors m = subject();
  const auto leaf = [](const at::Tensor& t) { return t.defined() ? t.clone().set_requires_grad(true) : t; };
  const at::Tensor v = leaf(m.rounding), alpha = leaf(m.alpha), beta = leaf(m.beta), factor = leaf(m.factor);
  const at::Tensor values = graph(m, v, alpha, beta, factor), gradient = uniform({kGroups, kGroup}, -1, 1, 7);
  EXPECT_LE((values.detach() - fake_quantize(m)).abs().max().item<float>(), 1e-6f);
  (values * gradient).sum().backward();
  constexpr double kStep = 0.01;
  const FakeQuantTensors before = copy(m);
  step_fake_quantization(m, gradient, kStep);
  const auto expect_step = [&](const at::Tensor& from, const at::Tensor& to, const at::Tensor& leaf) {
    if (!from.defined()) return;
    const at::Tensor by = leaf.grad();
    EXPECT_GT(by.abs().max().item<float>(), 0);
    EXPECT_LE((to - (from - by.sign() * kStep)).abs().max().item<float>(), 1e-6f);
  };
  expect_step(before.rounding, m.rounding, v);
  expect_step(before.alpha, m.alpha, alpha);
  expect_step(before.beta, m.beta, beta);
  expect_step(before.factor, m.factor, factor);
}

INSTANTIATE_TEST_SUITE_P(Cases, FakeQuantOps,
                         ::testing::Values(Case{4, true, DType::f32, true}, Case{4, false, DType::f32, true},
                                           Case{3, true, DType::f16, true}, Case{2, false, DType::bf16, true},
                                           Case{2, true, DType::bf16, false}, Case{3, false, DType::f16, false}));

}  // namespace
}  // namespace kedge
