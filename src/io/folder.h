// A folder that is open: to lock it against other processes, to bring its entries to the disk.
#pragma once

#include <chrono>
#include <filesystem>

namespace kedge {

class Folder {
 public:
  explicit Folder(const std::filesystem::path& path);  ///< Error(io)
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  /// false when another process holds the lock all this time. Held until the object or the process goes; no file is
  /// needed for it. File systems without locks pass. Error(interrupted).
  bool lock(std::chrono::milliseconds wait);
  void sync();  ///< Error(io)

 private:
  std::filesystem::path path_;
  int fd_;
};

}  // namespace kedge
