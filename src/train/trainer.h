// A language model under training, step by step; knows no file.
//
// loss = mean over predicted tokens of -ln p + balance_loss * balance + z_loss * z + reconstruction_loss *
// reconstruction (train/router_losses.h); of a masked-diffusion model the first term is that of train/masking.h.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "train/manifold.h"
#include "train/optimizer.h"
#include "train/rounding.h"
#include "train/weights.h"
#include "twin/model.h"

namespace kedge::training {

struct TrainerSettings {
  bool muon = false;
  OptimizerSettings optimizer;
  double clip = 1.0;
  double balance_loss = 0.01, z_loss = 0.001, reconstruction_loss = 0.1;
  std::int64_t round_from = 0;    ///< first step that computes with rounded stacks (train/rounding.h); 0: none does
  std::int64_t resumed_from = 0;  ///< steps that the first weights have behind them
  double bias_update_speed = 0.001;
  std::uint64_t mask_seed = 0;  ///< of a masked-diffusion model's masks
};

struct StepResult {
  double loss = 0;                              ///< -ln p alone, nats per token; masked diffusion: its bound
  double balance_loss = 0, z_loss = 0;          ///< unweighted; NaN without a softmax router
  double reconstruction_loss = 0;               ///< unweighted; NaN without routing by error
  double gradient_norm = 0;                     ///< before clipping
  std::vector<std::vector<std::int64_t>> load;  ///< choices by expert, [E] of each MoE layer
};

struct Evaluation {
  double nll = 0;                               ///< sum of -ln p; masked diffusion: an estimate of its bound
  std::int64_t tokens = 0;                      ///< predicted
  std::vector<std::vector<std::int64_t>> load;  ///< as StepResult's
};

class Trainer {
 public:
  /// first: the weights to start from, by canonical names. compute_dtype and device are read of the options.
  /// ranks: each has a Trainer with the same first weights, which stay the same; null: one rank.
  Trainer(const ModelSpec& spec, const twin::Parameters& first, const TrainerSettings& settings,
          const twin::Options& options, Communicator* ranks = nullptr);
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// ids: [B, T] int64 on the host, T >= 2: this rank's part of the step, as many rows as the others'. step: from 1. A loss or a gradient that is not finite is
  /// Error(unsupported), which says where it is seen first; the weights are then as before the step.
  StepResult step(const at::Tensor& ids, double lr, std::int64_t step);
  /// Adds to the result: -ln p of all tokens but the first of each row, and where the tokens went. Of this rank alone.
  void evaluate(const at::Tensor& ids, Evaluation& result);

  /// Puts the first weights on their manifolds, where the spec has any. Not for weights that were trained there: it
  /// could move them by a rounding.
  void place_on_manifolds() { manifolds_.place(); }
  /// Whether the last step, and so what evaluate() measures, was computed with rounded stacks.
  bool rounds() const noexcept { return rounds_; }

  const ModelSpec& spec() const noexcept { return model_.spec(); }
  Weights& weights() noexcept { return weights_; }
  const Weights& weights() const noexcept { return weights_; }
  Optimizer& optimizer() noexcept { return optimizer_; }
  const Optimizer& optimizer() const noexcept { return optimizer_; }

 private:
  struct Pass {
    twin::Output output;
    at::Tensor loss;  ///< nats per token
  };
  /// first_row: where the rows' masks come from.
  Pass forward(const at::Tensor& ids, std::int64_t first_row);
  twin::WeightFunction current_weights() const;
  void average_gradients();
  double gradient_norm();
  [[noreturn]] void refuse_not_finite(const at::Tensor& ids, double loss, std::int64_t step);

  TrainerSettings settings_;
  std::unique_ptr<Communicator> alone_;
  Communicator& ranks_;
  Weights weights_;
  ManifoldWeights manifolds_;
  Optimizer optimizer_;
  twin::Model model_;
  std::map<std::string, AnchorDeltaArgs> stacks_;
  bool rounds_ = false;
};

}  // namespace kedge::training
