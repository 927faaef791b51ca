// Whole small files in, atomic files out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace kedge {

/// Throws Error(not_found), Error(io), or Error(bad_file) above max_bytes.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes = 1ull << 30);

/// A file that appears under its name whole or not at all: written to "<name>.tmp-<pid>" beside it, fsync,
/// rename, fsync of the folder. Destroyed before commit(): the temporary is removed.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);  ///< Throws Error(io): the message names the file and the cause.
  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view text);

}  // namespace kedge
