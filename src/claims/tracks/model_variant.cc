#include "claims/tracks/model_variant.h"

#include <fmt/format.h>

#include <cctype>
#include <system_error>

#include "base/hash.h"
#include "base/log.h"
#include "kedge/quantize.h"

namespace kedge {

namespace fs = std::filesystem;

std::string ModelVariant::name() const {
  std::string base = shape;
  if (!model.empty()) {
    const fs::path whole = fs::weakly_canonical(model);
    base = fmt::format("{}-{}", whole.filename().string(), sha256_hex(whole.string()).substr(0, 8));
  }
  const std::string text =
      fmt::format("{}-{}-{}-{}-{}", base, scheme, scheme.empty() ? "" : method, activations, threads);
  std::string out;
  for (const char c : text) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.';
    if (plain || (!out.empty() && out.back() != '-')) out += plain ? c : '-';
  }
  return out;
}

ModelVariant read_variant(const fs::path& file, const std::string& name, const TomlValue& value) {
  TomlSection section(file, name, value);
  ModelVariant variant;
  if (const TomlValue* model = section.find("model")) {
    const std::vector<fs::path> paths = section.paths("model", *model);
    if (paths.size() != 1) section.fail(model->line, "\"model\" names several", "a list of one model folder");
    variant.model = paths[0];
  }
  variant.shape = section.text("shape", {});
  variant.scheme = section.text("scheme", {});
  variant.method = section.text("method", variant.method);
  variant.activations = section.text("activations", variant.activations);
  variant.threads = static_cast<int>(section.integer("threads", 0, 0));
  section.refuse_others();
  if (variant.model.empty() == variant.shape.empty()) {
    section.fail(section.line(), name + " has a model and a shape, or neither", "one of them");
  }
  if (variant.activations != "fp32" && variant.activations != "int8") {
    section.fail(section.line(), "\"activations\" is \"" + variant.activations + "\"", "fp32 or int8");
  }
  if (!variant.scheme.empty() && quantize_method_needs_torch(variant.method)) {
    section.fail(section.line(), "the method " + variant.method + " needs kedge-torch", "one without gradients");
  }
  return variant;
}

fs::path prepare_variant(const ModelVariant& variant, const fs::path& scratch) {
  if (variant.scheme.empty()) return variant.model;
  ModelVariant weights = variant;  // activations and threads are no matter of the file
  weights.activations = "fp32", weights.threads = 0;
  QuantizeOptions options;
  options.source = variant.model;
  options.destination = scratch / weights.name();
  std::error_code ignored;
  if (fs::exists(options.destination, ignored)) return options.destination;
  options.scheme = variant.scheme;
  options.method = variant.method;
  options.calibration.nsamples = 64;
  options.calibration.seqlen = 256;
  options.calibration.seed = 1;
  const TalkScope talk(false);
  quantize(options);
  return options.destination;
}

RuntimeOptions runtime_of(const ModelVariant& variant, RuntimeOptions runtime) {
  runtime.activations = variant.activations;
  if (variant.threads > 0) runtime.threads = variant.threads;
  return runtime;
}

}  // namespace kedge
