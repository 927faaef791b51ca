#include "routing/trace.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "base/check.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// More would overflow the shape products below; no model has as many.
constexpr std::int64_t max_experts = 1 << 20;

Json router_json(const RouterSpec& router) {
  return {{"scoring_func", router.scoring_func == ScoringFunc::sigmoid ? "sigmoid" : "softmax"},
          {"num_experts", router.num_experts},
          {"num_experts_per_tok", router.num_experts_per_tok},
          {"n_group", router.n_group},
          {"topk_group", router.topk_group},
          {"norm_topk_prob", router.norm_topk_prob},
          {"routed_scaling_factor", router.routed_scaling_factor},
          {"selection_bias", router.selection_bias}};
}

RouterSpec parse_router(const Json& json, const std::string& where) {
  RouterSpec router;
  const auto scoring = json_get<std::string>(json, "scoring_func", where);
  if (scoring != "softmax" && scoring != "sigmoid") {
    throw Error(ErrorCode::bad_file, where + ": scoring_func is \"" + scoring + "\"", "softmax or sigmoid");
  }
  router.scoring_func = scoring == "sigmoid" ? ScoringFunc::sigmoid : ScoringFunc::softmax;
  router.num_experts = json_get<std::int64_t>(json, "num_experts", where);
  router.num_experts_per_tok = json_get<std::int64_t>(json, "num_experts_per_tok", where);
  router.n_group = json_get<std::int64_t>(json, "n_group", where);
  router.topk_group = json_get<std::int64_t>(json, "topk_group", where);
  router.norm_topk_prob = json_get<bool>(json, "norm_topk_prob", where);
  router.routed_scaling_factor = static_cast<float>(json_get<double>(json, "routed_scaling_factor", where));
  router.selection_bias = json_get<bool>(json, "selection_bias", where);
  if (router.num_experts < 1 || router.num_experts > max_experts || router.num_experts_per_tok < 1 ||
      router.num_experts_per_tok > router.num_experts) {
    throw Error(ErrorCode::bad_file,
                where + " has " + std::to_string(router.num_experts_per_tok) + " of " +
                    std::to_string(router.num_experts) + " experts per token",
                "between 1 and all of at least one expert");
  }
  return router;
}

std::string indexed(const char* name, int layer) { return std::string(name) + "." + std::to_string(layer); }

std::int64_t common_length(const RoutingTrace& trace) {
  const std::int64_t s = trace.sequences();
  if (s < 1 || trace.tokens() % s != 0) return 0;
  const std::int64_t length = trace.tokens() / s;
  for (std::int64_t i = 0; i <= s; ++i) {
    if (trace.sequence_offsets[static_cast<std::size_t>(i)] != i * length) return 0;
  }
  return length;
}

template <class T>
std::vector<T> read_values(const SafetensorsFile& file, const std::string& name, DType dtype, const Shape& shape,
                           const std::string& where) {
  const TensorView view = file.tensor(name);
  if (view.dtype != dtype || view.shape != shape) {
    throw Error(ErrorCode::bad_file,
                where + ": " + name + " is " + dtype_name(view.dtype) + " " + shape_string(view.shape),
                std::string(dtype_name(dtype)) + " " + shape_string(shape));
  }
  std::vector<T> values(static_cast<std::size_t>(view.size()));
  if (!values.empty()) std::memcpy(values.data(), view.data, view.num_bytes());
  return values;
}

std::vector<std::int32_t> read_ids(const SafetensorsFile& file, const std::string& name, const Shape& shape,
                                   std::int64_t bound, const std::string& where) {
  std::vector<std::int32_t> ids = read_values<std::int32_t>(file, name, DType::i32, shape, where);
  for (std::int32_t id : ids) {
    if (id < 0 || id >= bound) {
      throw Error(ErrorCode::bad_file, where + ": " + name + " holds " + std::to_string(id),
                  "values from 0 to " + std::to_string(bound - 1));
    }
  }
  return ids;
}

std::vector<float> read_if_there(const SafetensorsFile& file, const std::string& name, const Shape& shape,
                                 const std::string& where) {
  return file.has(name) ? read_values<float>(file, name, DType::f32, shape, where) : std::vector<float>();
}

void check_distinct(const LayerTrace& layer, const std::string& where) {
  const auto k = static_cast<std::size_t>(layer.router.num_experts_per_tok);
  std::vector<std::int32_t> sorted;
  for (std::size_t row = 0; row < layer.expert_ids.size(); row += k) {
    sorted.assign(layer.expert_ids.begin() + static_cast<std::ptrdiff_t>(row),
                  layer.expert_ids.begin() + static_cast<std::ptrdiff_t>(row + k));
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
      throw Error(
          ErrorCode::bad_file,
          where + ": " + indexed("topk_ids", layer.layer) + " names an expert twice in row " + std::to_string(row / k),
          "k different experts");
    }
  }
}

void check_sizes(const RoutingTrace& trace) {
  const auto t = static_cast<std::size_t>(trace.tokens());
  KEDGE_CHECK(trace.sequence_offsets.size() >= 2 && trace.sequence_offsets.front() == 0 &&
              trace.sequence_offsets.back() == trace.tokens());
  KEDGE_CHECK(trace.positions.size() == t && trace.phase.size() == t);
  for (const LayerTrace& layer : trace.layers) {
    const auto e = static_cast<std::size_t>(layer.router.num_experts),
               k = static_cast<std::size_t>(layer.router.num_experts_per_tok);
    KEDGE_CHECK(layer.expert_ids.size() == t * k && layer.weights.size() == t * k);
    KEDGE_CHECK(layer.logits.size() == t * e && layer.scores.size() == t * e);
    KEDGE_CHECK(layer.errors.empty() || layer.errors.size() == t * e);
    KEDGE_CHECK(layer.residual_norms.empty() || layer.residual_norms.size() == t);
  }
}

struct Source {
  const void* data = nullptr;
  std::size_t bytes = 0;
};

}  // namespace

void save_trace(const RoutingTrace& trace, const std::filesystem::path& path,
                const std::map<std::string, std::string>& metadata) {
  check_sizes(trace);
  const std::int64_t t = trace.tokens(), length = common_length(trace);
  std::vector<SafetensorsWriter::Entry> entries;
  std::map<std::string, Source> sources;
  auto add = [&](const std::string& name, DType dtype, Shape shape, const auto& values) {
    entries.push_back({name, dtype, std::move(shape)});
    sources[name] = {values.data(), values.size() * sizeof(values[0])};
  };
  add("input_ids", DType::i32, length > 0 ? Shape{trace.sequences(), length} : Shape{t}, trace.token_ids);
  add("sequence_offsets", DType::i64, {trace.sequences() + 1}, trace.sequence_offsets);
  add("positions", DType::i64, {t}, trace.positions);
  add("phase", DType::u8, {t}, trace.phase);
  Json routers = Json::object();
  for (const LayerTrace& layer : trace.layers) {
    const std::int64_t e = layer.router.num_experts, k = layer.router.num_experts_per_tok;
    routers[std::to_string(layer.layer)] = router_json(layer.router);
    add(indexed("router_logits", layer.layer), DType::f32, {t, e}, layer.logits);
    add(indexed("topk_ids", layer.layer), DType::i32, {t, k}, layer.expert_ids);
    add(indexed("topk_weights", layer.layer), DType::f32, {t, k}, layer.weights);
    if (layer.router.scoring_func == ScoringFunc::sigmoid)
      add(indexed("selection_scores", layer.layer), DType::f32, {t, e}, layer.scores);
    if (!layer.errors.empty()) add(indexed("all_errors", layer.layer), DType::f32, {t, e}, layer.errors);
    if (!layer.residual_norms.empty())
      add(indexed("residual_norm", layer.layer), DType::f32, {t}, layer.residual_norms);
  }
  for (const auto& [name, tensor] : trace.extra) {
    entries.push_back({name, tensor.dtype(), tensor.shape()});
    sources[name] = {tensor.data<std::byte>(), tensor.num_bytes()};
  }
  auto all_metadata = metadata;
  all_metadata["routers"] = routers.dump();
  SafetensorsWriter writer(path, std::move(entries), all_metadata);
  for (const auto& entry : writer.order()) {
    const Source& source = sources.at(entry.name);
    writer.write(entry.name, source.data, source.bytes);
  }
  writer.finish();
}

RoutingTrace load_trace(const std::filesystem::path& path) {
  const std::string where = path.string();
  const SafetensorsFile file(path);
  const auto& metadata = file.header().metadata;
  const auto routers = metadata.find("routers");
  if (routers == metadata.end()) {
    throw Error(ErrorCode::bad_file, where + " has no \"routers\" in its metadata",
                "a routing trace as kedge trace writes it");
  }
  RoutingTrace trace;
  const Shape ids_shape = file.tensor("input_ids").shape;
  if (ids_shape.empty() || ids_shape.size() > 2) {
    throw Error(ErrorCode::bad_file, where + ": input_ids is " + shape_string(ids_shape), "[S, L] or [T]");
  }
  trace.token_ids = read_ids(file, "input_ids", ids_shape, std::int64_t{1} << 31, where);
  const std::int64_t t = trace.tokens();
  const Shape offsets_shape = file.tensor("sequence_offsets").shape;
  trace.sequence_offsets = read_values<std::int64_t>(file, "sequence_offsets", DType::i64, offsets_shape, where);
  const auto& offsets = trace.sequence_offsets;
  if (offsets_shape.size() != 1 || offsets.size() < 2 || offsets.front() != 0 || offsets.back() != t ||
      !std::is_sorted(offsets.begin(), offsets.end())) {
    throw Error(ErrorCode::bad_file,
                where + ": sequence_offsets do not cut the " + std::to_string(t) + " tokens into sequences",
                "ascending numbers from 0 to the number of tokens");
  }
  trace.positions = read_values<std::int64_t>(file, "positions", DType::i64, {t}, where);
  for (std::uint8_t phase : read_values<std::uint8_t>(file, "phase", DType::u8, {t}, where)) {
    if (phase > 1)
      throw Error(ErrorCode::bad_file, where + ": phase holds " + std::to_string(phase), "0 (prefill) or 1 (decode)");
    trace.phase.push_back(static_cast<Phase>(phase));
  }
  const Json json = parse_json(routers->second, "the metadata of " + where);
  if (!json.is_object())
    throw Error(ErrorCode::bad_file, where + ": \"routers\" is not an object", "one entry per MoE layer");
  for (const auto& [key, value] : json.items()) {
    if (key.empty() || key.size() > 6 || key.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(ErrorCode::bad_file, where + ": \"" + key + "\" is no layer", "a number");
    }
    LayerTrace layer;
    layer.layer = std::stoi(key);
    layer.router = parse_router(value, where + ": router of layer " + key);
    const std::int64_t e = layer.router.num_experts, k = layer.router.num_experts_per_tok;
    layer.expert_ids = read_ids(file, indexed("topk_ids", layer.layer), {t, k}, e, where);
    layer.weights = read_values<float>(file, indexed("topk_weights", layer.layer), DType::f32, {t, k}, where);
    layer.logits = read_values<float>(file, indexed("router_logits", layer.layer), DType::f32, {t, e}, where);
    layer.scores = layer.router.scoring_func == ScoringFunc::sigmoid
                       ? read_values<float>(file, indexed("selection_scores", layer.layer), DType::f32, {t, e}, where)
                       : layer.logits;
    layer.errors = read_if_there(file, indexed("all_errors", layer.layer), {t, e}, where);
    layer.residual_norms = read_if_there(file, indexed("residual_norm", layer.layer), {t}, where);
    check_distinct(layer, where);
    trace.layers.push_back(std::move(layer));
  }
  std::sort(trace.layers.begin(), trace.layers.end(),
            [](const LayerTrace& a, const LayerTrace& b) { return a.layer < b.layer; });
  for (const TensorInfo& info : file.header().tensors) {
    if (info.name != "logits" && !info.name.starts_with("hidden_states.")) continue;
    const TensorView view = file.tensor(info.name);
    Tensor tensor(view.dtype, view.shape);
    if (view.num_bytes() > 0) std::memcpy(tensor.data<std::byte>(), view.data, view.num_bytes());
    trace.extra.emplace(info.name, std::move(tensor));
  }
  return trace;
}

}  // namespace kedge
