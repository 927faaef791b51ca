// The classifiers of model/classifier.h with gradients, and what only training has: dropout, noise on the router's
// logits, a capacity, the balance loss.
//
// Training, B images in a step, E experts, k of them per image:
//   z = gate h + noise,  noise ~ N(0, 1) per image and expert;  p = softmax(z);  the k largest z are chosen
//   capacity C = int(capacity_factor B k / E): of an expert's images the first C are computed, the others pass it by
//   balance = E sum_e f_e mean_b p_be,  f_e the share of choices that e got (before the capacity)
// Routed by reconstruction error (err_e of expert e's autoencoder, temperature T; moe/error_router.h):
//   z = -err / T, no noise;  p = softmax(z);  gates are the softmax over the chosen z alone
//   reconstruction = mean over images of the mean error of the chosen experts
// Switch Transformer, arXiv 2101.03961, sections 2.2 and 2.3: the gate stays the probability among all experts, so that
// with k = 1 the router has a gradient; balance is differentiable in p and 1 where all experts are used alike.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "model/classifier.h"
#include "tensor/tensor.h"
#include "twin/tensor.h"

namespace kedge::training {

struct MnistNetworkSettings {
  double dropout = 0;          ///< of the layers before the last
  double capacity_factor = 0;  ///< 0: no limit
  bool noisy_gating = false;
};

struct MnistOutput {
  at::Tensor logits;               ///< [B, classes]
  at::Tensor balance;              ///< scalar; undefined without a router
  at::Tensor reconstruction;       ///< scalar; undefined unless routed by error
  std::vector<std::int64_t> load;  ///< [E] choices
  std::int64_t over_capacity = 0;  ///< choices that were not computed
};

class MnistNetwork {
 public:
  /// Weights and biases uniform in +-1 / sqrt(inputs), as torch.nn.Linear begins.
  MnistNetwork(const ClassifierSpec& spec, std::uint64_t seed);

  /// x: [B, inputs]. rng: of dropout and noise; not read where the settings have neither.
  MnistOutput forward(const at::Tensor& x, const MnistNetworkSettings& settings, Rng& rng) const;

  /// All weights, and their gradients, in one tensor each.
  const at::Tensor& flat_values() const noexcept { return values_; }
  const at::Tensor& flat_gradients() const noexcept { return gradients_; }
  /// By the names of the file ("moe.experts.2.fc1.weight"); views.
  std::vector<std::pair<std::string, at::Tensor>> parameters() const;
  std::vector<std::pair<std::string, at::Tensor>> gradients() const;
  const ClassifierSpec& spec() const noexcept { return spec_; }

 private:
  struct Leaf {
    std::string name;  ///< "fc1.weight"; of all experts: "moe.experts.fc1.weight"
    Shape shape;       ///< [out, in], [out]; of all experts [E, out, in], [E, 1, out]
    std::int64_t offset = 0;
    std::int64_t inputs = 0;
    at::Tensor value;
  };
  const at::Tensor& leaf(const std::string& name) const;
  std::vector<std::pair<std::string, at::Tensor>> by_file_name(const at::Tensor& flat) const;
  at::Tensor linear(const at::Tensor& x, const std::string& module) const;
  at::Tensor router_logits(const at::Tensor& h, const MnistNetworkSettings& settings, Rng& rng) const;
  at::Tensor forward_moe(const at::Tensor& h, const MnistNetworkSettings& settings, Rng& rng, MnistOutput& out) const;

  ClassifierSpec spec_;
  std::vector<Leaf> leaves_;
  at::Tensor values_, gradients_;
};

/// config.json and model.safetensors, in fp32, into a folder that is there. Error(io).
void write_mnist_model(const MnistNetwork& network, const std::filesystem::path& folder);

/// int(factor B k / E), at least 1; without a limit B.
std::int64_t expert_capacity(double factor, std::int64_t batch, std::int64_t top_k, std::int64_t experts);

}  // namespace kedge::training
