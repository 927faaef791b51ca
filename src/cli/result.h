// What the commands share when they print a result.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "kedge/options.h"

namespace kedge::cli {

/// The envelope of record/envelope.h for results whose trips have none of their own, as text.
std::string result_json(std::string_view schema, const RuntimeOptions& runtime, int threads,
                        nlohmann::ordered_json config, nlohmann::ordered_json results);

/// All of stdin. Error(io).
std::string read_stdin();

/// 12.34 MB.
std::string megabytes(std::uint64_t bytes);

}  // namespace kedge::cli
