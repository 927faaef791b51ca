#include "audit/recorder.h"

#include <algorithm>

#include "base/check.h"

namespace kedge {

LoadOptions parse_load_options(const RuntimeOptions& runtime) {
  return {parse_isa(runtime.isa), parse_numerics(runtime.numerics), parse_activations(runtime.activations)};
}

MoeRouters moe_routers(const ModelSpec& spec) {
  MoeRouters routers;
  for (int layer : spec.moe_layers()) routers.emplace_back(layer, spec.router(layer));
  return routers;
}

Recorder::Recorder(const DecoderModel& model, ThreadPool& threads, std::int64_t max_tokens, bool hidden_states)
    : model_(model), threads_(threads), routers_(moe_routers(model.spec())), state_(model.spec(), max_tokens) {
  options_.hidden_states = hidden_states;
  options_.hidden_size = model.spec().hidden_size;
  options_.num_layers = model.spec().num_hidden_layers;
}

void Recorder::start(std::int64_t tokens) {
  KEDGE_CHECK(tokens <= state_.capacity());
  state_.truncate(0);
  probe_.emplace(routers_, tokens, options_);
}

void Recorder::append(std::span<const std::int32_t> tokens, float* logits) {
  probe_->set_rows(state_.length(), static_cast<std::int64_t>(tokens.size()));
  const Segment segment{&state_, tokens};
  const ExecContext ctx{threads_, scratch_, &*probe_};
  model_.forward(ctx, std::span(&segment, 1), logits ? LogitRows::all : LogitRows::none, logits);
}

LocalRunner::LocalRunner(const DecoderModel& model, ThreadPool& threads, std::int64_t max_tokens)
    : model_(model), threads_(threads), routers_(moe_routers(model.spec())), state_(model.spec(), max_tokens) {
  h_.resize(static_cast<std::size_t>(max_tokens * model.spec().hidden_size));
}

std::vector<LayerTrace> LocalRunner::run(std::span<const std::int32_t> tokens, const RoutingTrace& source) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  RecordingProbe probe(routers_, count);
  probe.set_rows(0, count);
  const Segment segment{&state_, tokens};
  const ExecContext ctx{threads_, scratch_, &probe};
  for (const auto& [layer, router] : routers_) {
    const Tensor& input = source.extra.at("hidden_states." + std::to_string(layer));
    KEDGE_CHECK(input.size() == count * model_.spec().hidden_size);
    std::copy_n(input.data<float>(), input.size(), h_.data());
    model_.forward_layer(ctx, layer, std::span(&segment, 1), h_.data());
  }
  return std::move(probe.trace().layers);
}

}  // namespace kedge
