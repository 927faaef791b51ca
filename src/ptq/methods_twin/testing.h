// Shared by this folder's tests: one layer of a model on disk, ready to be tuned.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/rng.h"
#include "model/checkpoint_source.h"
#include "ptq/layers/layer.h"
#include "ptq/methods_twin/layer_tuning.h"

namespace kedge::testing {

inline const std::filesystem::path kDemo = KEDGE_SOURCE_DIR "/models/demo-4m";
inline const std::filesystem::path kGoldens = KEDGE_SOURCE_DIR "/tests/goldens/hf";

inline Recipe recipe_for(const std::string& method, const std::string& scheme) {
  Recipe recipe{parse_scheme(scheme), method, {}, {}, {}, {}, {}};
  const TunePreset& preset = tune_preset(method);
  recipe.tune.objective = parse_objective(preset.objective);
  recipe.tune.router = preset.router;
  recipe.tune.device = "cpu";
  recipe.tune.iters = 8;
  recipe.tune.batch_size = 2;
  return recipe;
}

/// A layer with random hidden states on either path, a little apart.
struct LayerSubject {
  LayerSubject(const std::filesystem::path& folder, int layer_index, Recipe recipe_in, std::int64_t sequences = 4,
               std::int64_t seqlen = 24)
      : checkpoint(Checkpoint::open(folder)),
        spec(model_spec(checkpoint)),
        source(checkpoint, spec),
        recipe(std::move(recipe_in)),
        plan(plan_quantization(checkpoint, recipe, 1'000'000'000)),
        threads(1),
        original(sequences, seqlen, spec.hidden_size),
        quantized(sequences, seqlen, spec.hidden_size),
        input{spec, layer_index, source, {}, recipe, {detect_isa(), Numerics::consistent, Activations::fp32}, threads,
              {},   nullptr} {
    set_quiet(true);
    for (const PlannedModule& module : plan.modules) {
      if (module.linear.layer == layer_index) input.modules.push_back(&module);
    }
    Rng rng(7);
    for (std::int64_t i = 0; i < original.rows() * spec.hidden_size; ++i) {
      original.row(0)[i] = static_cast<float>(rng.normal());
      quantized.row(0)[i] = original.row(0)[i] + static_cast<float>(0.01 * rng.normal());
    }
  }

  std::unique_ptr<LayerTuning> tuning(const twin::Options& options = {}) const {
    return std::make_unique<LayerTuning>(input, original, quantized, options);
  }
  LayerOutput run(const twin::Options& options = {}) const { return tuning(options)->run(); }

  Checkpoint checkpoint;
  ModelSpec spec;
  CheckpointSource source;
  Recipe recipe;
  QuantPlan plan;
  ThreadPool threads;
  HiddenStates original, quantized;
  LayerInput input;
};

inline bool same_weights(const LayerOutput& a, const LayerOutput& b) {
  if (a.weights.size() != b.weights.size() || a.weights.empty()) return false;
  for (const auto& [module, q] : a.weights) {
    const auto at = b.weights.find(module);
    if (at == b.weights.end() || at->second.codes != q.codes || at->second.scales != q.scales ||
        at->second.zeros != q.zeros) {
      return false;
    }
  }
  return true;
}

}  // namespace kedge::testing
