// Hidden states of all calibration sequences between two blocks, fp32 [sequences, seqlen, hidden]: in memory, or in a
// file without a name in a cache folder, for calibration sets larger than memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace kedge {

class HiddenStates {
 public:
  /// cache_dir empty: memory. Error(io): the folder cannot be written to or is too full.
  HiddenStates(std::int64_t sequences, std::int64_t seqlen, std::int64_t hidden_size,
               const std::filesystem::path& cache_dir = {});
  ~HiddenStates();
  HiddenStates(const HiddenStates&) = delete;
  HiddenStates& operator=(const HiddenStates&) = delete;

  std::int64_t sequences() const noexcept { return sequences_; }
  std::int64_t seqlen() const noexcept { return seqlen_; }
  std::int64_t hidden_size() const noexcept { return hidden_size_; }
  std::int64_t rows() const noexcept { return sequences_ * seqlen_; }
  /// Row r of all sequences one after the other.
  float* row(std::int64_t r) noexcept { return data_ + r * hidden_size_; }
  const float* row(std::int64_t r) const noexcept { return data_ + r * hidden_size_; }
  std::size_t num_bytes() const noexcept;

 private:
  std::int64_t sequences_, seqlen_, hidden_size_;
  float* data_ = nullptr;
};

}  // namespace kedge
