// Small image classifiers, inference: a dense network, or one with a MoE layer in the middle, whose router is learned
// or goes by reconstruction error.
//
//   ffn:  z = fc3 relu(fc2 relu(fc1 x))
//   moe:  h = relu(fc1 x);  z = fc2 (h + moe(h)),  moe(h) = sum over the k chosen experts e of p[e] E_e(h),
//         p = softmax(gate h) over all experts, not normalised again; E_e = fc2 relu(fc1 h)  (moe/mlp_experts.h)
//   mcqsmoe:  as moe, with the k experts that reconstruct h best (moe/error_router.h: tied linear autoencoders, squared
//             errors over ||h||^2) and softmin weights among these
// All layers but the autoencoders have biases; x is (grey / 255 - image_mean) / image_std. Capacity limits belong to
// training: here every token gets its experts, so that an image's result does not depend on its batch.
//
// A model is a directory: config.json with "model_type": "kedge_mnist", model.safetensors with the parameters
// "fc1.weight", "moe.gate.weight", "moe.experts.0.fc1.weight", ... (docs/formats/mnist.md). Quantized ones are
// compressed-tensors'. With quantized inputs the products read int8 rows, else fp32 ones; the router is always fp32.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/checkpoint.h"
#include "moe/mlp_experts.h"
#include "moe/reconstruction_router.h"
#include "moe/router.h"
#include "nn/linear.h"

namespace kedge {

inline constexpr const char* kClassifierModelType = "kedge_mnist";

enum class ClassifierNetwork { ffn, moe, mcqsmoe };
const char* network_name(ClassifierNetwork network) noexcept;  ///< "ffn", "moe", "mcqsmoe"
ClassifierNetwork parse_network(const std::string& name);      ///< Error(usage)

struct ClassifierSpec {
  ClassifierNetwork network = ClassifierNetwork::ffn;
  std::int64_t image_size = 28;  ///< rows and columns
  std::int64_t num_classes = 10;
  double image_mean = 0.1307, image_std = 0.3081;       ///< of the training images' grey levels over 255
  std::vector<std::int64_t> hidden_sizes = {256, 128};  ///< outputs of the layers but the last; a MoE has one
  std::int64_t moe_intermediate_size = 256;             ///< with a MoE only
  RouterSpec router;                                    ///< with a MoE only; mcqsmoe: its numbers of experts
  std::int64_t router_bottleneck = 32;                  ///< mcqsmoe only, as what follows
  float router_temperature = 0.1f;

  std::int64_t num_inputs() const noexcept { return image_size * image_size; }
  bool has_moe() const noexcept { return network != ClassifierNetwork::ffn; }
  bool routes_by_error() const noexcept { return network == ClassifierNetwork::mcqsmoe; }
};
/// The router of mcqsmoe.
ErrorRouterSpec error_router(const ClassifierSpec& spec) noexcept;

/// The networks of the MNIST report: 784-256-128-10, and 784-256, four experts 256-256-256, 256-10 (moe and mcqsmoe).
ClassifierSpec mnist_spec(ClassifierNetwork network, std::int64_t top_k);

/// A matrix, mostly with its bias: "<module>.weight" [rows, cols], "<module>.bias" [rows].
struct ClassifierLinear {
  std::string module;
  std::int64_t rows = 0, cols = 0;
  int expert = -1;
  bool router = false;
  bool bias = true;
};
/// In execution order, expert by expert.
std::vector<ClassifierLinear> list_linears(const ClassifierSpec& spec);
std::int64_t count_parameters(const ClassifierSpec& spec);
/// Those that one image meets.
std::int64_t count_active_parameters(const ClassifierSpec& spec);
/// Multiplications and additions of the products for one image.
std::int64_t count_flops(const ClassifierSpec& spec);

/// Is this config.json a classifier's?
bool is_classifier(const nlohmann::ordered_json& config);
/// Error(bad_file), Error(unsupported).
ClassifierSpec classifier_spec(const nlohmann::ordered_json& config, const std::string& where);
nlohmann::ordered_json classifier_config(const ClassifierSpec& spec);

/// grey levels [count, inputs] -> x.
void normalize_images(const ClassifierSpec& spec, const unsigned char* grey, std::int64_t count, float* x);

class Classifier {
 public:
  /// options.activations is the checkpoint's matter: int8 where it quantizes inputs, else fp32. Errors as Checkpoint's.
  static Classifier load(const Checkpoint& checkpoint, LoadOptions options);
  /// The same weights under another spec: other experts per image.
  static Classifier load(const Checkpoint& checkpoint, const ClassifierSpec& spec, LoadOptions options);
  static Classifier open(const std::filesystem::path& directory, const LoadOptions& options);

  /// x: [rows, inputs]; logits: [rows, classes]. The probe sees routing (layer 0) and every linear's input.
  void forward(const ExecContext& ctx, const float* x, std::int64_t rows, float* logits) const;

  const ClassifierSpec& spec() const noexcept { return spec_; }
  std::size_t num_bytes() const noexcept;

 private:
  void forward_moe(const ExecContext& ctx, float* h, std::int64_t rows) const;
  struct Choice {
    const std::int32_t* ids;
    const float* weights;
  };
  Choice choose(const ExecContext& ctx, const float* h, std::int64_t rows) const;
  Choice choose_by_error(const ExecContext& ctx, const float* h, std::int64_t rows) const;

  ClassifierSpec spec_;
  struct Layer {
    Linear linear;
    std::vector<float> bias;
  };
  std::vector<Layer> layers_;
  Layer router_;
  ReconstructionRouter error_router_;
  MlpExperts experts_;
  Isa isa_ = Isa::scalar;
};

}  // namespace kedge
