// Against the papers' equations in float64 (tools/make_gptq_golden.py), against round to nearest, and bit for bit over
// ISAs and thread counts.
#include "kernels/gptq/gptq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/rng.h"
#include "kernels/cholesky/cholesky.h"
#include "kernels/gram/gram.h"

namespace kedge {
namespace {

using Matrix = std::vector<float>;

struct Problem {
  std::int64_t rows, cols;
  Matrix weights, hessian, cross;
};

/// sum over rows of d H d^T, d = the row's change.
double layer_error(const Problem& p, const QuantTensor& q) {
  Matrix decoded(p.weights.size());
  dequantize(q, decoded);
  double sum = 0;
  for (std::int64_t r = 0; r < p.rows; ++r) {
    std::vector<double> d;
    for (std::int64_t k = r * p.cols; k < (r + 1) * p.cols; ++k) {
      d.push_back(p.weights[k] - static_cast<double>(decoded[k]));
    }
    for (std::int64_t i = 0; i < p.cols; ++i) {
      for (std::int64_t j = 0; j < p.cols; ++j) sum += d[i] * p.hessian[i * p.cols + j] * d[j];
    }
  }
  return sum;
}

/// Row r alone.
QuantTensor row_of(const QuantTensor& q, std::int64_t r) {
  const auto part = [&](const auto& values, std::int64_t count) {
    return values.empty()
               ? values
               : std::decay_t<decltype(values)>(values.begin() + r * count, values.begin() + (r + 1) * count);
  };
  QuantTensor row = q;
  row.rows = 1;
  row.codes = part(q.codes, q.cols);
  row.scales = part(q.scales, q.groups());
  row.zeros = part(q.zeros, q.groups());
  return row;
}

struct Options {
  QuantArgs args;
  DType dtype = DType::bf16;
  bool order = false;
  float alpha = 0;
  ScaleSearch search = {};
};

/// What comes before the rounding.
struct Prepared {
  std::vector<std::int32_t> order;
  Matrix factor, asymmetric;
};

Prepared prepare(const ExecContext& ctx, Isa isa, const Problem& p, bool ordered, float alpha) {
  Prepared out;
  std::vector<std::int32_t> order(static_cast<std::size_t>(p.cols));
  std::iota(order.begin(), order.end(), 0);
  if (ordered) {
    Matrix diagonal;
    for (std::int64_t i = 0; i < p.cols; ++i) diagonal.push_back(p.hessian[i * p.cols + i]);
    out.order = order = descending_order(diagonal);
  }
  out.factor.resize(p.hessian.size());
  permute_symmetric(ctx, order, p.hessian.data(), out.factor.data());
  EXPECT_TRUE(gptq_factor(ctx, isa, p.cols, out.factor.data(), p.cols));
  if (alpha != 0) {
    Matrix cross(p.hessian.size());
    out.asymmetric.resize(p.hessian.size());
    permute_symmetric(ctx, order, p.cross.data(), cross.data());
    gptaq_asymmetric(ctx, isa, p.cols, cross.data(), out.factor.data(), alpha, out.asymmetric.data());
  }
  return out;
}

GptqInput make_input(const Problem& p, const Options& options, const Prepared& prepared) {
  GptqInput in;
  in.weights = p.weights;
  in.rows = p.rows;
  in.cols = p.cols;
  in.args = options.args;
  in.scale_dtype = options.dtype;
  in.factor = prepared.factor.data();
  if (!prepared.asymmetric.empty()) in.asymmetric = prepared.asymmetric.data();
  in.order = prepared.order;
  in.search = options.search;
  return in;
}

GptqResult run(const Problem& p, const Options& options) {
  ThreadPool pool(2);
  Arena scratch;
  const Prepared prepared = prepare({pool, scratch}, detect_isa(), p, options.order, options.alpha);
  return gptq({pool, scratch}, detect_isa(), make_input(p, options, prepared));
}

/// Correlated inputs: a few shared directions, some columns larger than others.
Problem correlated(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  Rng rng(seed);
  const std::int64_t tokens = 2 * cols;
  const auto square = static_cast<std::size_t>(cols * cols);
  Problem p{rows, cols, {}, Matrix(square), Matrix(square)};
  for (std::int64_t i = 0; i < rows * cols; ++i) p.weights.push_back(static_cast<float>(0.02 * rng.normal()));
  Matrix mix(static_cast<std::size_t>(6 * cols)), x, dx;
  for (float& value : mix) value = static_cast<float>(rng.normal());
  for (std::int64_t t = 0; t < tokens; ++t) {
    double common[6];
    for (double& value : common) value = rng.normal();
    for (std::int64_t i = 0; i < cols; ++i) {
      double value = rng.normal();
      for (std::int64_t k = 0; k < 6; ++k) value += common[k] * mix[k * cols + i];
      x.push_back(static_cast<float>(value * (i % 11 == 4 ? 5 : 1)));
      dx.push_back(static_cast<float>(0.3 * rng.normal()));
    }
  }
  ThreadPool pool(2);
  Arena scratch;
  GramJob h{x.data(), cols, nullptr, 0, nullptr, nullptr, tokens, cols, 0, p.hessian.data(), cols};
  GramJob c{dx.data(), cols, x.data(), cols, nullptr, nullptr, tokens, cols, cols, p.cross.data(), cols};
  gram({pool, scratch}, detect_isa(), {&h, 1});
  gram({pool, scratch}, detect_isa(), {&c, 1});
  mirror_upper({pool, scratch}, cols, p.hessian.data(), cols);
  double mean = 0;
  for (std::int64_t i = 0; i < cols; ++i) mean += p.hessian[i * cols + i] / static_cast<double>(cols);
  for (std::int64_t i = 0; i < cols; ++i) p.hessian[i * cols + i] += static_cast<float>(0.01 * mean);
  return p;
}

void expect_same(const QuantTensor& a, const QuantTensor& b, const std::string& what) {
  EXPECT_EQ(a.codes, b.codes) << what;
  EXPECT_EQ(a.zeros, b.zeros) << what;
  ASSERT_EQ(a.scales.size(), b.scales.size());
  EXPECT_EQ(std::memcmp(a.scales.data(), b.scales.data(), a.scales.size() * sizeof(float)), 0) << what;
}

/// The inputs of tools/make_gptq_golden.py.
Problem golden_problem(std::int64_t rows, std::int64_t cols, std::int64_t tokens) {
  std::uint64_t state = 7;
  const auto rand = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state >> 40) / 0x1p24 - 0.5;
  };
  const auto n = static_cast<std::size_t>(cols);
  Problem p{rows, cols, {}, Matrix(n * n), Matrix(n * n)};
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    const double value = rand();
    p.weights.push_back(static_cast<float>(value * (rand() > 0.45 ? 4 : 1)));
  }
  std::vector<double> mix(4 * n), h(n * n), cross(n * n), x(n), dx(n);
  for (double& value : mix) value = rand();
  const auto size = [](std::size_t i) { return i % 13 == 5 ? 4.0 : 1.0; };
  for (std::int64_t t = 0; t < tokens; ++t) {
    double common[4];
    for (double& value : common) value = rand();
    for (std::size_t i = 0; i < n; ++i) {
      double value = rand();
      for (std::size_t k = 0; k < 4; ++k) value += 3 * common[k] * mix[k * n + i];
      x[i] = value * size(i);
    }
    for (std::size_t i = 0; i < n; ++i) dx[i] = 0.3 * rand() * size(i);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        h[i * n + j] += x[i] * x[j];
        cross[i * n + j] += dx[i] * x[j];
      }
    }
  }
  double mean = 0;
  for (std::size_t i = 0; i < n; ++i) mean += h[i * n + i] / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) h[i * n + i] += 0.01 * mean;
  for (std::size_t i = 0; i < n * n; ++i) {
    p.hessian[i] = static_cast<float>(h[i]);
    p.cross[i] = static_cast<float>(cross[i]);
  }
  return p;
}

TEST(Gptq, AgreesWithThePapersEquations) {
  const Json golden = read_json(std::string(KEDGE_SOURCE_DIR) + "/tests/goldens/gptq.json");
  const Problem p = golden_problem(golden["rows"], golden["cols"], golden["tokens"]);
  for (const Json& c : golden["cases"]) {
    const std::string name = c["name"];
    const std::int64_t group = c["group"];
    Options options;
    options.args = {c["bits"], c["symmetric"], group == p.cols ? QuantStrategy::channel : QuantStrategy::group, group};
    options.order = c["order"];
    options.alpha = c["alpha"];
    const GptqResult result = run(p, options);
    std::int64_t codes = 0, scales = 0;
    const std::int64_t groups = result.tensor.groups();
    for (std::int64_t r = 0; r < p.rows; ++r) {
      const std::string row = c["codes"][static_cast<std::size_t>(r)];
      for (std::int64_t k = 0; k < p.cols; ++k) {
        const int code = std::stoi(row.substr(static_cast<std::size_t>(k), 1), nullptr, 16);
        codes += result.tensor.codes[r * p.cols + k] != code ? 1 : 0;
      }
      for (std::int64_t g = 0; g < groups; ++g) {
        const auto at = static_cast<std::size_t>(g), of = static_cast<std::size_t>(r);
        const float scale = c["scales"][of][at];
        scales += result.tensor.scales[r * groups + g] != scale ? 1 : 0;
        if (!options.args.symmetric) scales += result.tensor.zero(r, g) != c["zeros"][of][at].get<int>() ? 1 : 0;
      }
    }
    // A tie that falls the other way moves what comes after it in that row, and may move a later scale by one step.
    EXPECT_LE(codes, p.rows * p.cols / 1000) << name;
    EXPECT_LE(scales, p.rows * groups / 50) << name;
    const double expected = c["error"], error = layer_error(p, result.tensor);
    EXPECT_NEAR(error, expected, 1e-3 * expected) << name;
    if (options.alpha == 0) {
      EXPECT_NEAR(result.error, error, 1e-3 * error) << name;
    }
  }
}

const QuantArgs kArgs[] = {
    {4, true, QuantStrategy::group, 32},   {4, false, QuantStrategy::group, 128},
    {3, true, QuantStrategy::group, 48},   {2, false, QuantStrategy::channel, -1},
    {8, true, QuantStrategy::channel, -1}, {3, false, QuantStrategy::group, 192},
};

TEST(Gptq, WithTheIdentityItIsRoundToNearest) {
  Problem p = correlated(70, 384, 11);
  for (std::int64_t k = 0; k < 128; ++k) p.weights[3 * 384 + k] = 0.0f;  // a group of zeros
  Matrix identity(p.hessian.size());
  for (std::int64_t i = 0; i < p.cols; ++i) identity[i * p.cols + i] = 1.0f;
  ThreadPool pool(2);
  Arena scratch;
  Matrix importance;
  for (std::int64_t i = 0; i < p.cols; ++i) importance.push_back(p.hessian[i * p.cols + i]);
  const std::vector<std::int32_t> order = descending_order(importance);
  for (const QuantArgs& args : kArgs) {
    for (DType dtype : {DType::bf16, DType::f32, DType::f16}) {
      for (ScaleMethod method : {ScaleMethod::minmax, ScaleMethod::mse}) {
        for (bool ordered : {false, true}) {
          GptqInput in;
          in.weights = p.weights;
          in.rows = p.rows;
          in.cols = p.cols;
          in.args = args;
          in.scale_dtype = dtype;
          in.factor = identity.data();
          in.search.method = method;
          in.search.importance = importance;
          if (ordered) in.order = order;
          const GptqResult result = gptq({pool, scratch}, detect_isa(), in);
          expect_same(result.tensor, quantize_rtn(p.weights, p.rows, p.cols, args, dtype, in.search), "rtn");
        }
      }
    }
  }
}

TEST(Gptq, SameBitsOnAllIsasAndThreads) {
  const Problem p = correlated(70, 384, 12);
  ThreadPool one(1), three(3);
  Arena scratch, scratch3;
  const ExecContext alone{one, scratch}, shared{three, scratch3};
  for (bool order : {false, true}) {
    const Prepared prepared = prepare(alone, Isa::scalar, p, order, 0.25f);
    for (Isa isa : available_isas()) {
      const Prepared other = prepare(shared, isa, p, order, 0.25f);
      EXPECT_EQ(std::memcmp(other.asymmetric.data(), prepared.asymmetric.data(), p.cross.size() * sizeof(float)), 0)
          << isa_name(isa);
    }
    Prepared plain = prepared;
    plain.asymmetric.clear();
    for (const QuantArgs& args : kArgs) {
      for (const Prepared& each : {plain, prepared}) {
        const GptqInput in = make_input(p, {args}, each);
        const GptqResult expected = gptq(alone, Isa::scalar, in);
        for (Isa isa : available_isas()) {
          const GptqResult result = gptq(shared, isa, in);
          expect_same(result.tensor, expected.tensor, isa_name(isa));
          EXPECT_EQ(result.error, expected.error);
        }
      }
    }
  }
}

TEST(Gptq, BeatsRoundToNearestOnCorrelatedInputs) {
  const Problem p = correlated(48, 384, 13);
  for (const QuantArgs& args : kArgs) {
    const double rtn = layer_error(p, quantize_rtn(p.weights, p.rows, p.cols, args, DType::bf16));
    for (bool order : {false, true}) {
      const GptqResult result = run(p, {args, DType::bf16, order});
      const double error = layer_error(p, result.tensor);
      EXPECT_LT(error, 0.6 * rtn) << args.num_bits << " " << order;
      EXPECT_NEAR(result.error, error, 2e-3 * error);
    }
  }
}

/// What GPTAQ is for: || W X~ - W^ X ||^2 = tr(D H D^T) + 2 tr(W C D^T) + const, D = W - W^, C = (X~ - X) X^T.
TEST(Gptq, AsymmetricTermComesCloserToTheOriginalOutput) {
  const Problem p = correlated(48, 384, 14);
  const auto objective = [&](const QuantTensor& q) {
    Matrix decoded(p.weights.size());
    dequantize(q, decoded);
    double sum = layer_error(p, q);
    for (std::int64_t r = 0; r < p.rows; ++r) {
      for (std::int64_t i = 0; i < p.cols; ++i) {
        for (std::int64_t j = 0; j < p.cols; ++j) {
          const double d = p.weights[r * p.cols + j] - static_cast<double>(decoded[r * p.cols + j]);
          sum += 2.0 * p.weights[r * p.cols + i] * p.cross[i * p.cols + j] * d;
        }
      }
    }
    return sum;
  };
  for (int bits : {3, 4}) {
    const QuantArgs args{bits, false, QuantStrategy::group, 128};
    const double plain = objective(run(p, {args}).tensor);
    const double asymmetric = objective(run(p, {args, DType::bf16, false, 1.0f}).tensor);
    EXPECT_LT(asymmetric, plain) << bits;
  }
}

/// G of a few directions that count and of all others a little, and its unit lower triangular factor.
struct OutputMetricOf {
  Matrix factor;
  std::vector<double> metric;  ///< [rows, rows]

  OutputMetricOf(std::int64_t rows, std::uint64_t seed)
      : factor(static_cast<std::size_t>(rows * rows)), metric(factor.size()) {
    Rng rng(seed);
    for (int direction = 0; direction < 8; ++direction) {
      std::vector<double> g;
      for (std::int64_t i = 0; i < rows; ++i) g.push_back(rng.normal());
      for (std::int64_t i = 0; i < rows * rows; ++i) metric[i] += g[i / rows] * g[i % rows];
    }
    for (std::int64_t i = 0; i < rows; ++i) metric[i * rows + i] += 0.5;
    std::vector<double> d(static_cast<std::size_t>(rows)), l(metric.size());
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j <= i; ++j) {
        double sum = metric[i * rows + j];
        for (std::int64_t k = 0; k < j; ++k) sum -= l[i * rows + k] * d[k] * l[j * rows + k];
        if (i == j) d[i] = sum;
        l[i * rows + j] = i == j ? 1 : sum / d[j];
        factor[i * rows + j] = static_cast<float>(l[i * rows + j]);
      }
    }
  }
};

/// tr(G E H E^T).
double shaped_error(const Problem& p, const OutputMetricOf& outputs, const QuantTensor& q) {
  Matrix e(p.weights.size());
  dequantize(q, e);
  for (std::size_t i = 0; i < e.size(); ++i) e[i] -= p.weights[i];
  std::vector<double> eh(e.size());
  for (std::int64_t r = 0; r < p.rows; ++r) {
    for (std::int64_t i = 0; i < p.cols; ++i) {
      for (std::int64_t j = 0; j < p.cols; ++j) eh[r * p.cols + j] += double(e[r * p.cols + i]) * p.hessian[i * p.cols + j];
    }
  }
  double sum = 0;
  for (std::int64_t r = 0; r < p.rows; ++r) {
    for (std::int64_t s = 0; s < p.rows; ++s) {
      double product = 0;
      for (std::int64_t j = 0; j < p.cols; ++j) product += eh[r * p.cols + j] * e[s * p.cols + j];
      sum += outputs.metric[r * p.rows + s] * product;
    }
  }
  return sum;
}

TEST(Gptq, OutputFactorLowersTheErrorThatItStandsFor) {
  const Problem p = correlated(70, 384, 15);
  const OutputMetricOf outputs(p.rows, 16);
  ThreadPool one(1), three(3);
  Arena scratch, scratch3;
  for (int bits : {2, 3, 4}) {
    const Options options{{bits, true, QuantStrategy::group, 128}, DType::bf16, true};
    const Prepared prepared = prepare({one, scratch}, detect_isa(), p, true, 0);
    GptqInput in = make_input(p, options, prepared);
    const QuantTensor plain = gptq({one, scratch}, detect_isa(), in).tensor;
    in.output_factor = outputs.factor.data();
    const QuantTensor shaped = gptq({one, scratch}, detect_isa(), in).tensor;
    EXPECT_LT(shaped_error(p, outputs, shaped), 0.75 * shaped_error(p, outputs, plain)) << bits;
    for (Isa isa : available_isas()) expect_same(gptq({three, scratch3}, isa, in).tensor, shaped, isa_name(isa));

    Matrix identity(outputs.factor.size());
    for (std::int64_t i = 0; i < p.rows; ++i) identity[i * p.rows + i] = 1;
    in.output_factor = identity.data();
    expect_same(gptq({three, scratch3}, detect_isa(), in).tensor, plain, "outputs that count alike");
  }
}

// Each row on its own, the first factor included: no row is worse than with the full range, some are better.
TEST(Gptq, RowSearchKeepsTheBestRound) {
  const Problem p = correlated(70, 384, 18);
  for (const QuantArgs& args : kArgs) {
    for (bool order : {false, true}) {
      Options wide{args, DType::bf16, order}, searched{args, DType::bf16, order};
      wide.search.method = ScaleMethod::full_range;
      searched.search.method = ScaleMethod::row_search;
      const GptqResult before = run(p, wide), after = run(p, searched);
      EXPECT_LE(after.error, before.error);
      EXPECT_NEAR(after.error, layer_error(p, after.tensor), 2e-3 * after.error);
      int moved = 0;
      for (std::int64_t r = 0; r < p.rows; ++r) {
        const Problem row{
            1, p.cols, Matrix(p.weights.begin() + r * p.cols, p.weights.begin() + (r + 1) * p.cols), p.hessian, {}};
        const double old_error = layer_error(row, row_of(before.tensor, r)),
                     error = layer_error(row, row_of(after.tensor, r));
        EXPECT_LE(error, old_error * (1 + 1e-3)) << args.num_bits << " row " << r;
        moved += error < 0.999 * old_error ? 1 : 0;
      }
      if (args.num_bits <= 3) {
        EXPECT_GE(moved, 20) << args.num_bits;
      }
    }
  }
}

TEST(Gptq, RowSearchAgainstAnOutputFactor) {
  const Problem p = correlated(70, 256, 19);
  const OutputMetricOf outputs(p.rows, 20);
  ThreadPool one(1), three(3);
  Arena scratch, scratch3;
  for (int bits : {2, 3, 4}) {
    const Options options{{bits, true, QuantStrategy::group, 128}, DType::bf16, true};
    const Prepared prepared = prepare({one, scratch}, detect_isa(), p, true, 0);
    GptqInput in = make_input(p, options, prepared);
    in.output_factor = outputs.factor.data();
    in.scales_of = p.weights;
    in.search.method = ScaleMethod::full_range;
    const double wide = shaped_error(p, outputs, gptq({one, scratch}, detect_isa(), in).tensor);
    in.search.method = ScaleMethod::row_search;
    const QuantTensor searched = gptq({one, scratch}, detect_isa(), in).tensor;
    EXPECT_LT(shaped_error(p, outputs, searched), 0.97 * wide) << bits;
    if (bits == 2) continue;
    for (Isa isa : available_isas()) expect_same(gptq({three, scratch3}, isa, in).tensor, searched, isa_name(isa));
  }
}

TEST(Gptq, ScalesOfOtherWeights) {
  const Problem p = correlated(20, 256, 17);
  Matrix moved = p.weights;
  for (float& w : moved) w *= 1.5f;
  ThreadPool pool(2);
  Arena scratch;
  const Options options{{4, true, QuantStrategy::group, 128}, DType::bf16, true};
  const Prepared prepared = prepare({pool, scratch}, detect_isa(), p, true, 0);
  GptqInput in = make_input(p, options, prepared);
  in.weights = moved;
  in.scales_of = p.weights;
  const QuantTensor q = gptq({pool, scratch}, detect_isa(), in).tensor;
  EXPECT_EQ(q.scales, quantize_rtn(p.weights, p.rows, p.cols, options.args, DType::bf16).scales);
}

TEST(Gptq, OrderIsStableAndDescending) {
  const float diagonal[] = {1, 3, 2, 3, 0};
  EXPECT_EQ(descending_order(diagonal), (std::vector<std::int32_t>{1, 3, 2, 0, 4}));
}

}  // namespace
}  // namespace kedge
