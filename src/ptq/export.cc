#include "ptq/export.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "base/json.h"
#include "base/version.h"
#include "io/wire/anchor_delta.h"
#include "io/wire/wire.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// Names of matrices that stay as they were, the ones unknown to the family included: everything of class Linear
// that "targets": ["Linear"] would otherwise claim.
std::vector<std::string> kept_modules(const QuantPlan& plan, const ModelFamily& family) {
  std::vector<std::string> kept;
  for (const PlannedModule& module : plan.modules) {
    if (!module.args) kept.push_back(module.linear.module);
  }
  for (const TensorInfo& tensor : plan.copies) {
    if (tensor.shape.size() < 2 || !tensor.name.ends_with(".weight")) continue;
    const std::string module = tensor.name.substr(0, tensor.name.size() - 7);
    if (to_canonical_name(family, module) != "model.embed_tokens") kept.push_back(module);
  }
  return kept;
}

std::vector<std::string> names_of(const QuantPlan& plan, const std::vector<std::size_t>& modules) {
  std::vector<std::string> names;
  for (const std::size_t i : modules) names.push_back(plan.modules[i].linear.module);
  return names;
}

// A router's last name ("gate", "router") names no quantized module; the pattern also covers the names that
// transformers gives the same module ("mlp.gate" where the file says "block_sparse_moe.gate").
void add_router_patterns(const QuantPlan& plan, std::vector<std::string>& ignore) {
  std::set<std::string> last_names;
  for (const PlannedModule& module : plan.modules) {
    if (module.linear.role == LinearRole::router) {
      last_names.insert(module.linear.module.substr(module.linear.module.rfind('.') + 1));
    }
  }
  for (const std::string& last : last_names) ignore.push_back("re:.*\\." + last + "$");
}

std::set<std::size_t> modules_in(const QuantPlan& plan, const ShardPlan& shard) {
  std::set<std::size_t> modules;
  for (const auto& entry : shard.entries) {
    const auto at = plan.module_of.find(entry.name);
    if (at != plan.module_of.end() && plan.modules[at->second].args) modules.insert(at->second);
  }
  return modules;
}

// Six significant digits: enough to read, few enough for a short file.
double rounded(double value) {
  const std::string text = fmt::format("{:.6g}", value);
  double out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

// What calibration found out about each layer; the modules' own rows hold their errors.
Json layer_rows(const std::vector<std::string>& logs) {
  Json layers = Json::array();
  for (const std::string& log : logs) {
    Json row = parse_json(log, "a layer's log");
    row.erase("modules");
    layers.push_back(std::move(row));
  }
  return layers;
}

}  // namespace

Json plain_quantization(const Checkpoint& checkpoint, const QuantPlan& plan, const Recipe& recipe) {
  const ModelFamily& family = family_of(checkpoint.config(), (checkpoint.directory() / "config.json").string());
  const auto schemes = plan.schemes(recipe.scheme.weights);
  if (schemes.empty()) return nullptr;
  std::vector<std::string> kept = kept_modules(plan, family);

  std::vector<std::pair<std::vector<std::string>, QuantArgs>> groups;
  std::vector<std::string> quantized;
  for (std::size_t i = 0; i < schemes.size(); ++i) {
    std::vector<std::string> others;
    for (std::size_t j = 0; j < schemes.size(); ++j) {
      const std::vector<std::string> names = names_of(plan, schemes[j].second);
      if (j == 0) quantized.insert(quantized.end(), names.begin(), names.end());
      if (j != i) others.insert(others.end(), names.begin(), names.end());
    }
    if (i == 0) {
      groups.push_back({{"Linear"}, schemes[i].first});
    } else {
      groups.push_back({compact_names(names_of(plan, schemes[i].second), others), schemes[i].first});
    }
  }
  quantized.clear();
  for (const PlannedModule& module : plan.modules) {
    if (module.args) quantized.push_back(module.linear.module);
  }
  // lm_head by name even where it is tied and not in the file: loaders have it as a Linear.
  std::vector<std::string> ignore;
  if (std::find(quantized.begin(), quantized.end(), "lm_head") == quantized.end()) ignore.push_back("lm_head");
  add_router_patterns(plan, ignore);
  std::erase_if(kept, [&](const std::string& name) {
    return std::any_of(ignore.begin(), ignore.end(), [&](const std::string& entry) {
      return entry == name || (entry.starts_with("re:") && ModulePattern(entry).matches(name));
    });
  });
  for (std::string& name : compact_names(kept, quantized)) ignore.push_back(std::move(name));
  return compressed_tensors::quantization_config(groups, ignore);
}

std::string quantized_config(const Checkpoint& checkpoint, const QuantPlan& plan, const Recipe& recipe,
                             const Json& stacks) {
  Json config = checkpoint.config();
  Json plain = plain_quantization(checkpoint, plan, recipe);
  config["quantization_config"] = plan.stacks.empty() ? std::move(plain)
                                                      : anchor_delta::quantization_config(recipe.scheme.name, stacks,
                                                                                          std::move(plain));
  return config.dump(2) + "\n";
}

std::string manifest(const ManifestInput& in) {
  Json json;
  json["schema"] = "kedge.manifest/1";
  json["kedge"] = version();
  json["format"] = in.plan.stacks.empty() ? "compressed-tensors/pack-quantized" : "kedge/anchor-delta";
  json["source"] = {{"model_type", json_get_or<std::string>(in.checkpoint.config(), "model_type", "", "config.json")},
                    {"content_hash", in.source_hash}};
  json["recipe"] = in.recipe.to_json();
  json["recipe_hash"] = in.recipe.hash();
  if (in.data != nullptr) json["calibration"] = to_json(*in.data);
  if (in.ranks > 1) json["calibration"]["ranks"] = in.ranks;
  for (const QuantizeAllocation& row : in.plan.allocation) {
    Json units = Json::object();
    for (const auto& [bits, count] : row.units) units[std::to_string(bits)] = count;
    json["allocation"].push_back({{"layer", row.layer},
                                  {"role", row.role},
                                  {"units", std::move(units)},
                                  {"error", rounded(row.error)},
                                  {"kld", rounded(row.kld)},
                                  {"routing", rounded(row.routing)}});
  }
  Json modules = Json::array();
  for (std::size_t i = 0; i < in.plan.modules.size(); ++i) {
    const PlannedModule& module = in.plan.modules[i];
    Json row = {{"name", module.linear.module}, {"scheme", module.scheme()}};
    row["bits_per_weight"] =
        rounded(8.0 * double(module.output_bytes) / double(module.linear.rows * module.linear.cols));
    if (module.args) row["relative_rms_error"] = rounded(in.errors[i].relative_rms());
    modules.push_back(std::move(row));
  }
  json["modules"] = std::move(modules);
  if (!in.layers.empty()) json["layers"] = layer_rows(in.layers);
  return json.dump(1) + "\n";
}

std::vector<std::filesystem::path> side_files(const std::filesystem::path& source) {
  const auto carried = [](const std::string& name) {
    static constexpr std::array kNames = {"generation_config.json",
                                          "special_tokens_map.json",
                                          "added_tokens.json",
                                          "vocab.json",
                                          "vocab.txt",
                                          "merges.txt",
                                          "LICENSE",
                                          "LICENSE.txt",
                                          "NOTICE"};
    if (std::find(kNames.begin(), kNames.end(), name) != kNames.end()) return true;
    return name.starts_with("tokenizer") || name.starts_with("chat_template.") || name.ends_with(".model") ||
           name.ends_with(".tiktoken");
  };
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator at(source, error), end; !error && at != end; at.increment(error)) {
    if (at->is_regular_file(error) && carried(at->path().filename().string())) files.push_back(at->path());
  }
  if (error) {
    throw Error(ErrorCode::io, "reading the folder " + source.string() + " failed: " + error.message());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string errors_to_json(const QuantPlan& plan, const ShardPlan& shard, std::span<const ModuleError> errors) {
  Json json = Json::object();
  for (const std::size_t i : modules_in(plan, shard)) {
    json[plan.modules[i].linear.module] = to_json(errors[i]);
  }
  return json.dump();
}

bool errors_from_json(const std::string& text, const QuantPlan& plan, const ShardPlan& shard,
                      std::span<ModuleError> errors) {
  const Json json = parse_json(text, "the partial folder's error sums");
  if (!json.is_object()) return false;
  std::map<std::string, ModuleError> read;
  for (const auto& [name, value] : json.items()) {
    const std::optional<ModuleError> error = module_error_from_json(value);
    if (!error) return false;
    read[name] = *error;
  }
  for (const std::size_t i : modules_in(plan, shard)) {
    const auto at = read.find(plan.modules[i].linear.module);
    if (at == read.end()) return false;
    errors[i] = at->second;
  }
  return true;
}

}  // namespace kedge
