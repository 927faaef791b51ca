// Attention of one tile of rows, one version per ISA (attention_<isa>.cc from impl.h), all with the same bits.
//
// A row is a (token, head) pair of one key-value head: row r is token r / group, head r % group of the group, so that
// neighbouring rows share keys and, mostly, the range of keys they see.
#pragma once

#include <cstdint>

namespace kedge {

/// Most rows that a task may hold.
constexpr std::int64_t kAttentionTileRows = 32;

struct AttentionTile {
  const float* q = nullptr;     ///< token 0, first head of the group; heads head_dim apart, tokens q_stride apart
  std::int64_t q_stride = 0;
  const float* k = nullptr;     ///< [positions][head_dim]
  const float* v = nullptr;     ///< [positions][value_dim]
  float* out = nullptr;         ///< token 0, first head of the group; heads value_dim apart, tokens out_stride apart
  std::int64_t out_stride = 0;
  std::int64_t head_dim = 0, value_dim = 0;
  std::int64_t group = 1;       ///< query heads per key-value head
  std::int64_t start = 0;       ///< position of token 0
  std::int64_t window = 0;      ///< 0: none
  std::int64_t visible = 0;     ///< positions that every row sees, where attention is not causal; else 0
  float scale = 1.0f;
  std::int64_t begin = 0, end = 0;  ///< rows, at most kAttentionTileRows
  float* scores = nullptr;      ///< [rows][score_stride]; column 0 is position `base`
  std::int64_t score_stride = 0;
  std::int64_t base = 0;        ///< multiple of 16, at or below the first position that any row sees
};

using AttentionKernel = void (*)(const AttentionTile&) noexcept;
void attention_tile_scalar(const AttentionTile&) noexcept;
void attention_tile_avx2(const AttentionTile&) noexcept;
void attention_tile_avx512(const AttentionTile&) noexcept;

}  // namespace kedge
