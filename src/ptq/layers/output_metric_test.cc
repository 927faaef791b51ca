// The metric against finite differences: what a small error at a site does to the prediction and to the routers' logits.
#include "ptq/layers/output_metric.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "base/arena.h"
#include "base/rng.h"
#include "base/thread_pool.h"
#include "io/checkpoint.h"
#include "model/checkpoint_source.h"
#include "model/decoder.h"

namespace kedge {
namespace {

constexpr std::int64_t kSequences = 32, kSeqlen = 128;
using Row = std::vector<double>;

class Subject {
 public:
  explicit Subject(const char* family)
      : checkpoint_(Checkpoint::open(std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/goldens/hf" / family)),
        spec(model_spec(checkpoint_)),
        source(checkpoint_, spec) {}

  OutputMetric measure(double ratio, int threads = 2) {
    ThreadPool pool(threads);
    states = std::make_unique<HiddenStates>(kSequences, kSeqlen, spec.hidden_size);
    Rng rng(3);
    for (std::int64_t i = 0; i < states->rows() * spec.hidden_size; ++i) states->row(0)[i] = static_cast<float>(rng.normal());
    return OutputMetric({spec, source, {detect_isa(), Numerics::consistent, Activations::fp32}, pool, ratio, 5, {}}, *states);
  }

  Row matrix(const std::string& module, std::int64_t rows, std::int64_t cols) const {
    const Tensor t = to_float_matrix(source.weight(module, rows, cols), module);
    return {t.data<float>(), t.data<float>() + rows * cols};
  }
  /// norm(h + step * e) times a matrix [n, H].
  Row read(const Row& w, const std::vector<float>& gamma, const float* h, const Row& e, double step) const {
    const auto size = static_cast<std::size_t>(spec.hidden_size);
    Row x(size);
    double squares = 0;
    for (std::size_t i = 0; i < size; ++i) {
      x[i] = h[i] + step * e[i];
      squares += x[i] * x[i];
    }
    const double scale = 1 / std::sqrt(squares / double(size) + spec.rms_norm_eps);
    Row out(w.size() / size);
    for (std::size_t n = 0; n < out.size(); ++n) {
      for (std::size_t i = 0; i < size; ++i) out[n] += w[n * size + i] * gamma[i] * x[i] * scale;
    }
    return out;
  }

 private:
  Checkpoint checkpoint_;

 public:
  ModelSpec spec;
  CheckpointSource source;
  std::unique_ptr<HiddenStates> states;  ///< after measure(): the last layer's output
};

Row direction(std::int64_t size, std::uint64_t seed) {
  Rng rng(seed);
  Row out;
  for (std::int64_t i = 0; i < size; ++i) out.push_back(rng.normal());
  return out;
}

double quadratic(const std::vector<float>& upper, const Row& e) {
  double sum = 0;
  for (std::size_t i = 0; i < e.size(); ++i) {
    for (std::size_t j = i; j < e.size(); ++j) sum += (i == j ? 1 : 2) * double(upper[i * e.size() + j]) * e[i] * e[j];
  }
  return sum;
}

Row softmax(Row z) {
  const double most = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (double& v : z) sum += v = std::exp(v - most);
  for (double& v : z) v /= sum;
  return z;
}

TEST(OutputMetric, PredictionPartIsTwiceTheDivergenceOfASmallError) {
  for (const char* family : {"olmoe", "qwen3_moe"}) {
    Subject s(family);
    const OutputMetric metric = s.measure(0);
    const std::string head = s.spec.tie_word_embeddings ? "model.embed_tokens" : "lm_head";
    const Row u = s.matrix(head, s.spec.vocab_size, s.spec.hidden_size);
    const std::vector<float> gamma = s.source.vector("model.norm.weight", s.spec.hidden_size);
    const double step = 1e-3;
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      const Row e = direction(s.spec.hidden_size, seed);
      double divergence = 0;
      for (std::int64_t t = 0; t < s.states->rows(); t += 4) {
        const Row p = softmax(s.read(u, gamma, s.states->row(t), e, 0));
        const Row q = softmax(s.read(u, gamma, s.states->row(t), e, step));
        for (std::size_t v = 0; v < p.size(); ++v) divergence += p[v] * std::log(p[v] / q[v]) * 4 / double(s.states->rows());
      }
      const double expected = 2 * divergence / (step * step);
      EXPECT_NEAR(quadratic(metric.metric(0, false), e), expected, 0.15 * expected) << family;
    }
  }
}

// The last MoE layer's own site differs from the one after it by that router's part alone; its parts stand in the ratio of what
// the router's logits make of two errors.
TEST(OutputMetric, RouterPartGrowsAsTheWeightedErrorOfTheLogits) {
  Subject s("qwen3_moe");
  const int last = s.spec.num_hidden_layers - 1;
  const OutputMetric metric = s.measure(1);
  std::vector<float> part = metric.metric(last, false);
  const std::vector<float> after = metric.metric(last, true);
  for (std::size_t i = 0; i < part.size(); ++i) part[i] -= after[i];

  // The router's input: everything but the last MoE block.
  ThreadPool pool(2);
  Arena arena;
  const LoadOptions options{detect_isa(), Numerics::consistent, Activations::fp32};
  Rng rng(3);
  std::vector<float> h(static_cast<std::size_t>(s.states->rows() * s.spec.hidden_size));
  for (float& v : h) v = static_cast<float>(rng.normal());
  std::vector<SequenceState> states;
  std::vector<Segment> segments;
  const std::vector<std::int32_t> tokens(kSeqlen);
  for (std::int64_t i = 0; i < kSequences; ++i) states.emplace_back(s.spec, kSeqlen);
  for (SequenceState& state : states) segments.push_back({&state, tokens});
  const auto blocks = static_cast<int>(s.spec.blocks.size());
  for (int b = 0; b + 1 < blocks; ++b) {
    Block::build(s.source, s.spec, b, options, &pool)->forward({pool, arena}, h.data(), segments);
  }
  const BlockSpec& block = s.spec.blocks.back();
  const RouterSpec& router = std::get<Moe>(block.mixer).router;
  const std::string layer = "model.layers." + std::to_string(last);
  const Row w = s.matrix(layer + ".mlp.gate", router.num_experts, s.spec.hidden_size);
  const std::vector<float> gamma = s.source.vector(layer + "." + block.pre_norm + ".weight", s.spec.hidden_size);
  const auto k = static_cast<std::size_t>(router.num_experts_per_tok);

  double margins = 0;
  std::vector<Row> logits;
  for (std::int64_t t = 0; t < s.states->rows(); ++t) {
    logits.push_back(s.read(w, gamma, h.data() + t * s.spec.hidden_size, direction(s.spec.hidden_size, 1), 0));
    Row sorted = logits.back();
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    margins += (sorted[k - 1] - sorted[k]) / double(s.states->rows());
  }
  const auto weighted_error = [&](const Row& e) {
    double sum = 0;
    for (std::int64_t t = 0; t < s.states->rows(); ++t) {
      const Row& z = logits[static_cast<std::size_t>(t)];
      Row moved = s.read(w, gamma, h.data() + t * s.spec.hidden_size, e, 1e-3), sorted = z;
      std::sort(sorted.begin(), sorted.end(), std::greater<>());
      const double middle = (sorted[k - 1] + sorted[k]) / 2;
      double mean = 0;
      for (std::size_t i = 0; i < z.size(); ++i) mean += (moved[i] - z[i]) / double(z.size());
      for (std::size_t i = 0; i < z.size(); ++i) {
        const double off = (moved[i] - z[i] - mean) / 1e-3;
        sum += std::exp(-std::fabs(z[i] - middle) / (2 * margins + 1e-3)) * off * off;
      }
    }
    return sum;
  };
  const Row a = direction(s.spec.hidden_size, 11), b = direction(s.spec.hidden_size, 12), c = direction(s.spec.hidden_size, 13);
  const double scale = quadratic(part, a) / weighted_error(a);
  EXPECT_GT(scale, 0);
  for (const Row& e : {b, c}) EXPECT_NEAR(quadratic(part, e) / weighted_error(e), scale, 0.15 * scale);
}

TEST(OutputMetric, RatioIsThatOfTheTraces) {
  Subject s("deepseek_v3");
  const std::vector<float> none = s.measure(0).metric(0, false);
  const auto layers = static_cast<int>(s.spec.num_hidden_layers);
  const OutputMetric metric = s.measure(2);
  double routers = 0, prediction = 0;
  for (std::int64_t i = 0; i < s.spec.hidden_size; ++i) {
    const auto at = static_cast<std::size_t>(i * s.spec.hidden_size + i);
    prediction += none[at];
    for (int l = 0; l < layers; ++l) routers += (double(metric.metric(l, false)[at]) - none[at]) / layers;
  }
  EXPECT_NEAR(routers / prediction, 2, 1e-3);
  EXPECT_EQ(metric.metric(layers - 1, true), none);  // no router left
}

TEST(OutputMetric, FactorGivesTheDampedMetricWithAnyThreads) {
  Subject s("mixtral");
  const OutputMetric metric = s.measure(0.3, 1), other = s.measure(0.3, 3);
  EXPECT_EQ(metric.metric(0, false), other.metric(0, false));
  ThreadPool pool(2);
  Arena arena;
  const auto n = static_cast<std::size_t>(s.spec.hidden_size);
  const std::vector<float> g = metric.metric(0, false), l = metric.factor({pool, arena}, detect_isa(), 0, false);
  double mean = 0;
  for (std::size_t i = 0; i < n; ++i) mean += g[i * n + i] / double(n);
  // D from the diagonal, then every element.
  Row d(n);
  for (std::size_t i = 0; i < n; ++i) {
    EXPECT_EQ(l[i * n + i], 1.0f);
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::size_t k = 0; k < j; ++k) sum += double(l[i * n + k]) * d[k] * double(l[j * n + k]);
      const double value = double(g[j * n + i]) + (i == j ? 0.01 * mean : 0);
      if (i == j) d[i] = value - sum;
      else EXPECT_NEAR(sum + double(l[i * n + j]) * d[j], value, 1e-4 * mean);
    }
    EXPECT_GT(d[i], 0);
  }
}

}  // namespace
}  // namespace kedge
