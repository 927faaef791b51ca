#include "ptq/layers/hidden_states.h"

#include <cerrno>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kedge/error.h"

namespace kedge {
namespace {

// A file that is gone with the process. posix_fallocate takes the space now: a full disk is an error here, not a
// signal later.
int open_cache(const std::filesystem::path& folder, std::size_t bytes) {
  std::string name = (folder / ".kedge-states-XXXXXX").string();
  const int fd = mkstemp(name.data());
  if (fd < 0) {
    throw Error(ErrorCode::io, "the cache folder " + folder.string() + " cannot be written to: " + std::strerror(errno),
                "a folder with free space", "choose another --cache-dir");
  }
  unlink(name.c_str());
  const int failed = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (failed != 0) {
    close(fd);
    throw Error(ErrorCode::io,
                fmt::format("{:.1f} MB of hidden states do not fit the cache folder {}: {}", double(bytes) / 1e6,
                            folder.string(), std::strerror(failed)),
                "", "free some space, choose another --cache-dir, or calibrate on fewer samples");
  }
  return fd;
}

}  // namespace

HiddenStates::HiddenStates(std::int64_t sequences, std::int64_t seqlen, std::int64_t hidden_size,
                           const std::filesystem::path& cache_dir)
    : sequences_(sequences), seqlen_(seqlen), hidden_size_(hidden_size) {
  const int fd = cache_dir.empty() ? -1 : open_cache(cache_dir, num_bytes());
  const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* at = mmap(nullptr, num_bytes(), PROT_READ | PROT_WRITE, flags, fd, 0);
  const int error = errno;
  if (fd >= 0) close(fd);
  if (at == MAP_FAILED) {
    throw Error(ErrorCode::io,
                fmt::format("{:.1f} MB for hidden states are not to be had: {}", double(num_bytes()) / 1e6,
                            std::strerror(error)),
                "", "give --cache-dir, or calibrate on fewer samples");
  }
  data_ = static_cast<float*>(at);
}

HiddenStates::~HiddenStates() { munmap(data_, num_bytes()); }

std::size_t HiddenStates::num_bytes() const noexcept {
  return static_cast<std::size_t>(rows() * hidden_size_) * sizeof(float);
}

}  // namespace kedge
