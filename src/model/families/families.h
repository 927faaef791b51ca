// The families; families.cc lists them.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "model/spec.h"

namespace kedge::families {

ModelSpec olmoe(const nlohmann::ordered_json& config, const std::string& where);
ModelSpec qwen3_moe(const nlohmann::ordered_json& config, const std::string& where);
ModelSpec mixtral(const nlohmann::ordered_json& config, const std::string& where);
ModelSpec deepseek_v3(const nlohmann::ordered_json& config, const std::string& where);
ModelSpec kedge_mcqsmoe(const nlohmann::ordered_json& config, const std::string& where);

}  // namespace kedge::families
