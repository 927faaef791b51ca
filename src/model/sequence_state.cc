#include "model/sequence_state.h"

#include <limits>

#include <fmt/format.h>

#include "base/check.h"
#include "kedge/error.h"
#include "nn/rope_frequencies.h"

namespace kedge {
namespace {

/// Keys and values of one block.
struct KvShape {
  std::int64_t heads = 0, head_dim = 0, value_dim = 0;
  const RopeSpec* rope = nullptr;
};

KvShape kv_shape(const BlockSpec& block) {
  if (const auto* a = std::get_if<Attention>(&block.mixer)) {
    return {a->num_key_value_heads, a->head_dim, a->head_dim, &a->rope};
  }
  if (const auto* a = std::get_if<Mla>(&block.mixer)) {
    return {a->num_attention_heads, a->qk_nope_head_dim + a->qk_rope_head_dim, a->v_head_dim, &a->rope};
  }
  return {};
}

/// Positions are int32 in the kernels.
constexpr std::int64_t kMaxCapacity = std::numeric_limits<std::int32_t>::max();

}  // namespace

std::size_t SequenceState::bytes_for(const ModelSpec& spec, std::int64_t capacity) noexcept {
  // In double: a bound that cannot wrap. Families' limits keep it far below 2^64 for capacities below 2^31.
  double bytes = 0;
  std::vector<const RopeSpec*> ropes;
  for (const BlockSpec& block : spec.blocks) {
    const KvShape shape = kv_shape(block);
    if (shape.rope == nullptr) continue;
    bytes += static_cast<double>(shape.heads) * static_cast<double>(shape.head_dim + shape.value_dim) *
             static_cast<double>(capacity) * sizeof(float);
    bool seen = false;
    for (const RopeSpec* rope : ropes) seen = seen || *rope == *shape.rope;
    if (seen) continue;
    ropes.push_back(shape.rope);
    bytes += static_cast<double>(shape.rope->rotary_dim) * static_cast<double>(capacity) * sizeof(float);
  }
  return bytes < 1.8e19 ? static_cast<std::size_t>(bytes) : std::numeric_limits<std::size_t>::max();
}

SequenceState::SequenceState(const ModelSpec& spec, std::int64_t capacity) : impl_(std::make_unique<Impl>()) {
  constexpr std::size_t kMost = std::size_t{1} << 46;  // 64 TiB: no machine has it, and no size below it wraps
  if (capacity < 1 || capacity > kMaxCapacity || bytes_for(spec, capacity) > kMost) {
    throw Error(ErrorCode::usage, fmt::format("a context of {} tokens cannot be held", capacity),
                "at least 1 token, and a size that fits memory");
  }
  impl_->capacity = capacity;
  std::vector<const RopeSpec*> specs;
  std::vector<std::size_t> index(spec.blocks.size());
  for (std::size_t b = 0; b < spec.blocks.size(); ++b) {
    const KvShape shape = kv_shape(spec.blocks[b]);
    if (shape.rope == nullptr) {
      impl_->kv.emplace_back();
      continue;
    }
    impl_->kv.emplace_back(shape.heads, capacity, shape.head_dim, shape.value_dim);
    index[b] = 0;
    while (index[b] < specs.size() && !(*specs[index[b]] == *shape.rope)) ++index[b];
    if (index[b] == specs.size()) {
      specs.push_back(shape.rope);
      impl_->ropes.push_back(make_rope_table(*shape.rope, capacity));
    }
  }
  impl_->rope.resize(spec.blocks.size(), nullptr);
  for (std::size_t b = 0; b < spec.blocks.size(); ++b) {
    if (impl_->kv[b].kv_heads > 0) impl_->rope[b] = &impl_->ropes[index[b]];
  }
}

SequenceState::~SequenceState() = default;
SequenceState::SequenceState(SequenceState&&) noexcept = default;
SequenceState& SequenceState::operator=(SequenceState&&) noexcept = default;

std::int64_t SequenceState::length() const noexcept { return impl_->length; }
std::int64_t SequenceState::capacity() const noexcept { return impl_->capacity; }

void SequenceState::truncate(std::int64_t length) noexcept {
  KEDGE_CHECK(length >= 0);
  if (length < impl_->length) impl_->length = length;
}

void SequenceState::advance(std::int64_t tokens) noexcept {
  KEDGE_CHECK(tokens >= 0 && tokens <= impl_->capacity - impl_->length);
  impl_->length += tokens;
}

std::size_t SequenceState::num_bytes() const noexcept {
  std::size_t bytes = 0;
  for (const KvCache& kv : impl_->kv) bytes += kv.num_bytes();
  for (const RopeTable& rope : impl_->ropes) {
    bytes += static_cast<std::size_t>(rope.half_dim() * 2 * impl_->capacity) * sizeof(float);
  }
  return bytes;
}

}  // namespace kedge
