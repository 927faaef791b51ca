#include "ptq/plan.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <variant>

#include "base/check.h"
#include "io/wire/anchor_delta.h"
#include "io/wire/wire.h"
#include "kedge/error.h"

namespace kedge {
namespace {

std::uint64_t bytes_of(DType dtype, const Shape& shape) {
  return static_cast<std::uint64_t>(num_elements(shape)) * static_cast<std::uint64_t>(dtype_bits(dtype)) / 8;
}

bool quantized_by_default(LinearRole role) { return role != LinearRole::router && role != LinearRole::lm_head; }

// The scheme of one module: by role and allocation, then by the last override that matches; nullopt: none.
// overridden: whether it was an override.
std::optional<QuantArgs> choose_args(const LinearRef& linear, const Recipe& recipe, const Allocation* allocation,
                                     std::vector<bool>& used, bool& overridden) {
  std::optional<QuantArgs> args;
  if (quantized_by_default(linear.role)) args = recipe.scheme.weights;
  const Override* last = nullptr;
  if (allocation != nullptr) {
    if (const auto at = allocation->args.find(linear.module); at != allocation->args.end()) args = at->second;
  }
  for (std::size_t i = 0; i < recipe.overrides.size(); ++i) {
    const Override& override = recipe.overrides[i];
    if (!override.pattern.matches(linear.module)) continue;
    used[i] = true;
    args = override.scheme ? std::optional(override.scheme->weights) : std::nullopt;
    last = &override;
  }
  overridden = last != nullptr;
  if (args && linear.role == LinearRole::router) {
    throw Error(ErrorCode::unsupported,
                "the override \"" + last->pattern.text() + "\" would quantize the router " + linear.module,
                "routers in high precision", "exclude it, or add \"" + linear.module + "=none\" after it");
  }
  return args;
}

std::string weight_name(const LinearRef& linear) { return linear.module + ".weight"; }

// Source tensors that this linear's weight comes from: its own, or a fused one of all experts.
void mark_consumed(const Checkpoint& checkpoint, const LinearRef& linear,
                   std::set<std::string, std::less<>>& consumed) {
  for (const std::string& name : {linear.module, linear.canonical}) {  // in load_linear's order
    if (!checkpoint.has(name + ".weight")) continue;
    consumed.insert(name + ".weight");
    return;
  }
  for (const std::string& name : {linear.module, linear.canonical}) {
    const std::size_t at = name.rfind(".experts.");
    if (at == std::string::npos) continue;
    const std::string prefix = name.substr(0, at) + ".experts.";
    for (const char* fused : {"gate_up_proj", "down_proj"}) {
      for (const char* suffix : {"", ".weight"}) {
        if (checkpoint.has(prefix + fused + suffix)) consumed.insert(prefix + fused + suffix);
      }
    }
  }
}

// The layer that a tensor belongs to by its name: "model.layers.<n>.".
int layer_of(const std::string& name) {
  const std::size_t at = name.find(".layers.");
  if (at == std::string::npos) return -1;
  int layer = 0;
  std::size_t i = at + 8;
  const std::size_t first = i;
  for (; i < name.size() && std::isdigit(static_cast<unsigned char>(name[i])) && i < first + 6; ++i) {
    layer = layer * 10 + (name[i] - '0');
  }
  return i > first && i < name.size() && name[i] == '.' ? layer : -1;
}

PlannedModule plan_module(const Checkpoint& checkpoint, const LinearRef& linear, const Recipe& recipe,
                          const Allocation* allocation, std::vector<bool>& used) {
  PlannedModule module;
  module.linear = linear;
  bool overridden = false;
  module.args = choose_args(linear, recipe, allocation, used, overridden);
  const bool fits = module.args && linear.cols % module.args->group_size == 0;
  if (linear.role == LinearRole::expert && !overridden && fits) module.anchor = recipe.scheme.anchor;
  module.scales = recipe.scale_dtype;
  const WeightData data = load_linear(checkpoint, linear);
  KEDGE_CHECK(std::holds_alternative<TensorView>(data));
  module.dtype = std::get<TensorView>(data).dtype;
  module.source_bytes = bytes_of(module.dtype, {linear.rows, linear.cols});
  if (module.args && !is_convertible_float(module.dtype)) {
    throw Error(ErrorCode::unsupported, "the weight of " + linear.module + " has type " + dtype_name(module.dtype),
                "a floating-point type");
  }
  if (module.args && !module.anchor) {
    const QuantArgs fitting = args_for_cols(*module.args, linear.cols);
    module.channel_fallback = fitting != *module.args;
    module.args = fitting;
  }
  return module;
}

std::vector<SafetensorsWriter::Entry> entries_of(const PlannedModule& module) {
  const LinearRef& linear = module.linear;
  if (!module.args) return {{weight_name(linear), module.dtype, {linear.rows, linear.cols}}};
  return compressed_tensors::entries(linear.module, *module.args, linear.rows, linear.cols, module.scale_dtype());
}

// The stacks that the modules with an anchor make up.
void make_stacks(QuantPlan& plan, const ModelSpec& spec) {
  std::map<std::string, std::size_t> at;
  for (std::size_t i = 0; i < plan.modules.size(); ++i) {
    const PlannedModule& module = plan.modules[i];
    if (!module.anchor) continue;
    const std::string name = stack_name(module.linear);
    if (at.emplace(name, plan.stacks.size()).second) {
      const AnchorDeltaArgs args{module.anchor->dtype, module.args->num_bits, module.args->group_size,
                                 module.anchor->manifold};
      check_args(args, module.linear.rows, module.linear.cols, name);
      plan.stacks.push_back({name, module.linear.layer,
                             {args, 0, module.linear.rows, module.linear.cols, args.manifold == Manifold::sphere}, {}});
    }
    PlannedStack& stack = plan.stacks[at[name]];
    ++stack.shape.experts;
    stack.modules.push_back(i);
  }
  for (const PlannedStack& stack : plan.stacks) {
    const std::int64_t experts = spec.router(stack.layer).num_experts;
    if (stack.shape.experts == experts) continue;
    throw Error(ErrorCode::usage,
                "the overrides leave " + std::to_string(stack.shape.experts) + " of " + std::to_string(experts) +
                    " experts of " + stack.name + " on the shared anchor",
                "all experts of a projection, or none", "widen the override's pattern");
  }
}

using LayerEntries = std::map<int, std::vector<SafetensorsWriter::Entry>>;

void add_stacks(QuantPlan& plan, LayerEntries& layers) {
  for (const PlannedStack& stack : plan.stacks) {
    std::uint64_t bytes = 0;
    for (SafetensorsWriter::Entry& entry : anchor_delta::entries(stack.name, stack.shape)) {
      bytes += bytes_of(entry.dtype, entry.shape);
      layers[stack.layer].push_back(std::move(entry));
    }
    const auto experts = static_cast<std::uint64_t>(stack.shape.experts);
    for (const std::size_t i : stack.modules) plan.modules[i].output_bytes = bytes / experts;
    plan.modules[stack.modules.front()].output_bytes += bytes % experts;
    plan.output_bytes += bytes;
  }
}

// Layers, ascending, packed into shards; what belongs to no layer comes first.
void make_shards(QuantPlan& plan, std::uint64_t max_shard_bytes) {
  LayerEntries layers;
  add_stacks(plan, layers);
  for (std::size_t i = 0; i < plan.modules.size(); ++i) {
    PlannedModule& module = plan.modules[i];
    if (module.anchor) continue;
    for (SafetensorsWriter::Entry& entry : entries_of(module)) {
      module.output_bytes += bytes_of(entry.dtype, entry.shape);
      plan.module_of[entry.name] = i;
      layers[module.linear.layer].push_back(std::move(entry));
    }
    plan.output_bytes += module.output_bytes;
  }
  for (const TensorInfo& tensor : plan.copies) {
    layers[layer_of(tensor.name)].push_back({tensor.name, tensor.dtype, tensor.shape});
    plan.output_bytes += bytes_of(tensor.dtype, tensor.shape);
  }
  std::uint64_t in_shard = 0;
  for (auto& [layer, entries] : layers) {
    std::uint64_t bytes = 0;
    for (const auto& entry : entries) bytes += bytes_of(entry.dtype, entry.shape);
    if (plan.shards.empty() || (in_shard > 0 && in_shard + bytes > max_shard_bytes)) {
      plan.shards.emplace_back();
      in_shard = 0;
    }
    std::move(entries.begin(), entries.end(), std::back_inserter(plan.shards.back().entries));
    in_shard += bytes;
  }
}

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// "a.0.b" -> ("a\.\d+\.b", had a number); the first `literal` numbers stay.
std::pair<std::string, bool> generalize(const std::string& name, int literal) {
  std::string pattern;
  bool general = false;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = std::string_view(name).substr(begin, end - begin);
    if (begin > 0) pattern += "\\.";
    if (is_number(part) && literal-- <= 0) {
      pattern += "\\d+";
      general = true;
    } else {
      for (char c : part) {
        if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_') pattern += '\\';
        pattern += c;
      }
    }
    begin = end + 1;
  }
  return {pattern, general};
}

}  // namespace

std::vector<std::string> compact_names(const std::vector<std::string>& names, const std::vector<std::string>& others) {
  std::set<std::string> taken;
  for (const std::string& other : others) {
    for (const int literal : {0, 1}) taken.insert(generalize(other, literal).first);
  }
  std::vector<std::string> out;
  std::set<std::string> written;
  for (const std::string& name : names) {
    std::string entry = name;
    for (const int literal : {1, 0}) {
      const auto [pattern, general] = generalize(name, literal);
      if (general && !taken.contains(pattern)) entry = "re:" + pattern + "$";
    }
    if (written.insert(entry).second) out.push_back(entry);
  }
  return out;
}

std::vector<std::pair<QuantArgs, std::vector<std::size_t>>> QuantPlan::schemes(const QuantArgs& first) const {
  std::vector<std::pair<QuantArgs, std::vector<std::size_t>>> out;
  out.push_back({first, {}});
  for (std::size_t i = 0; i < modules.size(); ++i) {
    if (!modules[i].args || modules[i].anchor) continue;
    auto at = std::find_if(out.begin(), out.end(), [&](const auto& group) { return group.first == *modules[i].args; });
    if (at == out.end()) at = out.insert(at, {*modules[i].args, {}});
    at->second.push_back(i);
  }
  std::erase_if(out, [](const auto& group) { return group.second.empty(); });
  return out;
}

QuantPlan plan_quantization(const Checkpoint& checkpoint, const Recipe& recipe, std::uint64_t max_shard_bytes,
                            const Allocation* allocation) {
  const std::string where = (checkpoint.directory() / "config.json").string();
  const ModelFamily& family = family_of(checkpoint.config(), where);
  const ModelSpec spec = model_spec(checkpoint);

  QuantPlan plan;
  if (allocation != nullptr) plan.allocation = allocation->rows;
  std::vector<bool> used(recipe.overrides.size(), false);
  std::set<std::string, std::less<>> consumed;
  bool any = false;
  for (const LinearRef& linear : list_linears(spec, family)) {
    plan.modules.push_back(plan_module(checkpoint, linear, recipe, allocation, used));
    any |= plan.modules.back().args.has_value();
    mark_consumed(checkpoint, linear, consumed);
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (used[i]) continue;
    throw Error(ErrorCode::usage,
                "the override pattern \"" + recipe.overrides[i].pattern.text() + "\" matches no module of this model",
                plan.modules.empty() ? "" : "names such as \"" + plan.modules.front().linear.module + "\"");
  }
  make_stacks(plan, spec);
  if (recipe.scheme.anchor && plan.stacks.empty()) {
    throw Error(ErrorCode::usage, "the scheme " + recipe.scheme.name + " finds no experts that could share an anchor",
                "a MoE model whose experts' rows are a multiple of the group", "choose a scheme such as w4a16-g64");
  }
  if (!any) throw Error(ErrorCode::usage, "the overrides leave no module to quantize");
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (!consumed.contains(tensor.name)) plan.copies.push_back(tensor);
  }
  make_shards(plan, max_shard_bytes);
  return plan;
}

}  // namespace kedge
