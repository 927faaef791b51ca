// The machine at one moment, as far as it can be read: what a timing depends on and a hash does not tell.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kedge {

/// cpu, cpus, affinity, memory_bytes, memory_available_bytes, load_average (1, 5, 15 minutes), governor, frequency_mhz,
/// temperature_c, kernel, compiler; null where this system does not say.
nlohmann::ordered_json machine_state();

/// UTC, ISO 8601: "2026-01-31T23:59:59Z".
std::string utc_time();

}  // namespace kedge
