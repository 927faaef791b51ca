// Where a result comes from: enough to repeat it. Part of every JSON result (record/envelope.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/exec.h"

namespace kedge {

/// A file or a model folder that was read.
struct InputRecord {
  std::string role;  ///< "original", "quantized", "model", "text", ...
  std::string path;
  std::string sha256;  ///< hash_input()
};

struct Provenance {
  std::string kedge_version, git_hash, build_type;
  std::string cpu, isa, numerics, activations;
  int threads = 0;
  std::string date;  ///< UTC, ISO 8601: "2026-01-31T23:59:59Z"
  std::vector<std::string> command_line;
  std::vector<std::uint64_t> seeds;
  std::vector<InputRecord> inputs;
};

/// Everything but seeds and inputs, which the caller adds.
Provenance make_provenance(const LoadOptions& options, int threads);

/// SHA-256 of a file's bytes. Of a folder: of the lines "<file hash>  <name>\n" of its *.safetensors, *.gguf, *.json,
/// *.model, *.txt and *.jinja files, by name, not recursive: what `cd FOLDER && sha256sum FILES | sha256sum` prints.
/// Reads everything once. Throws Error(not_found), Error(io), Error(interrupted).
std::string hash_input(const std::filesystem::path& path);
InputRecord record_input(std::string role, const std::filesystem::path& path);

nlohmann::ordered_json to_json(const Provenance& provenance);

}  // namespace kedge
