#include "kernels/moe_ffn/moe_ffn.h"

#include <cstring>
#include <utility>

#include "base/check.h"
#include "kernels/anchor_ffn/anchor_ffn.h"
#include "kernels/moe_ffn/rows.h"

namespace kedge {
namespace {

// Tokens per claim of a thread.
constexpr std::int64_t kCombineGrain = 64;

std::size_t round_up(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

std::size_t slab_bytes(const ExpertWeights& e) {
  return round_up(e.gate.bytes_) + round_up(e.up.bytes_) + round_up(e.down.bytes_);
}

constexpr const char* kAnchored = "the experts share anchors";

const char* refuse_anchor(const ExpertFfnDesc&, const PackedExperts& experts) {
  return experts.anchored() == nullptr ? "the experts share no anchor" : nullptr;
}
const char* refuse_fused(const ExpertFfnDesc&, const PackedExperts& experts) {
  if (experts.anchored() != nullptr) return kAnchored;
  return experts_isa(experts) == Isa::scalar ? "has no scalar kernels" : nullptr;
}
const char* refuse_reference(const ExpertFfnDesc&, const PackedExperts& experts) {
  return experts.anchored() != nullptr ? kAnchored : nullptr;
}

AnchorFfnDesc anchor_desc(const ExpertFfnDesc& d) {
  return {d.num_experts, d.hidden_size, d.intermediate_size, d.activation, true};
}

void moe_ffn_anchor(const ExecContext& ctx, const MoeFfnCall& call) {
  anchor_ffn(ctx, call.x, *call.permutation, call.weights, anchor_desc(*call.desc), *call.experts->anchored(), call.y,
             {call.experts->isa(), call.intermediate});
}

constexpr MoeFfnRow kRows[] = {
    {"anchor", refuse_anchor, moe_ffn_anchor},
    {"fused", refuse_fused, moe_ffn_fused},
    {"reference", refuse_reference, moe_ffn_reference},
};

const MoeFfnRow& select_row(const ExpertFfnDesc& desc, const PackedExperts& experts) {
  for (const MoeFfnRow& row : kRows) {
    if (row.refusal(desc, experts) == nullptr) {
      return row;
    }
  }
  KEDGE_CHECK(!"experts that no row serves");
  return kRows[2];
}

}  // namespace

PackedExperts::PackedExperts() = default;
PackedExperts::~PackedExperts() = default;
PackedExperts::PackedExperts(PackedExperts&&) noexcept = default;
PackedExperts& PackedExperts::operator=(PackedExperts&&) noexcept = default;

PackedExperts::PackedExperts(std::int64_t count, ExpertWeights first)
    : experts_(static_cast<std::size_t>(count)), stride_(slab_bytes(first)) {
  slab_ = Buffer(stride_ * experts_.size());
  set(0, std::move(first));
}

PackedExperts::PackedExperts(std::unique_ptr<AnchorFfnWeights> anchored, Isa isa)
    : anchored_(std::move(anchored)), isa_(isa) {
  KEDGE_CHECK(anchored_ != nullptr && anchored_->up.experts() > 0);
}

void PackedExperts::set(std::int64_t expert, ExpertWeights weights) {
  ExpertWeights& e = experts_[static_cast<std::size_t>(expert)];
  e = std::move(weights);
  if (slab_bytes(e) != stride_) {
    return;
  }
  std::byte* at = slab_.data() + stride_ * static_cast<std::size_t>(expert);
  for (PackedWeight* w : {&e.gate, &e.up, &e.down}) {
    if (w->bytes_ == 0) {
      continue;
    }
    std::memcpy(at, w->bytes_at_, w->bytes_);
    w->storage_ = Buffer();
    w->bytes_at_ = at;
    at += round_up(w->bytes_);
  }
}

std::int64_t PackedExperts::size() const noexcept {
  return anchored_ ? anchored_->up.experts() : static_cast<std::int64_t>(experts_.size());
}

std::size_t PackedExperts::active_bytes(std::int64_t top_k) const noexcept {
  if (anchored_) return anchored_->active_bytes(top_k);
  return num_bytes() / experts_.size() * static_cast<std::size_t>(top_k);
}

std::size_t PackedExperts::num_bytes() const noexcept {
  if (anchored_) return anchored_->num_bytes();
  std::size_t bytes = slab_.size();
  for (const ExpertWeights& e : experts_) {
    bytes += e.gate.storage_.size() + e.up.storage_.size() + e.down.storage_.size();
  }
  return bytes;
}

const ExpertWeights& PackedExperts::operator[](std::int64_t expert) const noexcept {
  return experts_[static_cast<std::size_t>(expert)];
}

CombineFunction combine_for(Isa isa) noexcept {
  return isa == Isa::scalar ? combine_scalar : isa == Isa::avx2 ? combine_avx2 : combine_avx512;
}

void combine_experts(const ExecContext& ctx, const float* pairs, const TokenPermutation& permutation,
                     const float* weights, std::int64_t size, float* y, Isa isa) {
  const CombineFunction combine = combine_for(isa);
  const std::int64_t k = permutation.top_k;
  ctx.threads.parallel_for(permutation.tokens, kCombineGrain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      combine({pairs, size, permutation.pair_of.data() + t * k, weights + t * k, k, size, y + t * size});
    }
  });
}

Isa experts_isa(const PackedExperts& experts) noexcept { return experts.isa(); }

std::span<const MoeFfnRow> moe_ffn_table() noexcept { return kRows; }

void moe_ffn(const ExecContext& ctx, const float* x, const TokenPermutation& permutation, const float* weights,
             const ExpertFfnDesc& desc, const PackedExperts& experts, float* y, float* intermediate) {
  KEDGE_CHECK(static_cast<std::int64_t>(permutation.offsets.size()) == desc.num_experts + 1);
  KEDGE_CHECK(experts.size() == desc.num_experts);
  KEDGE_CHECK(y != nullptr || intermediate != nullptr);
  KEDGE_CHECK(permutation.offsets.back() == permutation.tokens * permutation.top_k);
  if (permutation.tokens == 0) {
    return;
  }
  select_row(desc, experts).run(ctx, {x, &permutation, weights, &desc, &experts, y, intermediate});
}

std::string explain_moe_ffn(const ExpertFfnDesc& desc, const PackedExperts& experts, std::int64_t tokens) {
  std::string text = "moe_ffn " + std::to_string(tokens) + " tokens, " + std::to_string(desc.num_experts) +
                     " experts, " + std::to_string(desc.hidden_size) + " x " + std::to_string(desc.intermediate_size) +
                     "\n";
  for (const MoeFfnRow& row : kRows) {
    const char* reason = row.refusal(desc, experts);
    text += "  " + std::string(row.name) + ": " + (reason == nullptr ? "chosen" : reason) + "\n";
    if (reason == nullptr) {
      break;
    }
  }
  if (experts.anchored() != nullptr) return text + explain_anchor_ffn(anchor_desc(desc), *experts.anchored(), tokens);
  const ExpertWeights& first = experts[0];
  return text + explain_gemm(first.gate.desc_, first.gate.options_, tokens) +
         explain_gemm(first.down.desc_, first.down.options_, tokens);
}

}  // namespace kedge
