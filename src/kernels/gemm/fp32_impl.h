// Products with fp32 rows: a decode kernel (few rows, weights streamed once through registers) and a tile kernel
// (a slice of two panels is turned to fp32 once, then serves all tiles of the row block). One source per ISA.
#pragma once

#include "kernels/gemm/dequant_impl.h"

namespace kedge {
namespace {

constexpr std::int64_t kSlice = 128;         // k per prefill slice: the fp32 slice stays in L1
constexpr std::int64_t kPrefetchAhead = 1024;  // bytes; 2048 measures the same

template <class D, int R, int P>
void decode_tile(const GemmTask& t, const PanelSet& panels, const float* x, float* y) noexcept {
  constexpr int V = P * kHalves;
  constexpr std::int64_t kBlockBytes = D::kHalfBytes * kHalves;
  const WeightView& w = t.w;
  const std::uint8_t* codes = w.codes + panels.first * w.panel_bytes;
  const std::int64_t stride = panels.step * w.panel_bytes;
  VF acc[R * V];
  unroll<R * V>([&]<int I>() KEDGE_INLINE { acc[I] = vzero(); });
  const std::int64_t groups = D::kAffine ? w.groups : 1;
  for (std::int64_t g = 0; g < groups; ++g) {
    typename D::Group c[V];
    unroll<V>([&]<int v>() KEDGE_INLINE {
      c[v] = D::group(w, panels.first + v / kHalves * panels.step, g, v % kHalves);
    });
    const std::int64_t end = (g + 1) * w.group < w.k ? (g + 1) * w.group : w.k;
    for (std::int64_t k = g * w.group; k < end; k += D::kStep) {
      const std::uint8_t* block = codes + k / D::kStep * kBlockBytes;
      unroll<P>([&]<int p>() KEDGE_INLINE {
        _mm_prefetch(reinterpret_cast<const char*>(block + p * stride + kPrefetchAhead), _MM_HINT_T0);
      });
      unroll<D::kStep>([&]<int J>() KEDGE_INLINE {
        unroll<V>([&]<int v>() KEDGE_INLINE {
          const VF weight = D::template weight<J>(block + v / kHalves * stride + v % kHalves * D::kHalfBytes, c[v]);
          unroll<R>([&]<int r>() KEDGE_INLINE {
            acc[r * V + v] = vfma(vset(x[(k + J) * R + r]), weight, acc[r * V + v]);
          });
        });
      });
    }
  }
  alignas(64) float out[R * V * kLanes];
  unroll<R * V>([&]<int I>() KEDGE_INLINE { vstore(out + I * kLanes, acc[I]); });
  const std::int64_t column = panels.first * kPanel;
  for (int r = 0; r < R; ++r) {
    store_outputs(y + r * t.ldy + column - t.y_column, out + r * V * kLanes, column, w.n, panels.count);
  }
}

/// kPanels panels at a time, then two (or one) at a time.
template <class D, int R, int kPanels>
void decode_panels(const GemmTask& t, const float* x, float* y) noexcept {
  std::int64_t panel = t.panel_begin;
  while (panel < t.panel_end) {
    const std::int64_t left = t.panel_end - panel;
    if (left >= kPanels) {
      decode_tile<D, R, kPanels>(t, {panel, 1, kPanels}, x, y);
      panel += kPanels;
    } else {
      constexpr int kTail = kPanels < 2 ? kPanels : 2;
      const bool pair = left >= kTail;
      decode_tile<D, R, kTail>(t, {panel, pair ? 1 : 0, pair ? kTail : 1}, x, y);
      panel += kTail;
    }
  }
}

/// kMaxRows: the table's max_m and row_tile of the decode row, so that there is one tile.
template <int kMaxRows>
void run_decode(const GemmTask& t) noexcept {
  const auto* x = static_cast<const float*>(t.x);
  with_policy(t.w, [&]<class D>() {
    with_rows<kMaxRows>(t.rows, [&]<int R>() { decode_panels<D, R, decode_panel_count(R)>(t, x, t.y); });
  });
}

template <class D>
void dequantize_slice(const WeightView& w, std::int64_t panel, std::int64_t begin, std::int64_t end,
                      float* out) noexcept {
  constexpr std::int64_t kBlockBytes = D::kHalfBytes * kHalves;
  const std::uint8_t* codes = w.codes + panel * w.panel_bytes;
  std::int64_t k = begin;
  while (k < end) {
    const std::int64_t g = D::kAffine ? k / w.group : 0;
    const std::int64_t stop = (g + 1) * w.group < end ? (g + 1) * w.group : end;
    typename D::Group c[kHalves];
    for (int h = 0; h < kHalves; ++h) {
      c[h] = D::group(w, panel, g, h);
    }
    for (; k < stop; k += D::kStep) {
      const std::uint8_t* block = codes + k / D::kStep * kBlockBytes;
      _mm_prefetch(reinterpret_cast<const char*>(block + kPrefetchAhead), _MM_HINT_T0);
      float* to = out + (k - begin) * kPanel;
      unroll<D::kStep>([&]<int J>() KEDGE_INLINE {
        for (int h = 0; h < kHalves; ++h) {
          vstore(to + J * kPanel + h * kLanes, D::template weight<J>(block + h * D::kHalfBytes, c[h]));
        }
      });
    }
  }
}

inline void dequantize_panels(const WeightView& w, std::int64_t begin, std::int64_t end, float* out) noexcept {
  const std::int64_t size = padded(w.k) * kPanel;
  with_policy(w, [&]<class D>() {
    for (std::int64_t panel = begin; panel < end; ++panel, out += size) {
      dequantize_slice<D>(w, panel, 0, w.k, out);
      for (std::int64_t i = w.k * kPanel; i < size; ++i) out[i] = 0;
    }
  });
}

/// sums[R][V] += x[kc][R] * w[V][kc]: w[v] steps by one panel row (16 floats) per k.
template <int R>
void fma_tile(const float* x, const float* const* w, std::int64_t kc, float* sums, bool first) noexcept {
  constexpr int V = kTilePanels * kHalves;
  static_assert(V == 2);
  VF acc[R * V];
  unroll<R * V>([&]<int I>() KEDGE_INLINE { acc[I] = first ? vzero() : vload(sums + I * kLanes); });
  const float* w0 = w[0];
  const float* w1 = w[1];
  for (std::int64_t k = 0; k < kc; ++k) {
    const VF a = vload(w0 + k * kPanel), b = vload(w1 + k * kPanel);
    unroll<R>([&]<int r>() KEDGE_INLINE {
      const VF value = vset(x[k * R + r]);
      acc[r * V] = vfma(value, a, acc[r * V]);
      acc[r * V + 1] = vfma(value, b, acc[r * V + 1]);
    });
  }
  unroll<R * V>([&]<int I>() KEDGE_INLINE { vstore(sums + I * kLanes, acc[I]); });
}

template <class D>
void tile_panels(const GemmTask& t, std::int64_t panel, int panels) noexcept {
  constexpr bool kDirect = D::kHalfBytes == kLanes * 4 && !D::kAffine;
  constexpr int V = kTilePanels * kHalves;
  alignas(64) float slice[kTilePanels][kSlice * kPanel];
  alignas(64) float sums[kRowBlock * kTilePanels * kPanel];
  const auto* x = static_cast<const float*>(t.x);
  const std::int64_t tiles = tile_count(t.rows, t.row_tile);
  for (std::int64_t k0 = 0; k0 < t.w.k; k0 += kSlice) {
    const std::int64_t kc = t.w.k - k0 < kSlice ? t.w.k - k0 : kSlice;
    const float* w[V];
    for (int v = 0; v < V; ++v) {
      // A missing second panel reads the first; its sums are dropped.
      const int p = v / kHalves < panels ? v / kHalves : 0;
      const float* from = slice[p];
      if constexpr (kDirect) {
        from = reinterpret_cast<const float*>(t.w.codes + (panel + p) * t.w.panel_bytes) + k0 * kPanel;
      } else if (v % kHalves == 0 && v / kHalves < panels) {
        dequantize_slice<D>(t.w, panel + p, k0, k0 + kc, slice[p]);
      }
      w[v] = from + v % kHalves * kLanes;
    }
    for (std::int64_t i = 0; i < tiles; ++i) {
      const std::int64_t r0 = tile_begin(t.rows, tiles, i), rows = tile_begin(t.rows, tiles, i + 1) - r0;
      with_rows<kRowTile>(rows, [&]<int R>() {
        fma_tile<R>(x + r0 * t.k_padded + k0 * R, w, kc, sums + r0 * V * kLanes, k0 == 0);
      });
    }
  }
  for (std::int64_t r = 0; r < t.rows; ++r) {
    store_outputs(t.y + r * t.ldy + panel * kPanel - t.y_column, sums + r * V * kLanes, panel * kPanel, t.w.n, panels);
  }
}

inline void run_tiles(const GemmTask& t) noexcept {
  with_policy(t.w, [&]<class D>() {
    for (std::int64_t panel = t.panel_begin; panel < t.panel_end; panel += kTilePanels) {
      tile_panels<D>(t, panel, panel + kTilePanels <= t.panel_end ? kTilePanels : 1);
    }
  });
}

}  // namespace
}  // namespace kedge
