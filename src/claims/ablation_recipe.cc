#include "claims/ablation_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "claims/method_keys.h"
#include "claims/toml_file.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxBytes = 1 << 20;

// Reads one table and remembers which keys were asked for, so that the others are errors.
class Section {
 public:
  Section(const fs::path& file, std::string name, const TomlValue& table) : file_(file), name_(std::move(name)) {
    line_ = table.line;
    members_ = std::get_if<TomlTable>(&table.value);
    if (members_ == nullptr) fail(table.line, fmt::format("{} is {}", name_, table.type_name()), "a table");
  }

  [[noreturn]] void fail(int line, const std::string& what, const std::string& expected = {},
                         const std::string& to_do = {}, ErrorCode code = ErrorCode::bad_file) const {
    throw Error(code, fmt::format("{}:{}: {}", file_.string(), line, what), expected, to_do);
  }

  int line() const noexcept { return line_; }
  const TomlTable& members() const noexcept { return *members_; }

  const TomlValue* find(const std::string& key) {
    known_.push_back(key);
    for (const auto& [name, value] : *members_) {
      if (name == key) return &value;
    }
    return nullptr;
  }

  const TomlValue& require(const std::string& key, const char* what) {
    const TomlValue* value = find(key);
    if (value == nullptr) fail(line_, fmt::format("{} has no \"{}\"", name_, key), what);
    return *value;
  }

  /// expected: "a text".
  template <class T>
  T as(const std::string& key, const TomlValue& value, const char* expected) const {
    if constexpr (std::is_same_v<T, double>) {
      if (const auto* integer = std::get_if<std::int64_t>(&value.value)) return static_cast<double>(*integer);
    }
    const T* out = std::get_if<T>(&value.value);
    if (out == nullptr) fail(value.line, fmt::format("\"{}\" is {}", key, value.type_name()), expected);
    if constexpr (std::is_same_v<T, double>) {
      if (!std::isfinite(*out)) fail(value.line, fmt::format("\"{}\" is not finite", key), expected);
    }
    return *out;
  }

  std::int64_t integer(const std::string& key, std::int64_t fallback, std::int64_t minimum) {
    const TomlValue* value = find(key);
    if (value == nullptr) return fallback;
    const auto out = as<std::int64_t>(key, *value, "an integer");
    if (out < minimum) fail(value->line, fmt::format("\"{}\" is {}", key, out), fmt::format("{} or more", minimum));
    return out;
  }

  bool boolean(const std::string& key, bool fallback) {
    const TomlValue* value = find(key);
    return value == nullptr ? fallback : as<bool>(key, *value, "true or false");
  }

  std::string text(const std::string& key, std::string fallback) {
    const TomlValue* value = find(key);
    return value == nullptr ? fallback : as<std::string>(key, *value, "a text");
  }

  /// A list without empty or repeated texts.
  std::vector<std::string> texts(const std::string& key, const TomlValue& value) const {
    std::vector<std::string> out;
    for (const TomlValue& item : as<TomlArray>(key, value, "a list of texts")) {
      const std::string text = as<std::string>(key, item, "a list of texts");
      if (text.empty()) fail(item.line, fmt::format("\"{}\" holds an empty text", key));
      if (std::find(out.begin(), out.end(), text) != out.end()) {
        fail(item.line, fmt::format("\"{}\" names \"{}\" twice", key, text), "each one once");
      }
      out.push_back(text);
    }
    return out;
  }

  /// Taken from the recipe's folder; each must be there.
  std::vector<fs::path> paths(const std::string& key, const TomlValue& value) const {
    std::vector<fs::path> out;
    for (const std::string& text : texts(key, value)) {
      const fs::path path = (file_.parent_path() / text).lexically_normal();
      std::error_code ignored;
      if (!fs::exists(path, ignored)) {
        fail(value.line, fmt::format("\"{}\" names {}, which is not there", key, path.string()),
             "a path from the recipe's folder", {}, ErrorCode::not_found);
      }
      out.push_back(path);
    }
    return out;
  }

  /// Once all keys were asked for.
  void refuse_others() const {
    for (const auto& [name, value] : *members_) {
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      std::string known;
      for (const std::string& key : known_) known += (known.empty() ? "" : ", ") + key;
      fail(value.line, fmt::format("{} has no key \"{}\"", name_, name), "one of " + known);
    }
  }

 private:
  const fs::path& file_;
  std::string name_;
  int line_ = 0;
  const TomlTable* members_ = nullptr;
  std::vector<std::string> known_;
};

std::vector<QuantizeOverride> overrides(const Section& section, const TomlValue& value) {
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
void set_field(const Section& section, const std::string& key, const TomlValue& value, MethodField field) {
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
  Section section(file, "[[methods]]", value);
  AblationMethodRecipe method;
  method.line = section.line();
  method.options.calibration = calibration;
  method.name = section.as<std::string>("name", section.require("name", "the label of the method"), "a text");
  if (method.name.empty()) section.fail(section.line(), "a method has an empty name");
  section.require("method", "a method of kedge quantize");
  for (const MethodKey& key : method_keys()) {
    if (const TomlValue* given = section.find(key.name)) {
      set_field(section, key.name, *given, key.field(method.options));
    }
  }
  for (const auto& [name, given] : section.members()) {
    for (const ForeignKey& key : foreign_keys()) {
      if (name == key.name) section.fail(given.line, "a method has the key \"" + name + "\"", {}, key.to_do);
    }
  }
  section.refuse_others();
  const CalibrationOptions& own = method.options.calibration;
  if (own.nsamples < 0 || own.seqlen < 0) {
    section.fail(section.line(), "\"" + method.name + "\" has a negative nsamples or seqlen", "0 or more");
  }
  return method;
}

void read_methods(Section& top, const CalibrationOptions& calibration, AblationRecipe& recipe) {
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

void read_seeds(Section& top, AblationRecipe& recipe) {
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

CalibrationOptions read_calibration_section(Section& top, const fs::path& file, fs::path& cache_dir) {
  CalibrationOptions out;
  const TomlValue* value = top.find("calibration");
  if (value == nullptr) return out;
  Section section(file, "[calibration]", *value);
  if (const TomlValue* files = section.find("files")) out.files = section.paths("files", *files);
  out.field = section.text("field", out.field);
  out.nsamples = section.integer("nsamples", out.nsamples, 0);
  out.seqlen = section.integer("seqlen", out.seqlen, 0);
  cache_dir = section.text("cache-dir", {});
  section.refuse_others();
  return out;
}

void read_audit(Section& top, AblationRecipe& recipe) {
  const TomlValue* value = top.find("audit");
  if (value == nullptr) return;
  Section section(recipe.file, "[audit]", *value);
  recipe.audit_seqlen = section.integer("seqlen", recipe.audit_seqlen, 2);
  recipe.audit_limit = section.integer("limit", recipe.audit_limit, 0);
  section.refuse_others();
}

void read_sensitivity(Section& top, AblationRecipe& recipe) {
  const TomlValue* value = top.find("sensitivity");
  if (value == nullptr) return;
  Section section(recipe.file, "[sensitivity]", *value);
  recipe.layers = section.boolean("layers", false);
  recipe.whole = section.boolean("whole", true);
  section.refuse_others();
  if (!recipe.whole && !recipe.layers) {
    section.fail(value->line, "[sensitivity] asks for neither layers nor whole models",
                 "layers = true, or whole = true");
  }
}

}  // namespace

AblationRecipe read_ablation_recipe(const fs::path& file) {
  const std::string text = read_file(file, kMaxBytes);
  AblationRecipe recipe;
  recipe.file = file;
  recipe.sha256 = sha256_hex(text);
  const TomlValue root = parse_toml(text, file);
  Section top(recipe.file, "the recipe", root);

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
  read_sensitivity(top, recipe);
  top.refuse_others();
  return recipe;
}

}  // namespace kedge
