#include "ptq/anchor/fit_stacks.h"

#include <map>
#include <set>

#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "model/checkpoint_source.h"
#include "ptq/anchor/stack_quantizer.h"

namespace kedge {
namespace {

LayerOutput fit_layer(const LayerInput& input, const QuantPlan& plan) {
  Arena arena;
  const ExecContext ctx{input.threads, arena};
  LayerOutput out;
  Json log = Json::object();
  OverlaySource aligned(input.source);
  align_layer(input, ctx, aligned, log);
  OverlaySource overlay(static_cast<const WeightSource&>(aligned));
  for (const PlannedStack& stack : plan.stacks) {
    if (stack.layer != input.layer) continue;
    throw_if_interrupted();
    StackJob job;
    for (const std::size_t i : stack.modules) job.modules.push_back(&plan.modules[i]);
    quantize_stack(input, ctx, job, overlay, out, log);
  }
  out.log = log.dump();
  return out;
}

}  // namespace

void fit_stacks(const Checkpoint& checkpoint, const QuantPlan& plan, const Recipe& recipe, ThreadPool& threads,
                LayerStore& store) {
  const ModelSpec spec = model_spec(checkpoint);
  const CheckpointSource source(checkpoint, spec);
  const LoadOptions options{detect_isa(), Numerics::consistent, Activations::fp32};
  Progress progress("fitting anchors", spec.num_hidden_layers, "layers");
  for (int layer = 0; layer < spec.num_hidden_layers; ++layer) {
    throw_if_interrupted();
    LayerInput input{spec, layer, source, {}, recipe, options, threads, {}, nullptr};
    for (const PlannedModule& module : plan.modules) {
      if (module.linear.layer == layer) input.modules.push_back(&module);
    }
    if (!store.has(layer)) store.write(layer, fit_layer(input, plan));
    progress.update(layer + 1);
    for (const PlannedModule* module : input.modules) {
      if (module->anchor) checkpoint.drop(module->linear.module);
    }
  }
  progress.finish();
}

}  // namespace kedge
