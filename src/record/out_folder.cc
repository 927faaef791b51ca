#include "record/out_folder.h"

#include <unistd.h>

#include <system_error>
#include <utility>

#include "kedge/error.h"

namespace kedge {

void require_free(const std::filesystem::path& folder, const std::vector<std::string>& files, bool overwrite) {
  std::error_code ignored;
  if (std::filesystem::exists(folder, ignored) && !std::filesystem::is_directory(folder, ignored)) {
    throw Error(ErrorCode::exists, folder.string() + " is a file", "a folder, or a name that is free");
  }
  for (const std::string& file : files) {
    if (!overwrite && std::filesystem::exists(folder / file, ignored)) {
      throw Error(ErrorCode::exists, (folder / file).string() + " exists already", {},
                  "choose another folder or give --overwrite");
    }
  }
}

OutFolder::OutFolder(std::filesystem::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  made_ = std::filesystem::create_directories(folder_, error);
  if (error) throw Error(ErrorCode::io, "cannot make the folder " + folder_.string() + ": " + error.message());
}

OutFolder::~OutFolder() {
  if (made_) ::rmdir(folder_.c_str());  // fails where it holds something
}

}  // namespace kedge
