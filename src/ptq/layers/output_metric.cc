#include "ptq/layers/output_metric.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>

#include <fmt/format.h>

#include "base/check.h"
#include "base/interrupt.h"
#include "base/rng.h"
#include "comm/sum.h"
#include "kedge/error.h"
#include "kernels/cholesky/cholesky.h"
#include "kernels/gram/gram.h"
#include "kernels/product/product.h"
#include "kernels/vec/math.h"
#include "nn/linear.h"
#include "nn/rms_norm.h"
#include "ptq/layers/boundary.h"
#include "ptq/layers/capture.h"
#include "ptq/layers/layer_pass.h"

namespace kedge {
namespace {

constexpr double kTauMargins = 2.0, kDamping = 0.01;
constexpr std::int64_t kPredictionRows = 16384;  // as many as F needs; each costs two products with the head
constexpr std::int64_t kHeadRows = 256;          // of one step: [rows, V] logits

using Matrix = std::vector<float>;

double trace(const Matrix& m, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += m[static_cast<std::size_t>(i * n + i)];
  return sum;
}

/// out [rows, cols] = d [rows, inner] w [inner, cols].
void multiply(const ExecContext& ctx, Isa isa, const float* d, std::int64_t rows, std::int64_t inner, const float* w,
              std::int64_t cols, float* out) {
  std::fill_n(out, rows * cols, 0.0f);
  ProductTile t;
  t.a = d;
  t.a_k = 1;
  t.a_i = inner;
  t.b = w;
  t.b_k = cols;
  t.k = inner;
  t.m = rows;
  t.n = cols;
  t.c = out;
  t.ldc = cols;
  product(ctx, isa, t);
}

/// u becomes J^T u, J the Jacobian of gamma h / sqrt(mean h^2 + eps) at h; both [rows, size].
void norm_backward(const ExecContext& ctx, const float* h, const std::vector<float>& gamma, float eps, std::int64_t rows,
                   float* u) {
  const auto size = static_cast<std::int64_t>(gamma.size());
  ctx.threads.parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* x = h + r * size;
      float* g = u + r * size;
      double squares = 0, along = 0;
      for (std::int64_t i = 0; i < size; ++i) {
        g[i] *= gamma[static_cast<std::size_t>(i)];
        squares += double(x[i]) * double(x[i]);
        along += double(g[i]) * double(x[i]);
      }
      const double power = squares / double(size) + double(eps);
      const auto inverse = static_cast<float>(1 / std::sqrt(power)), back = static_cast<float>(along / (double(size) * power));
      for (std::int64_t i = 0; i < size; ++i) g[i] = (g[i] - x[i] * back) * inverse;
    }
  });
}

Matrix plain(const WeightSource& source, const std::string& module, std::int64_t rows, std::int64_t cols) {
  const Tensor weight = to_float_matrix(source.weight(module, rows, cols), module);
  return {weight.data<float>(), weight.data<float>() + rows * cols};
}

/// Each rank draws for tokens of its own.
std::uint64_t own_seed(const OutputMetric::Input& input) {
  return input.ranks == nullptr ? input.seed
                                : input.seed + 0x9E3779B97F4A7C15ull * static_cast<std::uint64_t>(input.ranks->rank());
}

struct RouterTokens {
  Matrix logits, scores;  ///< [N, E]
};

/// One MoE block's share of R.
class RouterMetric {
 public:
  RouterMetric(const OutputMetric::Input& input, LayerPass& pass, const Block& block, const BlockSpec& spec)
      : in_(input), pass_(pass), block_(block), moe_(std::get<Moe>(spec.mixer)), spec_(spec) {}

  void add_to(const HiddenStates& states, Matrix& sum) {
    const std::int64_t experts = moe_.router.num_experts;
    if (moe_.router.num_experts_per_tok >= experts) return;
    const RouterTokens tokens = read(states);
    const Boundaries near =
        boundary_weights(in_.threads, tokens.scores, experts, moe_.router.num_experts_per_tok, kTauMargins, in_.ranks);
    if (!(near.mean_margin > 0)) return;
    const std::string layer = "model.layers." + std::to_string(spec_.source_layer);
    const std::int64_t hidden = in_.spec.hidden_size;
    const Matrix router = plain(in_.source, layer + ".mlp.gate", experts, hidden);
    const std::vector<float> gamma = in_.source.vector(layer + "." + spec_.pre_norm + ".weight", hidden);
    Rng rng(own_seed(in_) * 1000003 + static_cast<std::uint64_t>(spec_.source_layer));
    Matrix d;
    for (const LayerPass::Chunk& chunk : pass_.chunks()) {
      throw_if_interrupted();
      const ExecContext ctx = pass_.context();
      ArenaScope scope(ctx.scratch);
      d.resize(static_cast<std::size_t>(chunk.rows * experts));
      for (std::int64_t t = 0; t < chunk.rows; ++t) draw(tokens, near, chunk.first_row + t, rng, d.data() + t * experts);
      float* g = ctx.scratch.take<float>(chunk.rows * hidden);
      multiply(ctx, in_.options.isa, d.data(), chunk.rows, experts, router.data(), hidden, g);
      norm_backward(ctx, states.row(chunk.first_row), gamma, in_.spec.rms_norm_eps, chunk.rows, g);
      const GramJob job{g, hidden, nullptr, 0, nullptr, nullptr, chunk.rows, hidden, hidden, sum.data(), hidden};
      gram(ctx, in_.options.isa, {&job, 1});
    }
  }

 private:
  RouterTokens read(const HiddenStates& states) {
    RouterTokens out;
    for (const LayerPass::Chunk& chunk : pass_.chunks()) {
      Capture capture({}, static_cast<unsigned>(Site::routing));
      block_.observe_routing(pass_.context(&capture), states.row(chunk.first_row), chunk.rows);
      out.logits.insert(out.logits.end(), capture.logits.values.begin(), capture.logits.values.end());
      out.scores.insert(out.scores.end(), capture.scores.values.begin(), capture.scores.values.end());
    }
    return out;
  }

  void draw(const RouterTokens& tokens, const Boundaries& near, std::int64_t token, Rng& rng, float* d) const {
    const std::int64_t experts = moe_.router.num_experts;
    const bool is_softmax = moe_.router.scoring_func == ScoringFunc::softmax;
    double sum = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      const auto at = static_cast<std::size_t>(token * experts + e);
      double value = std::sqrt(double(near.weights[at])) / near.mean_margin;
      if (!is_softmax) {
        const double s = 1 / (1 + math::exp(-double(tokens.logits[at])));
        value *= s * (1 - s);
      }
      d[e] = static_cast<float>((rng.next() >> 63) != 0 ? value : -value);
      sum += double(d[e]);
    }
    if (!is_softmax) return;
    for (std::int64_t e = 0; e < experts; ++e) d[e] -= static_cast<float>(sum / double(experts));
  }

  const OutputMetric::Input& in_;
  LayerPass& pass_;
  const Block& block_;
  const Moe& moe_;
  const BlockSpec& spec_;
};

/// logits [rows, V] become p - 1_y.
void draw_predictions(const ExecContext& ctx, std::int64_t rows, std::int64_t vocab, const std::vector<double>& draws,
                      float* logits) {
  ctx.threads.parallel_for(rows, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* z = logits + r * vocab;
      const double most = *std::max_element(z, z + vocab);
      double sum = 0;
      for (std::int64_t v = 0; v < vocab; ++v) {
        const double p = math::exp(double(z[v]) - most);
        z[v] = static_cast<float>(p);
        sum += p;
      }
      double left = draws[static_cast<std::size_t>(r)] * sum;
      std::int64_t y = 0;
      while (y + 1 < vocab && left >= double(z[y])) left -= double(z[y++]);
      for (std::int64_t v = 0; v < vocab; ++v) z[v] = static_cast<float>(double(z[v]) / sum);
      z[y] -= 1.0f;
    }
  });
}

Matrix prediction_metric(const OutputMetric::Input& in, const HiddenStates& states) {
  const std::int64_t hidden = in.spec.hidden_size, vocab = in.spec.vocab_size;
  const std::string head_name = in.spec.tie_word_embeddings ? "model.embed_tokens" : "lm_head";
  const Linear head = Linear::load(in.source, head_name, vocab, hidden, false, in.options);
  const Matrix weight = plain(in.source, head_name, vocab, hidden);
  const RmsNorm norm = RmsNorm::load(in.source, "model.norm", hidden, in.spec.rms_norm_eps, in.options.isa);
  const std::vector<float> gamma = in.source.vector("model.norm.weight", hidden);
  const std::int64_t all = sum_over_ranks(in.ranks, states.rows());
  const std::int64_t stride = (all + kPredictionRows - 1) / kPredictionRows;
  const std::int64_t total = (states.rows() + stride - 1) / stride;
  Matrix sum(static_cast<std::size_t>(hidden * hidden));
  Arena arena;
  const ExecContext ctx{in.threads, arena};
  Rng rng(own_seed(in));
  for (std::int64_t first = 0; first < total; first += kHeadRows) {
    throw_if_interrupted();
    ArenaScope scope(arena);
    const std::int64_t rows = std::min(kHeadRows, total - first);
    float* h = arena.take<float>(rows * hidden);
    float* u = arena.take<float>(rows * hidden);
    float* logits = arena.take<float>(rows * vocab);
    std::vector<double> draws;
    for (std::int64_t r = 0; r < rows; ++r) {
      std::copy_n(states.row((first + r) * stride), hidden, h + r * hidden);
      draws.push_back(rng.uniform());
    }
    norm.forward(ctx, h, rows, u);
    head.forward(ctx, u, rows, logits);
    draw_predictions(ctx, rows, vocab, draws, logits);
    multiply(ctx, in.options.isa, logits, rows, vocab, weight.data(), hidden, u);
    norm_backward(ctx, h, gamma, in.spec.rms_norm_eps, rows, u);
    const GramJob job{u, hidden, nullptr, 0, nullptr, nullptr, rows, hidden, hidden, sum.data(), hidden};
    gram(ctx, in.options.isa, {&job, 1});
  }
  sum_over_ranks(in.ranks, std::span(sum));
  const std::int64_t drawn = sum_over_ranks(in.ranks, total);
  for (float& value : sum) value /= static_cast<float>(drawn);
  return sum;
}

}  // namespace

OutputMetric::OutputMetric(const Input& input, HiddenStates& states) : hidden_(input.spec.hidden_size) {
  const auto layers = static_cast<std::size_t>(input.spec.num_hidden_layers);
  routers_.assign(layers + 1, Matrix(static_cast<std::size_t>(hidden_ * hidden_)));
  for (std::size_t layer = 0; layer < layers; ++layer) {
    LayerPass pass(input.spec, static_cast<int>(layer), states.sequences(), states.seqlen(), input.options,
                   input.threads);
    for (std::size_t b = 0; b < pass.num_blocks(); ++b) {
      const BlockSpec& spec = pass.spec().blocks[b];
      const std::unique_ptr<Block> block = pass.build(input.source, b);
      if (std::holds_alternative<Moe>(spec.mixer)) RouterMetric(input, pass, *block, spec).add_to(states, routers_[layer]);
      pass.advance(*block, states);
    }
    sum_over_ranks(input.ranks, std::span(routers_[layer]));
    if (input.layer_done) input.layer_done(static_cast<int>(layer));
  }
  prediction_ = prediction_metric(input, states);
  double sum = 0;
  for (std::size_t layer = layers; layer-- > 0;) {
    for (std::size_t i = 0; i < routers_[layer].size(); ++i) routers_[layer][i] += routers_[layer + 1][i];
    sum += trace(routers_[layer], hidden_);
  }
  share_ = sum > 0 ? input.ratio * trace(prediction_, hidden_) * double(layers) / sum : 0;
}

std::vector<float> OutputMetric::metric(int layer, bool after_router) const {
  const Matrix& routers = routers_[static_cast<std::size_t>(layer) + (after_router ? 1 : 0)];
  Matrix g(prediction_.size());
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = static_cast<float>(double(prediction_[i]) + share_ * double(routers[i]));
  return g;
}

std::vector<float> OutputMetric::factor(const ExecContext& ctx, Isa isa, int layer, bool after_router) const {
  const Matrix g = metric(layer, after_router);
  const double mean = trace(g, hidden_) / double(hidden_);
  for (double damping = kDamping; damping <= 1; damping *= 10) {
    Matrix s = g;
    const double ridge = mean > 0 ? damping * mean : 1;  // nothing reads the stream: all outputs count alike
    for (std::int64_t i = 0; i < hidden_; ++i) s[static_cast<std::size_t>(i * hidden_ + i)] += static_cast<float>(ridge);
    if (!cholesky(ctx, isa, hidden_, s.data(), hidden_)) continue;
    Matrix lower(s.size());
    for (std::int64_t i = 0; i < hidden_; ++i) {
      const float pivot = s[static_cast<std::size_t>(i * hidden_ + i)];
      for (std::int64_t j = i; j < hidden_; ++j) {
        lower[static_cast<std::size_t>(j * hidden_ + i)] = s[static_cast<std::size_t>(i * hidden_ + j)] / pivot;
      }
    }
    return lower;
  }
  throw Error(
      ErrorCode::bad_file,
      fmt::format("what errors of layer {} cost is not a number: a weight behind it holds NaN or infinity", layer),
      "finite weights, of norms, embeddings and lm_head too");
}

}  // namespace kedge
