#include "io/folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "base/interrupt.h"
#include "kedge/error.h"

namespace kedge {
namespace {

[[noreturn]] void throw_io(const std::string& doing, const std::filesystem::path& path, int error) {
  throw Error(ErrorCode::io, "cannot " + doing + " " + path.string() + ": " + std::strerror(error), "",
              error == ENOSPC || error == EDQUOT ? "free some space there" : "");
}

}  // namespace

Folder::Folder(const std::filesystem::path& path)
    : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (fd_ < 0) throw_io("open", path, errno);
}

Folder::~Folder() { ::close(fd_); }

bool Folder::lock(std::chrono::milliseconds wait) {
  constexpr std::chrono::milliseconds step{50};
  for (;; wait -= step) {
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return true;
    if (wait.count() <= 0) return false;
    throw_if_interrupted();
    std::this_thread::sleep_for(step);
  }
}

void Folder::sync() {
  if (::fsync(fd_) != 0 && errno != EINVAL) throw_io("write", path_, errno);  // EINVAL: cannot sync folders here
}

}  // namespace kedge
