// What a run is: the options checked, and as JSON what a later run must have in common with it to go on.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "kedge/train.h"
#include "train/schedule.h"
#include "train/trainer.h"

namespace kedge::training {

/// Error(usage) names the first option that is out of range.
void check(const TrainOptions& options);
Schedule schedule_of(const TrainOptions& options);
TrainerSettings trainer_settings(const TrainOptions& options);
/// Device and types of the model.
twin::Options model_options(const TrainOptions& options);

/// Hashes of what is read.
struct InputHashes {
  std::string text, tokenizer, init;  ///< init: empty for random weights
};
/// All that the losses depend on, but the number of threads.
nlohmann::ordered_json settings_json(const TrainOptions& options, const nlohmann::ordered_json& config,
                                     const ModelSpec& spec, const InputHashes& hashes, const std::string& device);
/// Error(mismatch) names the first that differs.
void check_same_settings(const nlohmann::ordered_json& recorded, const nlohmann::ordered_json& wanted,
                         const std::string& where);

}  // namespace kedge::training
