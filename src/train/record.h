// OUT/training.json, which says that a run is finished and how it went: envelope kedge.train/1
// (docs/formats/training.md).
#pragma once

#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "kedge/train.h"
#include "model/spec.h"

namespace kedge::training {

inline constexpr const char* kRecordFile = "training.json";
inline constexpr const char* kPageFile = "training.html";
inline constexpr const char* kLogFile = "train.jsonl";

/// All parameters, and those that one token meets.
void count_parameters(const ModelSpec& spec, TrainReport& report);
/// loss, expert_load and, where this run did not measure it, valid_loss from the lines of the log.
void summarize_log(const std::vector<nlohmann::ordered_json>& lines, TrainReport& report);
/// training.html too, before it.
void write_record(const TrainOptions& options, const nlohmann::ordered_json& settings,
                  const std::vector<nlohmann::ordered_json>& lines, const TrainReport& report);

}  // namespace kedge::training
