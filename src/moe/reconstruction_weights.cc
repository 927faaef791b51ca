#include "moe/reconstruction_weights.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "kedge/error.h"

namespace kedge {
namespace {

/// A projection of all experts, and who owns what it is.
struct Projection {
  std::vector<float> plain;
  std::shared_ptr<const AnchorDelta> shared;
  ExpertMatrices view() const { return shared ? ExpertMatrices{{}, shared.get()} : ExpertMatrices{plain, nullptr}; }
};

std::vector<float> read_matrix(const WeightSource& source, const std::string& module, std::int64_t rows,
                               std::int64_t cols) {
  const Tensor matrix = to_float_matrix(source.weight(module, rows, cols), module);
  std::vector<float> out(matrix.data<float>(), matrix.data<float>() + matrix.size());
  source.done(module);
  return out;
}

Projection read_projection(const WeightSource& source, const std::string& experts, const char* name, std::int64_t count,
                           const Shape& shape) {
  Projection out;
  out.shared = source.stack(experts + "." + name);
  if (out.shared) return out;
  const std::int64_t size = shape[0] * shape[1];
  out.plain.resize(static_cast<std::size_t>(count * size));
  for (std::int64_t e = 0; e < count; ++e) {
    const std::string module = experts + "." + std::to_string(e) + "." + name;
    const std::vector<float> one = read_matrix(source, module, shape[0], shape[1]);
    std::copy(one.begin(), one.end(), out.plain.begin() + e * size);
  }
  return out;
}

float read_temperature(const WeightSource& source, const std::string& prefix, const ErrorRouterSpec& spec) {
  const std::string name = prefix + ".gate.log_temperature";
  const double value = source.vector(name, 1)[0];
  const auto temperature = static_cast<float>(double{spec.temperature} * std::exp(value));
  if (temperature > 0 && std::isfinite(temperature)) return temperature;
  throw Error(ErrorCode::bad_file, name + " is " + std::to_string(value), "a number whose exponential is a temperature",
              "train the model again, or from an earlier checkpoint");
}

}  // namespace

ReconstructionMoeBlock load_reconstruction_moe(const WeightSource& source, const std::string& prefix,
                                               const ReconstructionMoe& spec, const LoadOptions& options) {
  check_error_router(spec.router);
  const std::int64_t experts = spec.router.num_experts, r = spec.router.bottleneck, d = spec.router.hidden_size;
  const std::vector<float> encoders = read_matrix(source, prefix + ".gate", experts * r, d);
  std::vector<float> decoders;
  if (!spec.router.tied) decoders = read_matrix(source, prefix + ".gate.decoder", experts * d, r);
  Projection gate, up, down;
  if (spec.output == ExpertOutput::ffn) {
    const std::string name = prefix + ".experts";
    const std::int64_t f = spec.intermediate_size;
    if (spec.gated) gate = read_projection(source, name, "gate_proj", experts, {f, d});
    up = read_projection(source, name, "up_proj", experts, {f, d});
    down = read_projection(source, name, "down_proj", experts, {d, f});
    source.done(name);
  }
  const ReconstructionMoeWeights weights{{encoders, nullptr}, {decoders, nullptr}, gate.view(), up.view(), down.view()};
  ReconstructionMoe own = spec;
  if (spec.router.trained_temperature) own.router.temperature = read_temperature(source, prefix, spec.router);
  return ReconstructionMoeBlock::load(own, weights, AnchorForm::fused, options);
}

}  // namespace kedge
