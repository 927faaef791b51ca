#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kedge/error.h"

namespace kedge {
namespace {

[[noreturn]] void throw_io(const char* doing, const std::filesystem::path& path, int error) {
  const char* to_do = "";
  if (error == ENOSPC || error == EDQUOT) to_do = "free some space there";
  if (error == ENOENT) to_do = "create the folder first";
  if (error == EACCES || error == EPERM || error == EROFS) to_do = "choose a place you may write to";
  throw Error(ErrorCode::io, std::string("cannot ") + doing + " " + path.string() + ": " + std::strerror(error), "",
              to_do);
}

struct Fd {
  int fd;
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
};

bool is_device_or_pipe(const std::filesystem::path& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

// Some file systems cannot sync a folder and say EINVAL; every other failure means the data may be lost.
void sync_folder(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  Fd fd{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (fd.fd < 0) throw_io("open", folder, errno);
  if (::fsync(fd.fd) != 0 && errno != EINVAL) throw_io("write", folder, errno);
}

}  // namespace

std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (fd.fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) throw Error(ErrorCode::not_found, "no such file: " + path.string());
    throw_io("read", path, errno);
  }
  struct stat status;
  if (::fstat(fd.fd, &status) != 0) throw_io("read", path, errno);
  if (S_ISDIR(status.st_mode)) throw_io("read", path, EISDIR);
  std::string text;
  if (S_ISREG(status.st_mode))
    text.reserve(std::min<std::uint64_t>(static_cast<std::uint64_t>(status.st_size), max_bytes));
  // The size is a hint: files in /proc say 0, pipes have none.
  char block[1 << 16];
  for (;;) {
    const ssize_t got = ::read(fd.fd, block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_io("read", path, errno);
    if (got == 0) return text;
    if (text.size() + static_cast<std::uint64_t>(got) > max_bytes) {
      throw Error(ErrorCode::bad_file, path.string() + " is too large",
                  "at most " + std::to_string(max_bytes) + " bytes");
    }
    text.append(block, static_cast<std::size_t>(got));
  }
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  // A device or a pipe (/dev/stdout, /dev/null) must not be replaced by a file: it is written in place.
  if (is_device_or_pipe(path_)) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    temporary_ = path_;
    temporary_ += ".tmp-" + std::to_string(::getpid());
    ::unlink(temporary_.c_str());  // left by a killed process that had the same number
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }
  if (fd_ < 0) {
    const int error = errno;
    temporary_.clear();
    throw_io("create", path_, error);
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  KEDGE_CHECK(fd_ >= 0);
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_io("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
  KEDGE_CHECK(fd_ >= 0);
  const bool in_place = temporary_.empty();
  if (!in_place && ::fsync(fd_) != 0) throw_io("write", path_, errno);
  if (::close(std::exchange(fd_, -1)) != 0) throw_io("write", path_, errno);
  if (in_place) return;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw_io("create", path_, errno);
  temporary_.clear();
  sync_folder(path_);
}

void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace kedge
