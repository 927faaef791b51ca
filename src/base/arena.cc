#include "base/arena.h"

#include <algorithm>
#include <limits>
#include <new>

namespace kedge {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kFirstChunk = std::size_t{1} << 20;

std::byte* allocate(std::size_t bytes) {
  return static_cast<std::byte*>(::operator new(bytes, std::align_val_t(kAlignment)));
}
void release(std::byte* memory) { ::operator delete(memory, std::align_val_t(kAlignment)); }

}  // namespace

std::size_t Arena::capacity() const noexcept {
  std::size_t bytes = 0;
  for (const Chunk& chunk : chunks_) bytes += chunk.size;
  return bytes;
}

void* Arena::take_bytes(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() / 4) throw std::bad_alloc();
  bytes = std::max(bytes, std::size_t{1});
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (current_ < chunks_.size() && chunks_[current_].size - chunks_[current_].used < bytes) {
    if (current_ + 1 == chunks_.size()) break;
    ++current_;
  }
  if (chunks_.empty() || chunks_[current_].size - chunks_[current_].used < bytes) {
    const std::size_t size = std::max({kFirstChunk, bytes, capacity()});  // doubles what is held
    chunks_.push_back({{allocate(size), release}, size, 0});
    current_ = chunks_.size() - 1;
  }
  Chunk& chunk = chunks_[current_];
  void* memory = chunk.memory.get() + chunk.used;
  chunk.used += bytes;
  return memory;
}

void Arena::rewind(std::size_t chunk, std::size_t used) {
  if (chunks_.empty()) return;
  for (std::size_t i = chunk + 1; i < chunks_.size(); ++i) chunks_[i].used = 0;
  chunks_[chunk].used = used;
  current_ = chunk;
  if (chunk == 0 && used == 0 && chunks_.size() > 1) {
    const std::size_t size = capacity();
    chunks_.clear();
    current_ = 0;
    // Out of memory here is no error: the next take_bytes reports it.
    try {
      chunks_.push_back({{allocate(size), release}, size, 0});
    } catch (const std::bad_alloc&) {
      chunks_.clear();
    }
  }
}

ArenaScope::ArenaScope(Arena& arena)
    : arena_(arena), chunk_(arena.current_), used_(arena.chunks_.empty() ? 0 : arena.chunks_[arena.current_].used) {}

ArenaScope::~ArenaScope() { arena_.rewind(chunk_, used_); }

}  // namespace kedge
