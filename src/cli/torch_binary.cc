#include "cli/torch_binary.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

constexpr const char* kName = "kedge-torch";

}  // namespace

bool torch_binary_is_there() noexcept {
  std::error_code failed;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", failed);
  return !failed && ::access((self.parent_path() / kName).c_str(), X_OK) == 0;
}

void exec_torch(const std::vector<std::string>& words) {
  std::error_code failed;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (failed) throw Error(ErrorCode::io, "the running program cannot be found: " + failed.message());
  KEDGE_CHECK(self.filename() != kName);
  exec_torch_from(self.parent_path(), words);
}

void exec_torch_from(const std::filesystem::path& folder, const std::vector<std::string>& words) {
  const std::string program = (folder / kName).string();
  if (::access(program.c_str(), X_OK) != 0) {
    throw Error(ErrorCode::not_found, "this needs libtorch, and there is no " + program, "",
                "run \"make torch\" in kedge's source folder once: it installs libtorch and builds kedge-torch");
  }
  // libtorch's threads spin at their barriers for milliseconds unless told not to, which costs a multiple where other
  // processes want the same cores; asleep at once they wake late on a virtual machine. Read when the OpenMP library is
  // loaded, so too late within kedge-torch; the user's own choice stays.
  if (::getenv("OMP_WAIT_POLICY") == nullptr) ::setenv("GOMP_SPINCOUNT", "10000", /*overwrite=*/0);
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  throw Error(ErrorCode::io, program + " cannot be started: " + std::strerror(errno));
}

}  // namespace kedge::cli
