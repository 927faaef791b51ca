#include "model/checkpoint_source.h"

#include <fmt/format.h>

#include "kedge/error.h"

namespace kedge {
namespace {

/// A checkpoint with experts that config.json does not count would run, and run wrongly.
void check_expert_count(const Checkpoint& checkpoint, const ModelFamily& family, const ModelSpec& spec) {
  for (const int layer : spec.moe_layers()) {
    const std::int64_t experts = spec.router(layer).num_experts;
    const std::string prefix = fmt::format("model.layers.{}.mlp.experts", layer);
    const std::string beyond = fmt::format("{}.{}.down_proj", prefix, experts);
    if (checkpoint.has_weight(to_file_name(family, beyond)) || checkpoint.has_weight(beyond)) {
      throw Error(ErrorCode::bad_file,
                  fmt::format("layer {} of {} holds more experts than config.json says", layer,
                              checkpoint.directory().string()),
                  fmt::format("{} experts", experts));
    }
    for (const char* part : {".gate_proj", ".up_proj", ".down_proj"}) {
      const std::optional<StackShape> stack = checkpoint.stack_shape(prefix + part);
      if (!stack || stack->experts == experts) continue;
      throw Error(
          ErrorCode::bad_file,
          fmt::format("{}{} of {} holds {} experts", prefix, part, checkpoint.directory().string(), stack->experts),
          fmt::format("{} experts by config.json", experts));
    }
    const std::string fused = prefix + ".down_proj";
    if (!checkpoint.has(fused)) continue;
    const TensorView tensor = checkpoint.tensor(fused);
    if (tensor.shape.size() != 3 || tensor.shape[0] != experts) {
      throw Error(ErrorCode::bad_file, "tensor '" + fused + "' has the shape " + shape_string(tensor.shape),
                  fmt::format("{} experts in the first dimension of three", experts));
    }
  }
}

}  // namespace

CheckpointSource::CheckpointSource(const Checkpoint& checkpoint, const ModelSpec& spec)
    : checkpoint_(checkpoint),
      family_(family_of(checkpoint.config(), (checkpoint.directory() / "config.json").string())) {
  if (checkpoint.input_activations() != InputActivations::none) {
    throw Error(ErrorCode::unsupported, checkpoint.directory().string() + " has quantized input activations",
                "a language model whose weights alone are quantized",
                "quantize the original with w8a16-channel and run it with --activations int8");
  }
  check_expert_count(checkpoint, family_, spec);
}

WeightData CheckpointSource::weight(const std::string& module, std::int64_t rows, std::int64_t cols) const {
  LinearRef linear;
  linear.canonical = module;
  linear.module = to_file_name(family_, module);
  linear.rows = rows;
  linear.cols = cols;
  return load_linear(checkpoint_, linear);
}

std::shared_ptr<const AnchorDelta> CheckpointSource::stack(const std::string& name) const {
  if (!checkpoint_.stack_shape(name)) return nullptr;
  return std::make_shared<const AnchorDelta>(checkpoint_.stack(name));
}

std::string CheckpointSource::tensor_name(const std::string& canonical) const {
  std::string name = to_file_name(family_, canonical);
  return !checkpoint_.has(name) && checkpoint_.has(canonical) ? canonical : name;
}

std::vector<float> CheckpointSource::vector(const std::string& name, std::int64_t size) const {
  const std::string file_name = tensor_name(name);
  const TensorView tensor = checkpoint_.tensor(file_name, {size});
  if (!is_convertible_float(tensor.dtype)) {
    throw Error(ErrorCode::bad_file, "tensor '" + file_name + "' has the element type " + dtype_name(tensor.dtype),
                "F32, BF16, F16 or F64");
  }
  std::vector<float> out(static_cast<std::size_t>(size));
  convert_to_float(tensor.dtype, tensor.data, size, out.data());
  return out;
}

void CheckpointSource::done(const std::string& module) const noexcept {
  checkpoint_.drop(to_file_name(family_, module));
  if (module.ends_with(".experts")) {
    checkpoint_.drop(module + ".gate_up_proj");
    checkpoint_.drop(module + ".down_proj");
  }
}

}  // namespace kedge
