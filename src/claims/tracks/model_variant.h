// A model as the tracks X and P measure it: as it lies there, or quantized into the scratch folder first.
#pragma once

#include <filesystem>
#include <string>

#include "base/toml_section.h"
#include "kedge/options.h"

namespace kedge {

struct ModelVariant {
  std::filesystem::path model;  ///< a folder; or
  std::string shape;            ///< random weights of bench_shapes()
  std::string scheme;           ///< empty: as the folder has it
  std::string method = "rtn";   ///< of quantization, with the seed 1 and 64 x 256 tokens of the bundled text
  std::string activations = "fp32";
  int threads = 0;  ///< 0: those of the run

  /// Of its parts, fit for a file; folders of one name at other places have other names.
  std::string name() const;
};

/// The keys model, shape, scheme, method, activations, threads. Error(bad_file).
ModelVariant read_variant(const std::filesystem::path& file, const std::string& name, const TomlValue& value);
/// Quantizes where that is asked for and not done yet; the folder to load. Not of shapes.
std::filesystem::path prepare_variant(const ModelVariant& variant, const std::filesystem::path& scratch);
RuntimeOptions runtime_of(const ModelVariant& variant, RuntimeOptions runtime);

}  // namespace kedge
