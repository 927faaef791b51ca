// Where results are written: nothing that is there is replaced unasked.
#pragma once

#include <filesystem>
#include <initializer_list>

namespace kedge {

/// Error(exists) when one of the files is in the folder and overwrite is not set; Error(exists) when the folder's name
/// is a file's.
void require_free(const std::filesystem::path& folder, std::initializer_list<const char*> files, bool overwrite);
/// With all its parents. Error(io).
void make_folder(const std::filesystem::path& folder);

}  // namespace kedge
