// Recipe: what is to be done to a checkpoint, as data. Its hash identifies it in manifests and partial folders.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/wire/name_pattern.h"
#include "quant/scheme.h"

namespace kedge {

/// "re:..." (anchored at the start only, as compressed-tensors' re.match) or a glob over the whole name.
class ModulePattern {
 public:
  /// Error(usage) for an empty pattern or a broken regular expression.
  explicit ModulePattern(std::string pattern);
  bool matches(std::string_view name) const;
  const std::string& text() const noexcept { return text_; }

 private:
  std::string text_;
  std::optional<NamePattern> regex_;
};

struct Override {
  ModulePattern pattern;
  std::optional<QuantScheme> scheme;  ///< nullopt: "none"
};

struct Recipe {
  QuantScheme scheme;
  std::string method;
  std::vector<Override> overrides;  ///< later ones win

  nlohmann::ordered_json to_json() const;
  std::string hash() const;  ///< SHA-256 of the JSON text
};

}  // namespace kedge
