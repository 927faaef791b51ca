// The one shape of every JSON result of kedge:
// {"schema": "kedge.audit/1", "provenance": {...}, "config": {...}, "results": {...}, "samples": [...]}
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "record/provenance.h"

namespace kedge {

/// schema: "kedge.<what>/<version>". config: what was asked for. results: the figures. samples: the per-sequence (or
/// per-run) values that the figures were computed from; may be an empty array.
nlohmann::ordered_json make_envelope(std::string_view schema, const Provenance& provenance,
                                     nlohmann::ordered_json config, nlohmann::ordered_json results,
                                     nlohmann::ordered_json samples);

/// Two-space indentation and a final newline; NaN and infinities become null; bytes that are no UTF-8 (in paths)
/// become U+FFFD.
std::string envelope_text(const nlohmann::ordered_json& envelope);

/// Whole or not at all. Throws Error(io).
void write_envelope(const std::filesystem::path& path, const nlohmann::ordered_json& envelope);

}  // namespace kedge
