// A read-only, memory-mapped file. Its size is taken once, at open.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace kedge {

class MappedFile {
 public:
  /// Throws Error(not_found) or Error(io). An empty file gives an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  const std::filesystem::path& path() const noexcept { return path_; }
  /// Tells the system that these bytes are not needed for now (they are read again from the file when touched).
  void drop(std::span<const std::byte> range) const noexcept;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace kedge
