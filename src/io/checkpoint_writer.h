// A Hugging Face model directory, written shard by shard so that a kill loses at most one shard.
//
// Everything goes to "<destination>.partial". Each finished shard is recorded in "<partial>/progress.json" with its
// hash; resuming with the same plan skips the shards whose hash still holds and yields the same bytes as an
// undisturbed run. The destination appears by one rename; only then progress.json is removed, so that a kill at any
// point can be resumed (docs/formats/quantized-checkpoint.md).
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace kedge {

struct ShardPlan {
  std::vector<SafetensorsWriter::Entry> entries;
};

class CheckpointWriter {
 public:
  /// plan_hash identifies source, recipe and tensor plan. Error(exists): the destination exists and is not empty, the
  /// partial folder belongs to another plan or to another running process (the message says what to remove).
  /// Error(io): no place to write, or not enough of it. Error(bad_file): a tensor would be written twice.
  /// A process that was just killed may hold its lock until its last write is on the disk: lock_wait is how long to
  /// wait for it.
  CheckpointWriter(std::filesystem::path destination, std::vector<ShardPlan> shards, std::string plan_hash,
                   std::chrono::milliseconds lock_wait = std::chrono::seconds(20));
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  std::size_t num_shards() const noexcept;
  /// "model.safetensors" when it is the only one, else "model-00001-of-00003.safetensors".
  const std::string& shard_name(std::size_t shard) const;
  bool is_done(std::size_t shard) const noexcept;  ///< finished by an earlier run, or by this one
  /// Writes one shard: produce(entry, sink) is called per entry in file order (SafetensorsWriter's) and hands the
  /// entry's bytes to sink(data, bytes) once. When produce throws, nothing of the shard stays.
  /// A Ctrl-C is answered between entries (throw_if_interrupted), unless it is what the shard is written for.
  using Sink = std::function<void(const void* data, std::size_t bytes)>;
  void write_shard(std::size_t shard, const std::function<void(const SafetensorsWriter::Entry&, const Sink&)>& produce,
                   bool interruptible = true);
  /// A side file (config.json, tokenizer.json, kedge.manifest.json) into the partial folder, atomically.
  void write_file(const std::string& name, std::string_view content);
  void copy_file(const std::filesystem::path& source);
  /// Writes the index when there is more than one shard, fsyncs, renames to the destination. All shards must be done.
  void finish();
  /// Records that all files are written: from now on scratch files (what only a run under way needs) may go, and a run
  /// that finds the record has nothing left to do but that and finish().
  void mark_complete();
  bool is_complete() const noexcept;
  /// Was a writer of this folder killed after it had its name but before its last step? The same writer finishes it.
  static bool is_unfinished(const std::filesystem::path& destination);
  /// Where files are now: the partial folder, or the destination after the rename.
  const std::filesystem::path& folder() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
