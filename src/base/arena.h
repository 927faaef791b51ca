// Scratch memory of a forward pass: a bump allocator that stops allocating once it has seen its peak.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace kedge {

class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// count elements, uninitialised, aligned to 64 bytes. Valid until the enclosing ArenaScope ends.
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
  /// Bytes held from the system.
  std::size_t capacity() const noexcept;

 private:
  friend class ArenaScope;
  void* take_bytes(std::size_t bytes);
  void rewind(std::size_t chunk, std::size_t used);

  struct Chunk {
    std::unique_ptr<std::byte[], void (*)(std::byte*)> memory;
    std::size_t size;
    std::size_t used;
  };
  std::vector<Chunk> chunks_;
  std::size_t current_ = 0;
};

/// Gives back, at its end, what was taken since its begin. When the outermost scope ends with more than
/// one chunk, they become one chunk of the summed size, so that the next pass takes no memory.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena);
  ~ArenaScope();
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  std::size_t chunk_;
  std::size_t used_;
};

}  // namespace kedge
