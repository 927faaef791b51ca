#include "twin/model.h"

#include <fmt/format.h>

#include "kedge/error.h"
#include "model/checkpoint_source.h"
#include "model/family.h"
#include "twin/scope.h"

namespace kedge::twin {

Model::Model(ModelSpec spec, Parameters parameters, const Options& options)
    : spec_(std::move(spec)), options_(options), parameters_(std::move(parameters)) {
  for (int layer = 0; layer < spec_.num_hidden_layers; ++layer) layers_.emplace_back(spec_, layer, options_);
}

Model Model::load(const Checkpoint& checkpoint, const Options& options) {
  ModelSpec spec = model_spec(checkpoint);
  const CheckpointSource source(checkpoint, spec);
  return from_source(spec, source, options);
}

Model Model::from_source(const ModelSpec& spec, const WeightSource& source, const Options& options) {
  return Model(spec, load_parameters(list_parameters(spec), source, options), options);
}

Model Model::random(const ModelSpec& spec, std::uint64_t seed, const Options& options) {
  return Model(spec, random_parameters(list_parameters(spec), seed, options), options);
}

WeightFunction Model::weights() const {
  return [this](const std::string& name) { return parameters_[name]; };
}

Output Model::forward(const Tensor& ids, const Tensor& mask) { return forward(ids, weights(), mask); }

Output Model::forward(const Tensor& ids, const WeightFunction& weights, const Tensor& mask) {
  Output out;
  const Pass pass{mask, &out.routing};
  Tensor h = embed(ids, weights);
  for (Layer& layer : layers_) h = layer.forward(h, weights, pass);
  out.logits = head(h, weights);
  return out;
}

Tensor Model::embed(const Tensor& ids, const WeightFunction& weights) const {
  if (ids.numel() > 0 && (ids.min().item<std::int64_t>() < 0 || ids.max().item<std::int64_t>() >= spec_.vocab_size)) {
    throw Error(ErrorCode::usage, "a token is outside the vocabulary",
                fmt::format("ids from 0 to {}", spec_.vocab_size - 1));
  }
  return at::embedding(weights("model.embed_tokens.weight"), ids.to(options_.device)).to(options_.dtype);
}

Tensor Model::head(const Tensor& h, const WeightFunction& weights) const {
  const Scope scope{weights, options_, ""};
  const Tensor x = scope.rms_norm("model.norm", h, spec_.rms_norm_eps);
  return scope.linear(spec_.tie_word_embeddings ? "model.embed_tokens" : "lm_head", x, false).to(options_.dtype);
}

}  // namespace kedge::twin
