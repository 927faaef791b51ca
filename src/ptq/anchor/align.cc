#include "ptq/anchor/align.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/interrupt.h"
#include "kernels/product/product.h"
#include "ptq/anchor/assignment.h"

namespace kedge {
namespace {

constexpr const char* kParts[] = {"gate_proj", "up_proj", "down_proj"};

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

class Aligner {
 public:
  Aligner(const ExecContext& ctx, Isa isa, const WeightSource& source, const std::string& prefix,
          const ExpertShape& shape)
      : ctx_(ctx),
        isa_(isa),
        source_(source),
        prefix_(prefix),
        s_(shape),
        sum_(at(3 * s_.hidden_size * s_.intermediate_size)) {}

  Alignment run() {
    std::vector<std::int32_t> identity(at(s_.intermediate_size));
    std::iota(identity.begin(), identity.end(), 0);
    out_.order.assign(at(s_.experts), identity);
    measure_scales();
    for (std::int64_t e = 0; e < s_.experts; ++e) add(units(e), out_.order[at(e)], 1);
    out_.shared_before = shared();

    std::fill(sum_.begin(), sum_.end(), 0);
    for (std::int64_t e = 0; e < s_.experts; ++e) assign(e, e > 0);
    for (std::int64_t e = 0; e < s_.experts; ++e) {
      add(units(e), out_.order[at(e)], -1);
      assign(e, true);
    }
    out_.shared_after = shared();
    if (out_.shared_after > out_.shared_before) return std::move(out_);
    out_.order.assign(at(s_.experts), identity);
    out_.shared_after = out_.shared_before;
    return std::move(out_);
  }

 private:
  Tensor matrix(std::int64_t expert, int part) const {
    const std::string module = prefix_ + "." + std::to_string(expert) + "." + kParts[part];
    const bool down = part == 2;
    return to_float_matrix(source_.weight(module, down ? s_.hidden_size : s_.intermediate_size,
                                          down ? s_.intermediate_size : s_.hidden_size),
                           module);
  }

  void measure_scales() {
    for (int part = 0; part < 3; ++part) {
      double squares = 0;
      for (std::int64_t e = 0; e < s_.experts; ++e) {
        const Tensor w = matrix(e, part);
        for (std::int64_t i = 0; i < w.size(); ++i) squares += double(w.data<float>()[i]) * double(w.data<float>()[i]);
      }
      const double mean = squares / double(s_.experts * s_.hidden_size * s_.intermediate_size);
      scale_[part] = mean > 0 ? static_cast<float>(1 / std::sqrt(mean)) : 0.0f;
      energy_ += squares * double(scale_[part]) * double(scale_[part]);
    }
  }

  /// [3 H, I]: a column per hidden unit.
  std::vector<float> units(std::int64_t expert) const {
    const std::int64_t hidden = s_.hidden_size, size = s_.intermediate_size;
    std::vector<float> out(sum_.size());
    for (int part = 0; part < 3; ++part) {
      const Tensor w = matrix(expert, part);
      float* to = out.data() + part * hidden * size;
      for (std::int64_t h = 0; h < hidden; ++h) {
        for (std::int64_t i = 0; i < size; ++i) {
          to[h * size + i] = scale_[part] * w.data<float>()[part == 2 ? h * size + i : i * hidden + h];
        }
      }
    }
    return out;
  }

  void add(const std::vector<float>& units, const std::vector<std::int32_t>& order, double sign) {
    const std::int64_t size = s_.intermediate_size;
    for (std::int64_t k = 0; k < 3 * s_.hidden_size; ++k) {
      for (std::int64_t j = 0; j < size; ++j)
        sum_[at(k * size + j)] += sign * double(units[at(k * size + order[at(j)])]);
    }
  }

  void assign(std::int64_t expert, bool solve) {
    throw_if_interrupted();
    const std::vector<float> own = units(expert);
    if (solve) {
      const std::int64_t size = s_.intermediate_size;
      const std::vector<float> others(sum_.begin(), sum_.end());
      std::vector<float> gain(at(size * size), 0);  // [place, unit]
      ProductTile t;
      t.a = others.data();
      t.a_k = size;
      t.b = own.data();
      t.b_k = size;
      t.k = 3 * s_.hidden_size;
      t.m = t.n = size;
      t.c = gain.data();
      t.ldc = size;
      product(ctx_, isa_, t);
      out_.order[at(expert)] = solve_assignment(gain, size).column_of;
    }
    add(own, out_.order[at(expert)], 1);
  }

  double shared() const {
    double squares = 0;
    for (const double value : sum_) squares += value * value;
    return energy_ > 0 ? squares / double(s_.experts) / energy_ : 0;
  }

  const ExecContext& ctx_;
  Isa isa_;
  const WeightSource& source_;
  const std::string& prefix_;
  ExpertShape s_;
  float scale_[3] = {0, 0, 0};
  double energy_ = 0;
  std::vector<double> sum_;  ///< [3 H, I] of the experts placed so far
  Alignment out_;
};

}  // namespace

Alignment align_experts(const ExecContext& ctx, Isa isa, const WeightSource& source, const std::string& prefix,
                        const ExpertShape& shape) {
  return Aligner(ctx, isa, source, prefix, shape).run();
}

Tensor reorder_rows(const Tensor& matrix, const std::vector<std::int32_t>& order) {
  const std::int64_t cols = matrix.shape()[1];
  Tensor out(DType::f32, matrix.shape());
  for (std::size_t j = 0; j < order.size(); ++j) {
    std::copy_n(matrix.data<float>() + order[j] * cols, cols, out.data<float>() + static_cast<std::int64_t>(j) * cols);
  }
  return out;
}

Tensor reorder_columns(const Tensor& matrix, const std::vector<std::int32_t>& order) {
  const std::int64_t rows = matrix.shape()[0], cols = matrix.shape()[1];
  Tensor out(DType::f32, matrix.shape());
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t j = 0; j < cols; ++j)
      out.data<float>()[n * cols + j] = matrix.data<float>()[n * cols + order[at(j)]];
  }
  return out;
}

}  // namespace kedge
