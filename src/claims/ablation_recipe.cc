#include "claims/ablation_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/toml_section.h"
#include "claims/method_keys.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxBytes = 1 << 20;

std::vector<QuantizeOverride> overrides(const TomlSection& section, const TomlValue& value) {
  std::vector<QuantizeOverride> out;
  for (const TomlValue& item : section.as<TomlArray>("override", value, "a list of texts")) {
    const std::string text = section.as<std::string>("override", item, "a list of texts");
    const std::size_t at = text.rfind('=');  // a pattern may hold '=', a scheme does not
    if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
      section.fail(item.line, "an override is \"" + text + "\"", "PATTERN=SCHEME or PATTERN=none");
    }
    out.push_back({text.substr(0, at), text.substr(at + 1)});
  }
  return out;
}

// One key of a method. What a value means, quantize() itself checks in a dry run before the first run.
void set_field(const TomlSection& section, const std::string& key, const TomlValue& value, MethodField field) {
  std::visit(
      [&](auto* target) {
        using T = std::remove_pointer_t<decltype(target)>;
        if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::optional<bool>>) {
          *target = section.as<bool>(key, value, "true or false");
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          *target = section.as<std::int64_t>(key, value, "an integer");
        } else if constexpr (std::is_same_v<T, double>) {
          *target = section.as<double>(key, value, "a number");
        } else if constexpr (std::is_same_v<T, std::string>) {
          *target = section.as<std::string>(key, value, "a text");
        } else if constexpr (std::is_same_v<T, std::vector<fs::path>>) {
          *target = section.paths(key, value);
        } else {
          *target = overrides(section, value);
        }
      },
      field);
}

AblationMethodRecipe read_method(const fs::path& file, const TomlValue& value, const CalibrationOptions& calibration) {
  TomlSection section(file, "[[methods]]", value);
  AblationMethodRecipe method;
  method.line = section.line();
  method.options.calibration = calibration;
  method.name = section.as<std::string>("name", section.require("name", "the label of the method"), "a text");
  if (method.name.empty()) section.fail(section.line(), "a method has an empty name");
  read_method_keys(section, method.options);
  section.refuse_others();
  const CalibrationOptions& own = method.options.calibration;
  if (own.nsamples < 0 || own.seqlen < 0) {
    section.fail(section.line(), "\"" + method.name + "\" has a negative nsamples or seqlen", "0 or more");
  }
  return method;
}

void read_methods(TomlSection& top, const CalibrationOptions& calibration, AblationRecipe& recipe) {
  const TomlValue& methods = top.require("methods", "one [[methods]] or more");
  std::set<std::string> names;
  for (const TomlValue& value : top.as<TomlArray>("methods", methods, "tables, [[methods]]")) {
    AblationMethodRecipe method = read_method(recipe.file, value, calibration);
    if (!names.insert(method.name).second) {
      top.fail(method.line, "two methods have the name \"" + method.name + "\"", "a name for each");
    }
    recipe.methods.push_back(std::move(method));
  }
  if (recipe.methods.empty()) top.fail(methods.line, "there is no method", "one [[methods]] or more");
  const TomlValue& baseline = top.require("baseline", "the name of the method that the others are compared to");
  const std::string name = top.as<std::string>("baseline", baseline, "a text");
  const auto at = std::find_if(recipe.methods.begin(), recipe.methods.end(),
                               [&](const AblationMethodRecipe& method) { return method.name == name; });
  if (at == recipe.methods.end()) {
    std::string known;
    for (const std::string& label : names) known += (known.empty() ? "" : ", ") + label;
    top.fail(baseline.line, "the baseline \"" + name + "\" is no method's name", "one of " + known);
  }
  recipe.baseline = static_cast<std::size_t>(at - recipe.methods.begin());
}

void read_seeds(TomlSection& top, AblationRecipe& recipe) {
  const TomlValue& seeds = top.require("seeds", "a list of integers");
  std::set<std::int64_t> seen;
  for (const TomlValue& item : top.as<TomlArray>("seeds", seeds, "a list of integers")) {
    const auto seed = top.as<std::int64_t>("seeds", item, "a list of integers");
    if (seed < 0) top.fail(item.line, fmt::format("a seed is {}", seed), "0 or more");
    if (!seen.insert(seed).second) top.fail(item.line, fmt::format("the seed {} stands there twice", seed));
    recipe.seeds.push_back(static_cast<std::uint64_t>(seed));
  }
  if (recipe.seeds.empty()) top.fail(seeds.line, "\"seeds\" is empty", "one seed or more");
}

CalibrationOptions read_calibration_section(TomlSection& top, const fs::path& file, fs::path& cache_dir) {
  CalibrationOptions out;
  const TomlValue* value = top.find("calibration");
  if (value == nullptr) return out;
  TomlSection section(file, "[calibration]", *value);
  if (const TomlValue* files = section.find("files")) out.files = section.paths("files", *files);
  out.field = section.text("field", out.field);
  out.nsamples = section.integer("nsamples", out.nsamples, 0);
  out.seqlen = section.integer("seqlen", out.seqlen, 0);
  cache_dir = section.text("cache-dir", {});
  section.refuse_others();
  return out;
}

void read_audit(TomlSection& top, AblationRecipe& recipe) {
  const TomlValue* value = top.find("audit");
  if (value == nullptr) return;
  TomlSection section(recipe.file, "[audit]", *value);
  recipe.audit_seqlen = section.integer("seqlen", recipe.audit_seqlen, 2);
  recipe.audit_limit = section.integer("limit", recipe.audit_limit, 0);
  section.refuse_others();
}

void read_eval(TomlSection& top, AblationRecipe& recipe) {
  const TomlValue* value = top.find("eval");
  if (value == nullptr) return;
  TomlSection section(recipe.file, "[eval]", *value);
  AblationEval& eval = recipe.eval;
  eval.line = value->line;
  const TomlValue& tasks = section.require("tasks", "a list of tasks of kedge eval, such as \"blimp\"");
  eval.tasks = section.texts("tasks", tasks);
  if (eval.tasks.empty()) section.fail(tasks.line, "\"tasks\" is empty", "one task or more");
  const fs::path here = recipe.file.parent_path();
  for (std::string& task : eval.tasks) {
    const bool is_path = task.ends_with(".toml") || task.find('/') != std::string::npos;
    if (is_path) task = (here / task).lexically_normal().string();
  }
  const std::string folder = section.text("data-dir", {});
  if (!folder.empty()) eval.data_dir = (here / folder).lexically_normal();
  eval.num_fewshot = section.integer("num-fewshot", eval.num_fewshot, -1);
  eval.limit = section.integer("limit", eval.limit, 0);
  section.refuse_others();
}

void read_sensitivity(TomlSection& top, AblationRecipe& recipe) {
  const TomlValue* value = top.find("sensitivity");
  if (value == nullptr) return;
  TomlSection section(recipe.file, "[sensitivity]", *value);
  recipe.layers = section.boolean("layers", false);
  recipe.whole = section.boolean("whole", true);
  section.refuse_others();
  if (!recipe.whole && !recipe.layers) {
    section.fail(value->line, "[sensitivity] asks for neither layers nor whole models",
                 "layers = true, or whole = true");
  }
}

}  // namespace

void read_method_keys(TomlSection& section, QuantizeOptions& options) {
  section.require("method", "a method of kedge quantize");
  for (const MethodKey& key : method_keys()) {
    if (const TomlValue* given = section.find(key.name)) set_field(section, key.name, *given, key.field(options));
  }
  for (const auto& [name, given] : section.members()) {
    for (const ForeignKey& key : foreign_keys()) {
      if (name == key.name) section.fail(given.line, "a method has the key \"" + name + "\"", {}, key.to_do);
    }
  }
}

AblationRecipe read_ablation_recipe(const fs::path& file) {
  const std::string text = read_file(file, kMaxBytes);
  AblationRecipe recipe;
  recipe.file = file;
  recipe.sha256 = sha256_hex(text);
  const TomlValue root = parse_toml(text, file);
  TomlSection top(recipe.file, "the recipe", root);

  const TomlValue& models = top.require("models", "a list of model folders");
  recipe.models = top.paths("models", models);
  if (recipe.models.empty()) top.fail(models.line, "\"models\" is empty", "one model or more");
  recipe.model_lines.assign(recipe.models.size(), models.line);
  const TomlValue& texts = top.require("texts", "a list of text files to audit on");
  recipe.texts = top.paths("texts", texts);
  if (recipe.texts.empty()) top.fail(texts.line, "\"texts\" is empty", "one text or more");
  const TomlValue& schemes = top.require("schemes", "a list of schemes, such as \"w4a16-g128\"");
  recipe.schemes = top.texts("schemes", schemes);
  recipe.schemes_line = schemes.line;
  if (recipe.schemes.empty()) top.fail(schemes.line, "\"schemes\" is empty", "one scheme or more");
  read_seeds(top, recipe);

  fs::path cache_dir;
  const CalibrationOptions calibration = read_calibration_section(top, recipe.file, cache_dir);
  read_methods(top, calibration, recipe);
  for (AblationMethodRecipe& method : recipe.methods) method.options.cache_dir = cache_dir;
  read_audit(top, recipe);
  read_eval(top, recipe);
  read_sensitivity(top, recipe);
  top.refuse_others();
  return recipe;
}

}  // namespace kedge
