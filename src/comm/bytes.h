// Numbers and lists of them as bytes, for ranks of one program on machines of one kind.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/check.h"

namespace kedge {

class ByteWriter {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  template <class T>
  void put(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    put(static_cast<std::uint64_t>(values.size()));
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  void put(std::string_view text) {
    put(static_cast<std::uint64_t>(text.size()));
    bytes_.append(text);
  }
  const std::string& bytes() const noexcept { return bytes_; }

 private:
  std::string bytes_;
};

/// Reads what a ByteWriter of the same program wrote, in the same order.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}
  template <class T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, advance(sizeof(T)), sizeof(T));
    return value;
  }
  template <class T>
  std::vector<T> take_list() {
    std::vector<T> values(take<std::uint64_t>());
    if (!values.empty()) std::memcpy(values.data(), advance(values.size() * sizeof(T)), values.size() * sizeof(T));
    return values;
  }
  std::string take_text() {
    const auto size = take<std::uint64_t>();
    return std::string(advance(size), size);
  }
  bool empty() const noexcept { return rest_.empty(); }

 private:
  const char* advance(std::size_t bytes) {
    KEDGE_CHECK(bytes <= rest_.size());
    const char* at = rest_.data();
    rest_.remove_prefix(bytes);
    return at;
  }
  std::string_view rest_;
};

}  // namespace kedge
