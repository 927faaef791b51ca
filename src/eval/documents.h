// The records of a task, from JSON lines (.jsonl), a JSON list (.json) or text (.txt, .raw, .tokens), each perhaps
// packed
// (.gz, .xz), or from the small sets that are part of the program.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace kedge {

struct Documents {
  std::vector<nlohmann::ordered_json> records;  ///< objects; of text {"text": ...}
  std::string path;                             ///< "bundled:NAME" for those of the program
  std::string sha256;                           ///< of the unpacked bytes
  bool bundled = false;
};

/// The first of `names` that lies in one of `folders`, plain, .gz or .xz. Without any folder: the program's own subset.
/// Error(not_found): none is there; says where it looked. Error(bad_file) names file and line. Error(usage): no record.
/// split_pattern: of text files, each match begins a document.
Documents read_documents(const std::vector<std::string>& names, const std::vector<std::filesystem::path>& folders,
                         const std::string& split_pattern = {});

}  // namespace kedge
