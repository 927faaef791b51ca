// Products with int8 rows: exact int32 sums within a group, then one FMA per group. One source per ISA.
//
// isum = sum code * q - zero * sum q. Dot policies: int8_madd_impl.h, gemm_avx512vnni.cc.
#pragma once

#include "kernels/gemm/dequant_impl.h"

namespace kedge {
namespace {

constexpr std::int64_t kInt8PrefetchAhead = 1024;  // bytes

/// D::dot<R, P>(codes, stride, x, k, end, isum) adds sum code * q over [k, end) to isum[R * V].
template <class D, int R, int P>
void int8_tile(const GemmTask& t, const PanelSet& panels, std::int64_t r0) noexcept {
  constexpr int V = P * kHalves;
  const WeightView& w = t.w;
  const std::uint8_t* codes = w.codes + panels.first * w.panel_bytes;
  const std::int64_t stride = panels.step * w.panel_bytes;
  const auto* x = static_cast<const typename D::Element*>(t.x) + r0 * t.k_padded;
  const float* sx = t.scale + r0 * w.groups;
  const std::int32_t* sum = t.sum + r0 * w.groups;
  const std::int32_t zero_point = w.zeros == nullptr ? w.zero_point : 0;
  alignas(64) float total[R * V * kLanes];  // fp32 sums over groups: registers hold the int32 sums
  unroll<R * V>([&]<int I>() KEDGE_INLINE { vstore(total + I * kLanes, vzero()); });
  for (std::int64_t g = 0; g < w.groups; ++g, sx += R, sum += R) {
    VI isum[R * V];
    unroll<R>([&]<int r>() KEDGE_INLINE {
      const VI start = vset_i(-zero_point * sum[r]);
      unroll<V>([&]<int v>() KEDGE_INLINE { isum[r * V + v] = start; });
    });
    const std::int64_t end = (g + 1) * w.group < w.k ? (g + 1) * w.group : w.k;
    D::template dot<R, P>(codes, stride, x, g * w.group, end, isum);
    unroll<V>([&]<int v>() KEDGE_INLINE {
      const std::int64_t at = group_at(w, panels.first + v / kHalves * panels.step, g, v % kHalves);
      if (w.zeros != nullptr) {
        const VI zero = vload_u8(w.zeros + at);
        unroll<R>([&]<int r>() KEDGE_INLINE {
          isum[r * V + v] = vadd_i(isum[r * V + v], vmul_i(zero, vset_i(-sum[r])));
        });
      }
      const VF sw = load_scale(w, at);
      unroll<R>([&]<int r>() KEDGE_INLINE {
        float* to = total + (r * V + v) * kLanes;
        vstore(to, vfma(vto_float(isum[r * V + v]), vmul(vset(sx[r]), sw), vload(to)));
      });
    });
  }
  const std::int64_t column = panels.first * kPanel;
  for (int r = 0; r < R; ++r) {
    store_outputs(t.y + (r0 + r) * t.ldy + column - t.y_column, total + r * V * kLanes, column, w.n, panels.count);
  }
}

/// P panels at a time (then kTail) times the tiles of the row block.
template <class D, int P, int kTail, int kMaxRows>
void int8_panels(const GemmTask& t) noexcept {
  const std::int64_t tiles = tile_count(t.rows, t.row_tile);
  std::int64_t panel = t.panel_begin;
  while (panel < t.panel_end) {
    const std::int64_t left = t.panel_end - panel;
    const bool full = left >= P;
    const PanelSet tail{panel, left > 1 ? 1 : 0, left >= kTail ? kTail : 1};
    for (std::int64_t i = 0; i < tiles; ++i) {
      const std::int64_t r0 = tile_begin(t.rows, tiles, i), rows = tile_begin(t.rows, tiles, i + 1) - r0;
      with_rows<kMaxRows>(rows, [&]<int R>() {
        if (full) {
          int8_tile<D, R, P>(t, {panel, 1, P}, r0);
        } else {
          int8_tile<D, R, kTail>(t, tail, r0);
        }
      });
    }
    panel += full ? P : kTail;
  }
}

template <int P>
inline KEDGE_INLINE void prefetch_panels(const std::uint8_t* block, std::int64_t stride) {
  unroll<P>([&]<int p>() KEDGE_INLINE {
    _mm_prefetch(reinterpret_cast<const char*>(block + p * stride + kInt8PrefetchAhead), _MM_HINT_T0);
  });
}

}  // namespace
}  // namespace kedge
