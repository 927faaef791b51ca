// OUT/training.html: the curves of a run, from its log and its record.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace kedge::training {

/// record: training.json; lines: train.jsonl.
std::string training_page(const nlohmann::ordered_json& record, const std::vector<nlohmann::ordered_json>& lines);

}  // namespace kedge::training
