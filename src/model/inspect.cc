#include "kedge/inspect.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <variant>

#include <fmt/format.h>

#include "kedge/error.h"
#include "model/decoder.h"
#include "model/family.h"

namespace kedge {
namespace {

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

using TensorMap = std::map<std::string, const TensorInfo*, std::less<>>;

/// How a matrix is stored and in how many bytes; the tensors that hold it are marked.
struct Stored {
  std::string form;
  std::uint64_t bytes = 0;
};

/// An expert's share of a stack with an anchor.
std::optional<Stored> stored_stack(const Checkpoint& checkpoint, const LinearRef& linear, const TensorMap& tensors,
                                   std::set<std::string, std::less<>>& seen) {
  if (linear.role != LinearRole::expert) return std::nullopt;
  const std::string stack = stack_name(linear);
  const std::optional<StackShape> shape = checkpoint.stack_shape(stack);
  if (!shape) return std::nullopt;
  std::uint64_t bytes = 0;
  for (auto at = tensors.lower_bound(stack + "."); at != tensors.end() && at->first.starts_with(stack + "."); ++at) {
    seen.insert(at->first);
    bytes += at->second->end - at->second->begin;
  }
  const auto experts = static_cast<std::uint64_t>(shape->experts);
  const std::uint64_t share = bytes / experts + (linear.expert == 0 ? bytes % experts : 0);
  return Stored{scheme_name(shape->args.delta_args(), {shape->args.anchor_dtype, shape->args.manifold}), share};
}

Stored stored_form(const Checkpoint& checkpoint, const LinearRef& linear, const TensorMap& tensors,
                   std::set<std::string, std::less<>>& seen) {
  if (const std::optional<Stored> stack = stored_stack(checkpoint, linear, tensors, seen)) return *stack;
  std::uint64_t bytes = 0;
  for (const std::string& name : {linear.module, linear.canonical}) {  // in load_linear's order
    const std::string prefix = name + ".weight";
    for (auto at = tensors.lower_bound(prefix); at != tensors.end() && at->first.starts_with(prefix); ++at) {
      seen.insert(at->first);
      bytes += at->second->end - at->second->begin;
    }
    if (bytes > 0) break;
  }
  if (const auto args = checkpoint.quant_args(linear.module)) return {scheme_name(*args), bytes};
  const WeightData data = load_linear(checkpoint, linear);
  if (const auto* quantized = std::get_if<QuantTensor>(&data)) return {scheme_name(quantized->args), bytes};
  const auto& view = std::get<TensorView>(data);
  if (bytes == 0) {  // a slice of a tensor that holds all experts
    const std::string name = linear.canonical.substr(0, linear.canonical.rfind(".experts.")) + ".experts.";
    for (auto at = tensors.lower_bound(name); at != tensors.end() && at->first.starts_with(name); ++at) {
      if (at->second->shape.size() == 3) seen.insert(at->first);
    }
  }
  return {lower(dtype_name(view.dtype)), view.num_bytes()};
}

void describe_blocks(const ModelSpec& spec, InspectReport& report) {
  for (const BlockSpec& block : spec.blocks) {
    if (const auto* gqa = std::get_if<Attention>(&block.mixer)) {
      report.attention = fmt::format("{} heads of {}, {} key-value heads", gqa->num_attention_heads, gqa->head_dim,
                                     gqa->num_key_value_heads);
      if (gqa->sliding_window > 0) report.attention += fmt::format(", window {}", gqa->sliding_window);
    } else if (const auto* mla = std::get_if<Mla>(&block.mixer)) {
      report.attention =
          fmt::format("latent: {} heads, query rank {}, key-value rank {} + {} rotary", mla->num_attention_heads,
                      mla->q_lora_rank, mla->kv_lora_rank, mla->qk_rope_head_dim);
    } else if (const auto* moe = std::get_if<Moe>(&block.mixer)) {
      const RouterSpec& router = moe->router;
      report.experts = router.num_experts;
      report.experts_per_token = router.num_experts_per_tok;
      report.expert_intermediate_size = moe->moe_intermediate_size;
      report.shared_expert_intermediate_size = moe->shared_expert_intermediate_size;
      report.router = fmt::format(
          "{} over {}, {} per token{}", router.scoring_func == ScoringFunc::softmax ? "softmax" : "sigmoid",
          router.num_experts, router.num_experts_per_tok, router.norm_topk_prob ? ", weights normalised" : "");
      if (router.n_group > 1) report.router += fmt::format(", best {} of {} groups", router.topk_group, router.n_group);
    } else if (const auto* by_error = std::get_if<ReconstructionMoe>(&block.mixer)) {
      const ErrorRouterSpec& router = by_error->router;
      report.experts = router.num_experts;
      report.experts_per_token = router.slots();
      report.expert_intermediate_size = by_error->intermediate_size;
      report.router = router.is_learned() ? fmt::format("softmax over the selected of {}", router.num_experts)
                                          : fmt::format("{} error of {} autoencoders of {}, temperature {}",
                                                        error_measure_name(router.measure), router.num_experts,
                                                        router.bottleneck, router.temperature);
    }
  }
}

void count(const Checkpoint& checkpoint, const ModelSpec& spec, InspectReport& report) {
  TensorMap tensors;
  for (const TensorInfo& tensor : checkpoint.tensors()) tensors[tensor.name] = &tensor;
  std::set<std::string, std::less<>> seen;
  std::map<std::tuple<int, std::string>, InspectGroup> groups;
  const ModelFamily& family = family_of(checkpoint.config(), (checkpoint.directory() / "config.json").string());
  double idle = 0;  // expert weights that one token does not use
  for (const LinearRef& linear : list_linears(spec, family)) {
    const Stored stored = stored_form(checkpoint, linear, tensors, seen);
    InspectGroup& group = groups[{static_cast<int>(linear.role), stored.form}];
    const std::int64_t weights = linear.rows * linear.cols;
    group.role = linear_role_name(linear.role);
    group.form = stored.form;
    ++group.modules;
    group.weights += weights;
    group.bytes += stored.bytes;
    if (linear.role == LinearRole::expert) {
      const RouterSpec router = spec.router(linear.layer);
      idle += double(weights) * (1.0 - double(router.num_experts_per_tok) / double(router.num_experts));
    }
  }
  for (auto& [key, group] : groups) report.groups.push_back(std::move(group));
  std::map<std::string, InspectGroup> others;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (seen.contains(tensor.name)) continue;
    InspectGroup& other = others[lower(dtype_name(tensor.dtype))];
    other.role = "other";
    other.form = lower(dtype_name(tensor.dtype));
    ++other.modules;
    other.weights += num_elements(tensor.shape);
    other.bytes += tensor.end - tensor.begin;
  }
  for (auto& [form, group] : others) report.groups.push_back(std::move(group));

  std::uint64_t bytes = 0;
  for (const InspectGroup& group : report.groups) {
    report.parameters += group.weights;
    bytes += group.bytes;
  }
  report.active_parameters = report.parameters - static_cast<std::int64_t>(idle + 0.5);
  if (report.parameters > 0) report.bits_per_weight = 8.0 * double(bytes) / double(report.parameters);
}

}  // namespace

InspectReport inspect(const std::filesystem::path& model, std::int64_t context) {
  const Checkpoint checkpoint = Checkpoint::open(model);
  const ModelSpec spec = model_spec(checkpoint);
  if (context > spec.max_position_embeddings) {
    throw Error(ErrorCode::usage, fmt::format("a context of {} tokens is longer than the model's", context),
                fmt::format("at most {}", spec.max_position_embeddings));
  }
  InspectReport report;
  report.model_type = spec.model_type;
  report.quant_format = checkpoint.quant_format();
  report.layers = spec.num_hidden_layers;
  report.moe_layers = static_cast<int>(spec.moe_layers().size());
  report.hidden_size = spec.hidden_size;
  report.vocab_size = spec.vocab_size;
  report.max_position_embeddings = spec.max_position_embeddings;
  describe_blocks(spec, report);
  count(checkpoint, spec, report);
  report.file_bytes = checkpoint.file_bytes();
  report.context = context > 0 ? context : spec.max_position_embeddings;
  report.kv_bytes = SequenceState::bytes_for(spec, report.context);
  report.memory_bytes = report.file_bytes + report.kv_bytes;
  return report;
}

}  // namespace kedge
