#include "routing/recording_probe.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace kedge {
namespace {

template <class T>
void copy_rows(std::span<const T> from, const std::vector<std::int64_t>& rows, std::int64_t width, std::vector<T>& to) {
  KEDGE_CHECK(from.size() == rows.size() * static_cast<std::size_t>(width));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(from.data() + static_cast<std::int64_t>(i) * width, width, to.data() + rows[i] * width);
  }
}

}  // namespace

RecordingProbe::RecordingProbe(std::span<const std::pair<int, RouterSpec>> routers, std::int64_t tokens,
                               const RecordOptions& options)
    : options_(options), capacity_(tokens) {
  if (options.routing) {
    for (const auto& [layer, router] : routers) {
      const auto k = static_cast<std::size_t>(tokens * router.num_experts_per_tok),
                 e = static_cast<std::size_t>(tokens * router.num_experts);
      trace_.layers.push_back({layer,
                               router,
                               std::vector<std::int32_t>(k),
                               std::vector<float>(k),
                               std::vector<float>(e),
                               std::vector<float>(e),
                               {},
                               {}});
    }
  }
  const auto shape = [&](std::int64_t width) {
    Shape shape = options.rows_shape.empty() ? Shape{tokens} : options.rows_shape;
    KEDGE_CHECK(num_elements(shape) == tokens);
    shape.push_back(width);
    return shape;
  };
  if (options.logits) trace_.extra.emplace("logits", Tensor(DType::f32, shape(options.vocab_size)));
  for (int i = 0; options.hidden_states && i <= options.num_layers; ++i) {
    trace_.extra.emplace("hidden_states." + std::to_string(i), Tensor(DType::f32, shape(options.hidden_size)));
  }
}

void RecordingProbe::set_rows(std::vector<std::int64_t> rows) {
  for (std::int64_t row : rows) KEDGE_CHECK(row >= 0 && row < capacity_);
  rows_ = std::move(rows);
}

void RecordingProbe::set_rows(std::int64_t begin, std::int64_t count) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
  std::iota(rows.begin(), rows.end(), begin);
  set_rows(std::move(rows));
}

unsigned RecordingProbe::sites() const noexcept {
  return (options_.routing ? static_cast<unsigned>(Site::routing) : 0u) |
         (options_.logits ? static_cast<unsigned>(Site::logits) : 0u) |
         (options_.hidden_states ? static_cast<unsigned>(Site::hidden_state) : 0u);
}

void RecordingProbe::scatter(Tensor& target, std::int64_t rows, std::int64_t width, const float* x) {
  KEDGE_CHECK(rows == static_cast<std::int64_t>(rows_.size()) && target.shape().back() == width);
  for (std::int64_t i = 0; i < rows; ++i) {
    std::copy_n(x + i * width, width, target.data<float>() + rows_[static_cast<std::size_t>(i)] * width);
  }
}

void RecordingProbe::hidden_state(int index, std::int64_t tokens, std::int64_t hidden_size, const float* x) {
  if (!options_.hidden_states) return;
  const auto target = trace_.extra.find("hidden_states." + std::to_string(index));
  KEDGE_CHECK(target != trace_.extra.end());
  scatter(target->second, tokens, hidden_size, x);
}

void RecordingProbe::routing(int layer, const RoutingDecision& decision) {
  if (!options_.routing) return;
  const auto target = std::find_if(trace_.layers.begin(), trace_.layers.end(),
                                   [layer](const LayerTrace& t) { return t.layer == layer; });
  KEDGE_CHECK(target != trace_.layers.end() && decision.tokens == static_cast<std::int64_t>(rows_.size()));
  KEDGE_CHECK(decision.num_experts == target->router.num_experts &&
              decision.top_k == target->router.num_experts_per_tok);
  copy_rows(decision.expert_ids, rows_, decision.top_k, target->expert_ids);
  copy_rows(decision.weights, rows_, decision.top_k, target->weights);
  copy_rows(decision.logits, rows_, decision.num_experts, target->logits);
  copy_rows(decision.scores, rows_, decision.num_experts, target->scores);
  const auto copy_if_there = [&](std::span<const float> from, std::int64_t width, std::vector<float>& to) {
    if (from.empty()) return;
    to.resize(static_cast<std::size_t>(capacity_ * width));
    copy_rows(from, rows_, width, to);
  };
  copy_if_there(decision.errors, decision.num_experts, target->errors);
  copy_if_there(decision.residual_norms, 1, target->residual_norms);
}

void RecordingProbe::logits(std::int64_t rows, std::int64_t vocab, const float* x) {
  if (options_.logits) scatter(trace_.extra.at("logits"), rows, vocab, x);
}

}  // namespace kedge
