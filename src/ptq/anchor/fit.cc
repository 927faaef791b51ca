#include "ptq/anchor/fit.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/interrupt.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// Steps beyond the third gained less than one part in a thousand on the models measured.
constexpr int kMostSteps = 8;
constexpr double kLeastGain = 1e-4;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

class Fitter {
 public:
  Fitter(const AnchorFit& fit, ThreadPool& threads, const std::string& where)
      : f_(fit),
        threads_(threads),
        where_(where),
        size_(fit.rows * fit.cols),
        anchor_(at(size_)),
        decoded_(fit.weights.size(), 0) {
    out_.stack.args = fit.args;
    out_.stack.rows = fit.rows;
    out_.stack.cols = fit.cols;
  }

  FittedAnchor run() {
    KEDGE_CHECK(f_.args.manifold == Manifold::none || f_.args.manifold == Manifold::sphere);
    std::vector<float> best;
    double least = std::numeric_limits<double>::infinity();
    for (int step = 0; step < kMostSteps; ++step) {
      throw_if_interrupted();
      step_anchor();
      if (step == 0) out_.shared = share_of_anchor();
      const double error = step_deltas();
      if (step == 0 && !std::isfinite(error)) {
        throw Error(ErrorCode::bad_file, "the weights of " + where_ + " hold NaN or infinity", "finite numbers");
      }
      if (!(error < least)) break;
      const bool enough = error > (1 - kLeastGain) * least;
      least = error;
      best = anchor_;
      out_.steps = step + 1;
      if (enough) break;
    }
    set_anchor(out_.stack, best);
    decode_anchor(out_.stack, anchor_);
    decoded_ = {};
    round_deltas();
    if (f_.args.manifold == Manifold::sphere) {
      out_.stack.target_norm.resize(at(f_.experts * f_.rows));
      row_norms(f_.weights, f_.experts * f_.rows, f_.cols, out_.stack.target_norm);
      set_row_scales(out_.stack, where_);
    }
    return std::move(out_);
  }

 private:
  double importance(std::int64_t expert, std::int64_t k) const {
    return f_.importance.empty() ? 1.0 : double(f_.importance[at(expert * f_.cols + k)]);
  }

  /// The weighted mean of W - D, as stored.
  void step_anchor() {
    std::vector<float> mean(at(size_));
    threads_.parallel_for(f_.rows, 8, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin * f_.cols; i < end * f_.cols; ++i) {
        double sum = 0, plain = 0, total = 0;
        for (std::int64_t e = 0; e < f_.experts; ++e) {
          const double rest = double(f_.weights[at(e * size_ + i)]) - double(decoded_[at(e * size_ + i)]);
          const double h = importance(e, i % f_.cols);
          sum += h * rest;
          total += h;
          plain += rest;
        }
        mean[at(i)] = static_cast<float>(total > 0 ? sum / total : plain / double(f_.experts));
      }
    });
    set_anchor(out_.stack, mean);
    decode_anchor(out_.stack, anchor_);
    if (all_finite(anchor_)) return;
    throw Error(ErrorCode::bad_file, where_ + ": the anchor is beyond the range of " + dtype_name(f_.args.anchor_dtype),
                "weights that the anchor's type can hold", "use a bfloat16 anchor");
  }

  std::vector<float> delta(std::int64_t expert) const {
    std::vector<float> out(at(size_));
    for (std::int64_t i = 0; i < size_; ++i) out[at(i)] = f_.weights[at(expert * size_ + i)] - anchor_[at(i)];
    return out;
  }

  /// Rounds to nearest; the weighted squared error.
  double step_deltas() {
    std::vector<double> errors(at(f_.experts), 0);
    threads_.parallel_for(f_.experts, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t e = begin; e < end; ++e) {
        const std::vector<float> d = delta(e);
        ScaleSearch search;
        search.method = f_.scale_search;
        const QuantTensor q = quantize_rtn(d, f_.rows, f_.cols, f_.args.delta_args(), DType::f16, search);
        const std::span<float> decoded = std::span(decoded_).subspan(at(e * size_), at(size_));
        dequantize(q, decoded);
        for (std::int64_t i = 0; i < size_; ++i) {
          const double difference = double(d[at(i)]) - double(decoded[at(i)]);
          errors[at(e)] += importance(e, i % f_.cols) * difference * difference;
        }
      }
    });
    double sum = 0;
    for (const double error : errors) sum += error;
    return sum;
  }

  double share_of_anchor() const {
    double left = 0, all = 0;
    for (std::int64_t e = 0; e < f_.experts; ++e) {
      for (std::int64_t i = 0; i < size_; ++i) {
        const double w = f_.weights[at(e * size_ + i)], d = w - double(anchor_[at(i)]), h = importance(e, i % f_.cols);
        left += h * d * d;
        all += h * w * w;
      }
    }
    return all > 0 ? 1 - left / all : 0;
  }

  void round_deltas() {
    out_.stack.deltas.resize(at(f_.experts));
    const auto run = [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t e = begin; e < end; ++e) out_.stack.deltas[at(e)] = f_.round(e, delta(e), anchor_);
    };
    if (f_.round_in_parallel) {
      threads_.parallel_for(f_.experts, 1, run);
    } else {
      run(0, f_.experts, 0);
    }
  }

  const AnchorFit& f_;
  ThreadPool& threads_;
  const std::string& where_;
  std::int64_t size_;
  std::vector<float> anchor_;   ///< [N, K] as stored
  std::vector<float> decoded_;  ///< [E, N, K] of the deltas
  FittedAnchor out_;
};

}  // namespace

FittedAnchor fit_anchor(const AnchorFit& fit, ThreadPool& threads, const std::string& where) {
  KEDGE_CHECK(fit.experts > 0 && static_cast<std::int64_t>(fit.weights.size()) == fit.experts * fit.rows * fit.cols);
  KEDGE_CHECK(fit.importance.empty() || static_cast<std::int64_t>(fit.importance.size()) == fit.experts * fit.cols);
  check_args(fit.args, fit.rows, fit.cols, where);
  return Fitter(fit, threads, where).run();
}

}  // namespace kedge
