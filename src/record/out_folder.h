// Where results are written: nothing that is there is replaced unasked.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace kedge {

/// Error(exists) when one of the files is in the folder and overwrite is not set; Error(exists) when the folder's name
/// is a file's.
void require_free(const std::filesystem::path& folder, const std::vector<std::string>& files, bool overwrite);
/// A folder to write into, made with all its parents where it is not there; one that was made is removed again when it
/// is still empty at the end. Error(io).
class OutFolder {
 public:
  explicit OutFolder(std::filesystem::path folder);
  ~OutFolder();
  OutFolder(const OutFolder&) = delete;
  OutFolder& operator=(const OutFolder&) = delete;

 private:
  std::filesystem::path folder_;
  bool made_ = false;
};

}  // namespace kedge
