// Modules against the formulas in double, on weights that a test holds.
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "kedge/error.h"
#include "nn/attention.h"
#include "nn/elementwise.h"
#include "nn/embedding.h"
#include "nn/mlp.h"
#include "nn/rope_frequencies.h"

namespace kedge {
namespace {

/// Random fp32 weights by name, made when first asked for.
class MapSource : public WeightSource {
 public:
  WeightData weight(const std::string& module, std::int64_t rows, std::int64_t cols) const override {
    Tensor& tensor = make(module + ".weight", {rows, cols});
    return tensor.view();
  }
  std::vector<float> vector(const std::string& name, std::int64_t size) const override {
    const Tensor& tensor = make(name, {size});
    return {tensor.data<float>(), tensor.data<float>() + size};
  }
  void done(const std::string& module) const noexcept override { ++finished_[module]; }

  const float* data(const std::string& name) const { return tensors_.at(name).data<float>(); }
  int finished(const std::string& module) const { return finished_[module]; }
  bool has(const std::string& name) const { return tensors_.contains(name); }

 private:
  Tensor& make(const std::string& name, Shape shape) const {
    const auto it = tensors_.find(name);
    if (it != tensors_.end()) return it->second;
    Tensor tensor(DType::f32, std::move(shape));
    Rng rng(std::hash<std::string>()(name));
    for (std::int64_t i = 0; i < tensor.size(); ++i) tensor.data<float>()[i] = static_cast<float>(0.3 * rng.normal());
    return tensors_.emplace(name, std::move(tensor)).first->second;
  }
  mutable std::map<std::string, Tensor> tensors_;
  mutable std::map<std::string, int> finished_;
};

std::vector<float> normals(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& x : out) x = static_cast<float>(rng.normal());
  return out;
}

using Rows = std::vector<std::vector<double>>;

Rows rows_of(const std::vector<float>& x, std::size_t size) {
  Rows out;
  for (std::size_t i = 0; i < x.size(); i += size)
    out.emplace_back(x.begin() + static_cast<std::ptrdiff_t>(i), x.begin() + static_cast<std::ptrdiff_t>(i + size));
  return out;
}

Rows linear(const Rows& x, const float* w, std::size_t out, const float* bias = nullptr) {
  Rows y;
  for (const auto& row : x) {
    auto& target = y.emplace_back(out, 0.0);
    for (std::size_t n = 0; n < out; ++n) {
      for (std::size_t k = 0; k < row.size(); ++k) target[n] += row[k] * double{w[n * row.size() + k]};
      if (bias != nullptr) target[n] += double{bias[n]};
    }
  }
  return y;
}

void norm_slices(Rows& x, std::size_t size, const float* weight, double eps) {
  for (auto& row : x) {
    for (std::size_t begin = 0; begin < row.size(); begin += size) {
      double sum = 0;
      for (std::size_t i = 0; i < size; ++i) sum += row[begin + i] * row[begin + i];
      for (std::size_t i = 0; i < size; ++i)
        row[begin + i] *= double{weight[i]} / std::sqrt(sum / static_cast<double>(size) + eps);
    }
  }
}

void rotate(Rows& x, std::size_t head_dim, const std::vector<float>& inv_freq) {
  for (std::size_t t = 0; t < x.size(); ++t) {
    for (std::size_t begin = 0; begin < x[t].size(); begin += head_dim) {
      for (std::size_t i = 0; i < head_dim / 2; ++i) {
        const double angle = static_cast<double>(t) * double{inv_freq[i]};
        double& a = x[t][begin + i];
        double& b = x[t][begin + i + head_dim / 2];
        const double a0 = a, b0 = b;
        a = a0 * std::cos(angle) - b0 * std::sin(angle);
        b = b0 * std::cos(angle) + a0 * std::sin(angle);
      }
    }
  }
}

Rows attend(const Rows& q, const Rows& k, const Rows& v, const Attention& spec) {
  const auto dim = static_cast<std::size_t>(spec.head_dim);
  const auto heads = static_cast<std::size_t>(spec.num_attention_heads),
             kv_heads = static_cast<std::size_t>(spec.num_key_value_heads);
  Rows out;
  for (std::size_t t = 0; t < q.size(); ++t) {
    auto& row = out.emplace_back(heads * dim, 0.0);
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t kv = h / (heads / kv_heads) * dim;
      std::size_t first = 0;
      if (spec.sliding_window > 0 && t + 1 > static_cast<std::size_t>(spec.sliding_window))
        first = t + 1 - static_cast<std::size_t>(spec.sliding_window);
      double total = 0;
      std::vector<double> sum(dim, 0.0);
      for (std::size_t j = first; j <= t; ++j) {
        double score = 0;
        for (std::size_t d = 0; d < dim; ++d) score += q[t][h * dim + d] * k[j][kv + d];
        const double p = std::exp(score / std::sqrt(static_cast<double>(dim)));
        total += p;
        for (std::size_t d = 0; d < dim; ++d) sum[d] += p * v[j][kv + d];
      }
      for (std::size_t d = 0; d < dim; ++d) row[h * dim + d] = sum[d] / total;
    }
  }
  return out;
}

void clip(Rows& x, double limit) {
  for (auto& row : x) {
    for (double& value : row) value = std::clamp(value, -limit, limit);
  }
}

class Modules : public ::testing::Test {
 protected:
  ThreadPool threads{2};
  Arena arena;
  ExecContext ctx{threads, arena, nullptr};
  LoadOptions options{detect_isa(), Numerics::consistent, Activations::fp32};
  MapSource source;
};

Attention small_attention() {
  Attention spec;
  spec.num_attention_heads = 4;
  spec.num_key_value_heads = 2;
  spec.head_dim = 8;
  spec.rope.rotary_dim = 8;
  return spec;
}

TEST_F(Modules, AttentionVariantsAreTheFormula) {
  const std::int64_t hidden = 24, tokens = 9;
  std::vector<Attention> variants(5, small_attention());
  variants[1].qkv_bias = variants[1].o_bias = true;
  variants[2].qk_norm = QkNorm::per_head;
  variants[3].qk_norm = QkNorm::full;
  variants[3].clip_qkv = 0.7f;
  variants[4].sliding_window = 3;
  const auto x = normals(tokens * hidden, 3);
  for (std::size_t i = 0; i < variants.size(); ++i) {
    const Attention& spec = variants[i];
    const std::string prefix = "v" + std::to_string(i);
    const auto module = AttentionModule::load(source, prefix, spec, hidden, 1e-5f, options);
    EXPECT_EQ(source.finished(prefix + ".q_proj"), 1);
    EXPECT_EQ(source.has(prefix + ".o_proj.bias"), spec.o_bias);

    KvCache kv(2, 12, 8, 8);
    const RopeTable rope = make_rope_table(spec.rope, 12);
    std::vector<float> y(x.size());
    // In two parts: positions go on from the cache.
    const SegmentRows first{0, 4, 0, &kv, &rope}, second{0, 5, 4, &kv, &rope};
    module.forward(ctx, x.data(), 4, {&first, 1}, y.data());
    module.forward(ctx, x.data() + 4 * hidden, 5, {&second, 1}, y.data() + 4 * hidden);

    const auto bias = [&](const char* name, bool there) { return there ? source.data(prefix + name) : nullptr; };
    const Rows in = rows_of(x, 24);
    Rows q = linear(in, source.data(prefix + ".q_proj.weight"), 32, bias(".q_proj.bias", spec.qkv_bias));
    Rows k = linear(in, source.data(prefix + ".k_proj.weight"), 16, bias(".k_proj.bias", spec.qkv_bias));
    Rows v = linear(in, source.data(prefix + ".v_proj.weight"), 16, bias(".v_proj.bias", spec.qkv_bias));
    if (spec.qk_norm != QkNorm::none) {
      const bool per_head = spec.qk_norm == QkNorm::per_head;
      norm_slices(q, per_head ? 8 : 32, source.data(prefix + ".q_norm.weight"), 1e-5);
      norm_slices(k, per_head ? 8 : 16, source.data(prefix + ".k_norm.weight"), 1e-5);
    }
    if (spec.clip_qkv) {
      for (Rows* part : {&q, &k, &v}) clip(*part, double{*spec.clip_qkv});
    }
    const auto inv_freq = rope_frequencies(spec.rope).inv_freq;
    rotate(q, 8, inv_freq);
    rotate(k, 8, inv_freq);
    const Rows expected =
        linear(attend(q, k, v, spec), source.data(prefix + ".o_proj.weight"), 24, bias(".o_proj.bias", spec.o_bias));
    for (std::size_t t = 0; t < 9; ++t) {
      for (std::size_t n = 0; n < 24; ++n)
        EXPECT_NEAR(y[t * 24 + n], expected[t][n], 2e-5) << prefix << ' ' << t << ' ' << n;
    }
  }
}

TEST_F(Modules, MlpIsTheFormula) {
  const auto module = MlpModule::load(source, "mlp", Mlp{40, FfnActivation::silu}, 24, options);
  const auto x = normals(3 * 24, 4);
  std::vector<float> y(x.size());
  module.forward(ctx, x.data(), 3, y.data());
  Rows gate = linear(rows_of(x, 24), source.data("mlp.gate_proj.weight"), 40);
  const Rows up = linear(rows_of(x, 24), source.data("mlp.up_proj.weight"), 40);
  for (std::size_t t = 0; t < 3; ++t) {
    for (std::size_t i = 0; i < 40; ++i) gate[t][i] = gate[t][i] / (1 + std::exp(-gate[t][i])) * up[t][i];
  }
  const Rows expected = linear(gate, source.data("mlp.down_proj.weight"), 24);
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], expected[i / 24][i % 24], 2e-5);
}

TEST_F(Modules, RouterIsExactWhateverTheOptions) {
  const LoadOptions fast{detect_isa(), Numerics::fast, Activations::int8};
  const Linear a = Linear::load_router(source, "gate", 8, 64, options),
               b = Linear::load_router(source, "gate", 8, 64, fast);
  const auto x = normals(5 * 64, 6);
  std::vector<float> y(40), z(40);
  a.forward(ctx, x.data(), 5, y.data());
  b.forward(ctx, x.data(), 5, z.data());
  EXPECT_EQ(y, z);
}

TEST_F(Modules, EmbeddingRowsOfEachType) {
  class TypedSource : public MapSource {
   public:
    explicit TypedSource(const Tensor& t) : table(t) {}
    WeightData weight(const std::string&, std::int64_t, std::int64_t) const override { return table.view(); }
    const Tensor& table;
  };
  const auto values = normals(10 * 16, 8);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Tensor table(dtype, {10, 16});
    convert_from_float(dtype, values.data(), 160, table.data<std::byte>());
    const auto embedding = Embedding::load(TypedSource(table), "e", 10, 16);
    const std::vector<std::int32_t> ids = {9, 0, 9};
    std::vector<float> out(48), expected(160);
    embedding.forward(ctx, ids, out.data());
    convert_to_float(dtype, table.data<std::byte>(), 160, expected.data());
    for (std::size_t t = 0; t < 3; ++t) {
      EXPECT_TRUE(std::equal(out.begin() + static_cast<std::ptrdiff_t>(t * 16),
                             out.begin() + static_cast<std::ptrdiff_t>(t * 16 + 16), expected.begin() + ids[t] * 16));
    }
    EXPECT_EQ(embedding.num_bytes(), table.num_bytes());
  }
  Tensor integers(DType::i32, {10, 16});
  EXPECT_THROW(Embedding::load(TypedSource(integers), "e", 10, 16), Error);
  EXPECT_THROW(Linear::load(TypedSource(integers), "e", 10, 16, false, options), Error);
  EXPECT_THROW(Linear::load_router(TypedSource(integers), "e", 10, 16, options), Error);
}

TEST_F(Modules, ElementwiseSteps) {
  std::vector<float> y = {1, 2, 3, 4, 5, 6};
  const std::vector<float> bias = {10, 20};
  add_bias(ctx, y.data(), 3, 2, 2, bias.data());
  EXPECT_EQ(y, (std::vector<float>{11, 22, 3, 14, 25, 6}));
  add_scaled(ctx, y.data(), bias.data(), 2, 0.5f);
  EXPECT_EQ(y[1], 32);
  clamp(ctx, y.data(), 6, 12);
  EXPECT_EQ(y, (std::vector<float>{12, 12, 3, 12, 12, 6}));
}

}  // namespace
}  // namespace kedge
