// JSON (nlohmann) as kedge reads it: duplicate keys, excessive depth and trailing text are errors.
// Include this only where JSON is parsed or built: it costs seconds per translation unit. Headers use json_fwd.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace kedge {

using Json = nlohmann::ordered_json;

/// Throws Error(bad_file) naming `where` (a path or "the header of PATH"): malformed, duplicate key
/// (also after unescaping), nesting deeper than max_depth, invalid UTF-8.
Json parse_json(std::string_view text, const std::string& where, int max_depth = 64);
Json read_json(const std::filesystem::path& path);

/// A value that must be there with the right type; Error(bad_file) names the key and `where`.
/// T: bool, int64_t, double, std::string.
template <class T>
T json_get(const Json& object, const char* key, const std::string& where);
/// The same, but a missing key or null gives the fallback.
template <class T>
T json_get_or(const Json& object, const char* key, T fallback, const std::string& where);

}  // namespace kedge
