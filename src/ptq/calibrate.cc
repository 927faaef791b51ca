#include "ptq/calibrate.h"

#include <memory>
#include <optional>

#include <fmt/format.h>

#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "kedge/error.h"
#include "model/checkpoint_source.h"
#include "nn/embedding.h"
#include "ptq/layers/output_metric.h"
#include "ptq/methods.h"

namespace kedge {
namespace {

std::unique_ptr<HiddenStates> embed(const CalibratedRun& run, const WeightSource& source, const ModelSpec& spec) {
  auto states = std::make_unique<HiddenStates>(static_cast<std::int64_t>(run.data.sequences.size()), run.data.seqlen,
                                               spec.hidden_size, run.cache_dir);
  const Embedding embedding = Embedding::load(source, "model.embed_tokens", spec.vocab_size, spec.hidden_size);
  Arena arena;
  const ExecContext ctx{run.threads, arena};
  for (std::int64_t s = 0; s < states->sequences(); ++s) {
    embedding.forward(ctx, run.data.sequences[static_cast<std::size_t>(s)], states->row(s * run.data.seqlen));
  }
  return states;
}

void drop_layer(const CalibratedRun& run, int layer) {
  for (const PlannedModule& module : run.plan.modules) {
    if (module.linear.layer == layer) run.checkpoint.drop(module.linear.module);
  }
}

std::map<std::string, DType, std::less<>> kept_tensors(const CalibratedRun& run, int layer) {
  const ModelFamily& family = family_of(run.checkpoint.config(), (run.checkpoint.directory() / "config.json").string());
  std::map<std::string, DType, std::less<>> kept;
  for (const TensorInfo& tensor : run.plan.copies) {
    std::string name = to_canonical_name(family, tensor.name);
    if (name.starts_with(fmt::format("model.layers.{}.", layer))) kept.emplace(std::move(name), tensor.dtype);
  }
  return kept;
}

/// Which layers are finished, by rank 0: before it goes on, so that all ranks replay the same ones.
std::vector<bool> finished_layers(const CalibratedRun& run, const LayerStore& store, int layers) {
  std::string marks;
  for (int layer = 0; layer < layers; ++layer) marks += store.has(layer) ? 'x' : '.';
  if (run.ranks != nullptr) marks = run.ranks->broadcast(marks);
  std::vector<bool> out;
  for (const char mark : marks) out.push_back(mark == 'x');
  return out;
}

std::string detail(const Json& log) {
  std::string text = fmt::format("states {:.2f} % off", 100 * log.value("state_error", 0.0));
  if (const auto refit = log.find("router_refit"); refit != log.end()) {
    text += fmt::format(", router refit: agreement {:.4f} -> {:.4f}", refit->value("agreement_before", 0.0),
                        refit->value("agreement_after", 0.0));
  }
  return text;
}

}  // namespace

void warn_of_layer(int layer, const Json& log, const Recipe& recipe) {
  const auto starved = log.find("starved_experts");
  if (starved == log.end()) return;
  const bool on_all = recipe.parameters.expert_fallback == ExpertFallback::all_tokens &&
                      find_quant_method(recipe.method).needs == MethodNeeds::calibration;
  warn(fmt::format("layer {}: {} experts see fewer than {} calibration tokens and {}", layer, starved->get<int>(),
                   recipe.parameters.min_expert_tokens,
                   on_all ? "are calibrated on all tokens" : "are rounded to nearest where they see none"));
}

int quantize_layers(const CalibratedRun& run, LayerStore& store) {
  const ModelSpec spec = model_spec(run.checkpoint);
  const CheckpointSource source(run.checkpoint, spec);
  const std::unique_ptr<HiddenStates> original = embed(run, source, spec), quantized = embed(run, source, spec);
  const LoadOptions options{detect_isa(), Numerics::consistent, Activations::fp32};
  std::optional<OutputMetric> metric;
  if (find_quant_method(run.recipe.method).shaped) {
    note("measuring what errors cost later routers and the prediction");
    const std::unique_ptr<HiddenStates> states = embed(run, source, spec);
    metric.emplace(OutputMetric::Input{spec, source, options, run.threads, run.recipe.parameters.routing_weight,
                                       run.data.seed, [&](int layer) { drop_layer(run, layer); }, run.ranks},
                   *states);
  }
  Progress progress("quantizing", spec.num_hidden_layers, "layers");
  const std::vector<bool> finished = finished_layers(run, store, spec.num_hidden_layers);
  const bool writes = run.ranks == nullptr || run.ranks->is_root();
  int replayed = 0;
  for (int layer = 0; layer < spec.num_hidden_layers; ++layer) {
    throw_if_interrupted();
    LayerInput input{spec, layer, source, {}, run.recipe, options, run.threads, kept_tensors(run, layer),
                     metric ? &*metric : nullptr};
    input.ranks = run.ranks;
    for (const PlannedModule& module : run.plan.modules) {
      if (module.linear.layer == layer) input.modules.push_back(&module);
    }
    const bool done = finished[static_cast<std::size_t>(layer)];
    const LayerOutput output =
        done ? store.read(layer) : quantize_layer(input, *original, *quantized, run.tuner);
    if (done) {
      replay_layer(input, output, *original, *quantized);
      ++replayed;
    } else if (writes) {
      store.write(layer, output);
    }
    const Json log = parse_json(output.log, "a layer's log");
    if (writes) warn_of_layer(layer, log, run.recipe);
    progress.update(layer + 1, detail(log));
    drop_layer(run, layer);
  }
  progress.finish();
  return replayed;
}

CalibrationData share_of(const CalibrationData& data, const Communicator& ranks) {
  const auto count = static_cast<std::int64_t>(data.sequences.size()), size = std::int64_t{ranks.size()};
  if (count < size) {
    throw Error(ErrorCode::usage, fmt::format("{} calibration sequences for {} ranks", count, size),
                "a sequence or more for each", "give a larger --nsamples or fewer ranks");
  }
  std::vector<std::int64_t> own;
  for (std::int64_t s = count * ranks.rank() / size; s < count * (ranks.rank() + 1) / size; ++s) own.push_back(s);
  CalibrationData out = select_sequences(data, own);
  out.balanced = data.balanced;
  return out;
}

}  // namespace kedge
