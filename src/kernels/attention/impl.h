// Source of attention_<isa>.cc, which define KEDGE_ATTENTION_TILE (the function's name) before including it.
//
// Registers hold kRows x kKeys dot products (16 lanes each), later kRows x kChunks pieces of the output. Tiles only
// share loads: each dot product and each output element is one chain whatever the tile, so tile sizes change no bit.
#include "kernels/attention/row.h"
#include "kernels/vec/vec16.h"

namespace kedge {
namespace {

#if KEDGE_VEC_AVX512
constexpr int kRows = 4, kKeys = 4, kChunks = 4;
#else
constexpr int kRows = 2, kKeys = 2, kChunks = 2;
#endif
constexpr std::int64_t kKeyBlock = 64;  ///< keys (values) that stay in L1 while all rows of a tile pass: 32 KB at 128

std::int64_t least(std::int64_t a, std::int64_t b) noexcept { return a < b ? a : b; }
std::int64_t most(std::int64_t a, std::int64_t b) noexcept { return a > b ? a : b; }

/// One row of a tile. The row sees positions [begin, end).
struct Row {
  const float* q;
  float* out;
  float* scores;  ///< of position 0; exists from t.base on
  std::int64_t begin, end;
};

void set_rows(const AttentionTile& t, Row* rows) noexcept {
  std::int64_t token = t.begin / t.group, head = t.begin % t.group;
  for (std::int64_t r = 0; r < t.end - t.begin; ++r) {
    const std::int64_t position = t.start + token;
    rows[r].q = t.q + token * t.q_stride + head * t.head_dim;
    rows[r].out = t.out + token * t.out_stride + head * t.value_dim;
    rows[r].scores = t.scores + r * t.score_stride - t.base;
    rows[r].begin = t.window > 0 ? most(0, position - t.window + 1) : 0;
    rows[r].end = t.visible > 0 ? t.visible : position + 1;
    if (++head == t.group) {
      head = 0;
      ++token;
    }
  }
}

#if KEDGE_VEC_AVX512
/// The sums of 16 vectors (each by the tree of hsum), in order.
KEDGE_VEC V16 hsum_each(const V16 (&a)[16]) {
  // The shuffles below deliver lane i from input kSource[i].
  constexpr int kSource[16] = {0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15};
  V16 in[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) in[kSource[i]] = a[i];
  __m512 b[8], c[4], d[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(in[i].v, in[i + 8].v, 0x44),
                         _mm512_shuffle_f32x4(in[i].v, in[i + 8].v, 0xEE));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[i], b[i + 4], 0x88), _mm512_shuffle_f32x4(b[i], b[i + 4], 0xDD));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    d[i] = _mm512_add_ps(_mm512_shuffle_ps(c[i], c[i + 2], 0x44), _mm512_shuffle_ps(c[i], c[i + 2], 0xEE));
  }
  return {_mm512_add_ps(_mm512_shuffle_ps(d[0], d[1], 0x88), _mm512_shuffle_ps(d[0], d[1], 0xDD))};
}
#elif KEDGE_VEC_AVX2
/// The sums of four vectors (each by the tree of hsum), in order.
KEDGE_VEC __m128 hsum_each(const V16 (&a)[4]) {
  __m128 x[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m256 y = _mm256_add_ps(a[i].lo, a[i].hi);
    x[i] = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  }
  const __m128 u = _mm_add_ps(_mm_movelh_ps(x[0], x[1]), _mm_movehl_ps(x[1], x[0]));
  const __m128 w = _mm_add_ps(_mm_movelh_ps(x[2], x[3]), _mm_movehl_ps(x[3], x[2]));
  return _mm_add_ps(_mm_shuffle_ps(u, w, 0x88), _mm_shuffle_ps(u, w, 0xDD));
}
#endif

/// scale * dot(q[r], k[j]) for R rows and four or two keys into out[r][j].
template <int R>
KEDGE_VEC void dot_tile(const float* const* q, const float* const* k, std::int64_t dim, float scale,
                        float* const* out) {
  constexpr int kCount = R * kKeys;
  V16 acc[kCount];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) acc[i] = set1(0.0f);
  const std::int64_t whole = dim / kLanes * kLanes;
  for (std::int64_t d = 0; d < whole; d += kLanes) {
    V16 x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) x[r] = load(q[r] + d);
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j) {
      const V16 y = load(k[j] + d);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r * kKeys + j] = fma(x[r], y, acc[r * kKeys + j]);
    }
  }
  if (dim > whole) {
    V16 x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) x[r] = load_tail(q[r] + whole, dim - whole, 0.0f);
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j) {
      const V16 y = load_tail(k[j] + whole, dim - whole, 0.0f);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r * kKeys + j] = fma(x[r], y, acc[r * kKeys + j]);
    }
  }
  float sums[kLanes];
#if KEDGE_VEC_AVX512
  if constexpr (kCount == 16) {
    store(sums, mul(hsum_each(acc), set1(scale)));
  } else {
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) sums[i] = hsum(acc[i]) * scale;
  }
#elif KEDGE_VEC_AVX2
  if constexpr (kCount == 4) {
    _mm_storeu_ps(sums, _mm_mul_ps(hsum_each(acc), _mm_set1_ps(scale)));
  } else {
    for (int i = 0; i < kCount; ++i) sums[i] = hsum(acc[i]) * scale;
  }
#else
  for (int i = 0; i < kCount; ++i) sums[i] = hsum(acc[i]) * scale;
#endif
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) __builtin_memcpy(out[r], sums + r * kKeys, kKeys * sizeof(float));
}

/// Scores of R rows with positions [begin, end). Columns up to the next multiple of kKeys past `end` are
/// written too (with a repeated key's score); nobody reads them.
template <int R>
void score_block(const AttentionTile& t, const Row* rows, std::int64_t begin, std::int64_t end) noexcept {
  const float* q[R];
  float* out[R];
  for (int r = 0; r < R; ++r) q[r] = rows[r].q;
  for (std::int64_t j = begin; j < end; j += kKeys) {
    const float* k[kKeys];
#pragma GCC unroll 4
    for (int i = 0; i < kKeys; ++i) k[i] = t.k + least(j + i, end - 1) * t.head_dim;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) out[r] = rows[r].scores + j;
    dot_tile<R>(q, k, t.head_dim, t.scale, out);
  }
}

/// Scores of a row become exp(s - max); returns their sum. Lanes are position mod 16.
float exponentials(const Row& row) noexcept {
  float* s = row.scores;
  const std::int64_t first = row.begin, last = row.end;
  const std::int64_t from = first / kLanes * kLanes, to = (last + kLanes - 1) / kLanes * kLanes;
  constexpr float kMinusInfinity = -__builtin_inff();
  for (std::int64_t j = from; j < first; ++j) s[j] = kMinusInfinity;
  for (std::int64_t j = last; j < to; ++j) s[j] = kMinusInfinity;
  V16 m = set1(kMinusInfinity);
  for (std::int64_t j = from; j < to; j += kLanes) m = max(m, load(s + j));
  m = set1(hmax(m));
  V16 sum = set1(0.0f);
  for (std::int64_t j = from; j < to; j += kLanes) {
    const V16 e = exp(sub(load(s + j), m));
    store(s + j, e);
    sum = add(sum, e);
  }
  return hsum(sum);
}

/// out[r] += p[r][j] v[j] for j in [begin, end), R rows, C chunks of 16 lanes from dimension d.
template <int R, int C>
KEDGE_VEC void value_tile(const AttentionTile& t, const Row* rows, std::int64_t begin, std::int64_t end,
                          std::int64_t d) {
  V16 acc[R][C];
  const float* p[R];
  float* out[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    p[r] = rows[r].scores;
    out[r] = rows[r].out + d;
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) acc[r][c] = load(out[r] + c * kLanes);
  }
  const float* v = t.v + begin * t.value_dim + d;
  for (std::int64_t j = begin; j < end; ++j, v += t.value_dim) {
    V16 x[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) x[c] = load(v + c * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const V16 weight = set1(p[r][j]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[r][c] = fma(weight, x[c], acc[r][c]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) store(out[r] + c * kLanes, acc[r][c]);
  }
}

/// The last value_dim mod 16 dimensions.
void value_tail(const AttentionTile& t, const Row& row, std::int64_t begin, std::int64_t end, std::int64_t d) noexcept {
  const std::int64_t rest = t.value_dim - d;
  V16 acc = load_tail(row.out + d, rest, 0.0f);
  for (std::int64_t j = begin; j < end; ++j) {
    acc = fma(set1(row.scores[j]), load_tail(t.v + j * t.value_dim + d, rest, 0.0f), acc);
  }
  store_tail(row.out + d, rest, acc);
}

template <int R>
void value_block(const AttentionTile& t, const Row* rows, std::int64_t begin, std::int64_t end) noexcept {
  if (begin >= end) return;
  std::int64_t d = 0;
  for (; d + kChunks * kLanes <= t.value_dim; d += kChunks * kLanes) value_tile<R, kChunks>(t, rows, begin, end, d);
  for (; d + kLanes <= t.value_dim; d += kLanes) value_tile<R, 1>(t, rows, begin, end, d);
  if (d < t.value_dim) {
    for (int r = 0; r < R; ++r) value_tail(t, rows[r], begin, end, d);
  }
}

/// value_block for each row's own part of the positions [begin, end): together where all rows see them.
void value_rows(const AttentionTile& t, const Row* rows, int count, std::int64_t begin, std::int64_t end) noexcept {
  const std::int64_t from = most(begin, rows[count - 1].begin), to = least(end, rows[0].end);
  if (count != kRows || from >= to) {
    for (int r = 0; r < count; ++r) {
      value_block<1>(t, rows + r, most(begin, rows[r].begin), least(end, rows[r].end));
    }
    return;
  }
  if (rows[0].begin < from) {
    for (int r = 0; r < count; ++r) value_block<1>(t, rows + r, most(begin, rows[r].begin), from);
  }
  value_block<kRows>(t, rows, from, to);
  for (int r = 0; r < count; ++r) value_block<1>(t, rows + r, to, least(end, rows[r].end));
}

}  // namespace

void KEDGE_ATTENTION_TILE(const AttentionTile& t) noexcept {
  const std::int64_t count = t.end - t.begin;
  if (count < 1) return;
  Row rows[kAttentionTileRows];
  set_rows(t, rows);
  // Rows are ordered by token, so the ends of what they see ascend.
  const std::int64_t first = rows[0].begin / kKeyBlock * kKeyBlock, last = rows[count - 1].end;
  const auto step = [&](std::int64_t r) { return count - r >= kRows ? kRows : 1; };
  for (std::int64_t block = first; block < last; block += kKeyBlock) {
    for (std::int64_t r = 0; r < count; r += step(r)) {
      // Whole groups of kKeys keep each key's column in one store; columns below `base` do not exist.
      const std::int64_t from = most(block, rows[r].begin / kKeys * kKeys);
      const std::int64_t to = least(block + kKeyBlock, rows[r + step(r) - 1].end);
      if (step(r) == kRows) {
        score_block<kRows>(t, rows + r, from, to);
      } else {
        score_block<1>(t, rows + r, from, to);
      }
    }
  }
  float sums[kAttentionTileRows];
  for (std::int64_t r = 0; r < count; ++r) {
    sums[r] = exponentials(rows[r]);
    for (std::int64_t d = 0; d < t.value_dim; ++d) rows[r].out[d] = 0.0f;
  }
  for (std::int64_t block = first; block < last; block += kKeyBlock) {
    for (std::int64_t r = 0; r < count; r += step(r)) {
      value_rows(t, rows + r, step(r), block, least(block + kKeyBlock, last));
    }
  }
  for (std::int64_t r = 0; r < count; ++r) {
    float* out = rows[r].out;
    const V16 sum = set1(sums[r]);
    std::int64_t d = 0;
    for (; d + kLanes <= t.value_dim; d += kLanes) store(out + d, div(load(out + d), sum));
    if (d < t.value_dim) store_tail(out + d, t.value_dim - d, div(load_tail(out + d, t.value_dim - d, 0.0f), sum));
  }
}

}  // namespace kedge
