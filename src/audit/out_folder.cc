#include "audit/out_folder.h"

#include <system_error>

#include "kedge/error.h"

namespace kedge {

void require_free(const std::filesystem::path& folder, std::initializer_list<const char*> files, bool overwrite) {
  std::error_code ignored;
  if (std::filesystem::exists(folder, ignored) && !std::filesystem::is_directory(folder, ignored)) {
    throw Error(ErrorCode::exists, folder.string() + " is a file", "a folder, or a name that is free");
  }
  for (const char* file : files) {
    if (!overwrite && std::filesystem::exists(folder / file, ignored)) {
      throw Error(ErrorCode::exists, (folder / file).string() + " exists already", {},
                  "choose another folder or give --overwrite");
    }
  }
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error(ErrorCode::io, "cannot make the folder " + folder.string() + ": " + error.message());
}

}  // namespace kedge
