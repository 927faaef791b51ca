// OUT/checkpoint-<step>: a Hugging Face directory in fp32 with optimizer.safetensors and trainer_state.json in it; and
// the finished model in OUT itself. docs/formats/training.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "model/family.h"
#include "train/trainer.h"

namespace kedge::training {

/// What a model directory has beside its weights.
struct ModelFiles {
  const nlohmann::ordered_json& config;        ///< as the user gave it; outlives this
  std::vector<std::filesystem::path> sources;  ///< tokenizer and generation files, copied
};

struct FoundCheckpoint {
  std::filesystem::path path;
  std::int64_t step = 0;
};
/// The newest of OUT; removes what a killed run has left half-written.
std::optional<FoundCheckpoint> newest_checkpoint(const std::filesystem::path& out);

/// state: trainer_state.json, with the step. Appears whole or not at all. Error(io).
void write_checkpoint(const std::filesystem::path& out, const Trainer& trainer, const ModelFiles& files,
                      std::int64_t step, const nlohmann::ordered_json& state);
/// Removes all but the newest `keep`.
void remove_old_checkpoints(const std::filesystem::path& out, std::int64_t keep);

nlohmann::ordered_json read_state(const FoundCheckpoint& found);
/// First weights of a model directory. Error(mismatch) when its spec is another one than `spec`, else as a
/// checkpoint's.
twin::Parameters read_weights(const std::filesystem::path& directory, const ModelSpec& spec,
                              const twin::Options& options);
/// Error(bad_file) for a state that does not fit the weights.
void read_optimizer(const FoundCheckpoint& found, Optimizer& optimizer);

/// The finished model; weights last, so that a folder with weights is whole. dtype: "float32", "bfloat16", "float16".
void write_model(const std::filesystem::path& out, const Trainer& trainer, const ModelFiles& files,
                 const std::string& dtype);

}  // namespace kedge::training
