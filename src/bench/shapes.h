// Models whose shapes `kedge bench --shape` knows, as the config.json of the published checkpoint says.
#pragma once

#include <string>
#include <vector>

#include "model/spec.h"

namespace kedge {

/// Error(usage) lists the names.
ModelSpec shape_spec(const std::string& name);
std::vector<std::string> bench_shapes();

}  // namespace kedge
