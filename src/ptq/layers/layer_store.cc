#include "ptq/layers/layer_store.h"

#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/json.h"
#include "io/wire/anchor_delta.h"
#include "kedge/error.h"

namespace kedge {
namespace {

Tensor to_float(const TensorView& view) {
  Tensor out(DType::f32, view.shape);
  convert_to_float(view.dtype, view.data, view.size(), out.data<float>());
  return out;
}

}  // namespace

LayerStore::LayerStore(const Checkpoint& checkpoint, const QuantPlan& plan, std::filesystem::path folder,
                       const Json& config)
    : checkpoint_(checkpoint),
      plan_(plan),
      family_(family_of(checkpoint.config(), (checkpoint.directory() / "config.json").string())),
      folder_(std::move(folder)),
      format_(make_wire_format(config, "config.json")) {
  KEDGE_CHECK(format_ != nullptr || !plan.stacks.empty());
}
LayerStore::~LayerStore() = default;

std::string LayerStore::file_name(int layer) { return fmt::format("kedge.layer-{:05}.safetensors", layer); }

bool LayerStore::has(int layer) const { return std::filesystem::exists(folder_ / file_name(layer)); }

const SafetensorsFile& LayerStore::file(int layer) const {
  auto at = files_.find(layer);
  if (at == files_.end()) at = files_.emplace(layer, SafetensorsFile(folder_ / file_name(layer))).first;
  return at->second;
}

LayerStore::Names LayerStore::names_of(const std::string& canonical) const {
  const std::string name = to_file_name(family_, canonical);
  const std::string source = !checkpoint_.has(name) && checkpoint_.has(canonical) ? canonical : name;
  return {source, plan_.module_of.contains(name) ? name : source};
}

void LayerStore::write(int layer, const LayerOutput& output) {
  std::vector<SafetensorsWriter::Entry> entries;
  std::map<std::string, std::vector<std::byte>> bytes;
  for (const PlannedModule& module : plan_.modules) {
    const auto at = output.weights.find(module.linear.canonical);
    if (at == output.weights.end()) continue;
    const std::string& name = module.linear.module;
    for (const auto& entry :
         compressed_tensors::entries(name, at->second.args, at->second.rows, at->second.cols, at->second.scale_dtype)) {
      entries.push_back(entry);
      bytes[entry.name] = compressed_tensors::serialize(at->second, std::string_view(entry.name).substr(name.size()));
    }
  }
  Json stacks = Json::object();
  for (const auto& [name, stack] : output.stacks) {
    stacks[name] = anchor_delta::manifest(*stack);
    for (const auto& entry : anchor_delta::entries(name, stack->shape())) {
      entries.push_back(entry);
      bytes[entry.name] = anchor_delta::serialize(*stack, std::string_view(entry.name).substr(name.size()));
    }
  }
  for (const auto& [canonical, values] : output.replaced) {
    const auto [stands_as, name] = names_of(canonical);
    const TensorView source = checkpoint_.tensor(stands_as, values.shape());
    entries.push_back({name, source.dtype, values.shape()});
    std::vector<std::byte>& data = bytes[name];
    data.resize(source.num_bytes());
    convert_from_float(source.dtype, values.data<float>(), values.size(), data.data());
  }
  SafetensorsWriter writer(folder_ / file_name(layer), entries, {{"log", output.log}, {"stacks", stacks.dump()}});
  for (const auto& entry : writer.order()) writer.write(entry.name, bytes[entry.name].data(), bytes[entry.name].size());
  writer.finish();
}

LayerOutput LayerStore::read(int layer) const {
  const SafetensorsFile& layer_file = file(layer);
  const FileLookup lookup(layer_file);
  LayerOutput output;
  std::map<std::string, bool> seen;
  for (const PlannedModule& module : plan_.modules) {
    if (module.linear.layer != layer || !module.args || module.anchor) continue;
    output.weights.emplace(module.linear.canonical, format_->read(lookup, module.linear.module));
    for (const char* suffix : format_->suffixes()) seen[module.linear.module + suffix] = true;
  }
  const Json manifests = stacks(layer);
  for (const auto& [name, manifest] : manifests.items()) {
    output.stacks.emplace(
        name, std::make_shared<const AnchorDelta>(anchor_delta::read(lookup, name, manifest, file_name(layer))));
    for (const char* suffix : anchor_delta::kSuffixes) seen[name + suffix] = true;
  }
  for (const TensorInfo& tensor : layer_file.header().tensors) {
    if (seen.contains(tensor.name)) continue;
    output.replaced.emplace(to_canonical_name(family_, tensor.name), to_float(layer_file.tensor(tensor.name)));
  }
  output.log = log(layer);
  return output;
}

std::string LayerStore::log(int layer) const {
  const auto& metadata = file(layer).header().metadata;
  const auto at = metadata.find("log");
  if (at == metadata.end()) {
    throw Error(ErrorCode::bad_file, (folder_ / file_name(layer)).string() + " holds no log of its layer", "",
                "remove the partial folder and start over");
  }
  return at->second;
}

Json LayerStore::stacks(int layer) const {
  const auto& metadata = file(layer).header().metadata;
  const auto at = metadata.find("stacks");
  return at == metadata.end() ? Json::object() : parse_json(at->second, "the stacks of a layer");
}

std::optional<TensorView> LayerStore::find(std::string_view tensor) const {
  for (const auto& [layer, layer_file] : files_) {
    if (layer_file.has(tensor)) return layer_file.tensor(tensor);
  }
  return std::nullopt;
}

}  // namespace kedge
