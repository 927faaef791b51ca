// safetensors files (format: huggingface/safetensors, tensor.rs): u64 N | N bytes of JSON | data.
//
// The reader makes every check of the reference and rejects duplicate keys too; a file that it accepts has no
// holes, no overlaps, no trailing bytes. Views point into the mapping and may be unaligned.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace kedge {

struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  ///< bytes, relative to the data section
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< by offset
  std::map<std::string, std::string> metadata;
  std::uint64_t data_begin = 0;  ///< 8 + N
};

/// Limits of a header. The reference has the first; the others keep a hostile file cheap.
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
inline constexpr std::size_t kMaxTensors = 1'000'000;
inline constexpr std::size_t kMaxRank = 8;
inline constexpr std::size_t kMaxTensorName = 4096;

/// Parses and validates. `file` is the whole file; `where` names it in errors. Error(bad_file).
SafetensorsHeader parse_safetensors(std::string_view file, const std::string& where);

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const SafetensorsHeader& header() const noexcept;
  bool has(std::string_view name) const noexcept;
  /// Error(not_found) names the tensor and the file.
  TensorView tensor(std::string_view name) const;
  /// Lets the system forget the pages of this tensor.
  void drop(std::string_view name) const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes one file, tensors ordered by descending element size and then by name (so that data is aligned),
/// header padded with spaces to 8 bytes. The layout is declared first, then data is streamed in that order:
/// a checkpoint larger than memory can be written. Atomic (AtomicFile).
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    DType dtype;
    Shape shape;
  };
  /// Error(bad_file) for a name that occurs twice or cannot be stored.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<Entry> entries,
                    const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();
  /// The entries in the order in which write() must be called.
  const std::vector<Entry>& order() const noexcept;
  /// Data of the next entry; name and size are CHECKed against order().
  void write(std::string_view name, const void* data, std::size_t bytes);
  /// fsync and rename; CHECKs that all entries were written.
  void finish();
  /// Of the whole file; once, after finish().
  std::string sha256();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Bytes of an entry's data. CHECKs that they are whole and do not overflow.
std::uint64_t entry_bytes(const SafetensorsWriter::Entry& entry);

/// Convenience for small files.
void write_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace kedge
