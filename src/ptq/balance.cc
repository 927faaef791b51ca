#include "ptq/balance.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// Enough rows for the matrix products to be efficient.
constexpr std::int64_t tokens_per_pass = 2048;

double mean_count(const ExpertCounts& counts) {
  std::int64_t total = 0;
  for (const std::int32_t count : counts.counts) total += count;
  return static_cast<double>(total) / static_cast<double>(counts.counts.size());
}

// F(A) - F(A + sequence), with have[i] = tau + c_i(A).
double decrease(std::span<const double> have, std::span<const std::int32_t> more) {
  double sum = 0;
  for (std::size_t i = 0; i < more.size(); ++i) {
    const double n = more[i];
    sum += n / (have[i] * (have[i] + n));
  }
  return sum;
}

}  // namespace

std::span<const std::int32_t> ExpertCounts::of(std::int64_t sequence) const {
  KEDGE_CHECK(sequence >= 0 && sequence < sequences);
  return std::span(counts).subspan(static_cast<std::size_t>(sequence * cells()), static_cast<std::size_t>(cells()));
}

std::vector<std::int64_t> ExpertCounts::total(std::span<const std::int64_t> chosen) const {
  std::vector<std::int64_t> sum(static_cast<std::size_t>(cells()), 0);
  for (const std::int64_t s : chosen) {
    const auto row = of(s);
    for (std::size_t i = 0; i < row.size(); ++i) sum[i] += row[i];
  }
  return sum;
}

std::vector<std::int64_t> choose_balanced(const ExpertCounts& counts, std::int64_t nsamples) {
  KEDGE_CHECK(static_cast<std::int64_t>(counts.counts.size()) == counts.sequences * counts.cells());
  if (nsamples < 1) {
    throw Error(ErrorCode::usage, "a balanced choice of " + std::to_string(nsamples) + " sequences", "1 or more");
  }
  nsamples = std::min(nsamples, counts.sequences);
  std::vector<std::int64_t> chosen;
  std::vector<bool> taken(static_cast<std::size_t>(counts.sequences), false);
  std::vector<double> have(static_cast<std::size_t>(counts.cells()), std::max(1.0, mean_count(counts) / 10));
  while (static_cast<std::int64_t>(chosen.size()) < nsamples) {
    throw_if_interrupted();
    std::int64_t best = -1;
    double most = 0;
    for (std::int64_t s = 0; s < counts.sequences; ++s) {
      if (taken[static_cast<std::size_t>(s)]) continue;
      const double gain = decrease(have, counts.of(s));
      if (best >= 0 && gain <= most) continue;
      best = s, most = gain;
    }
    taken[static_cast<std::size_t>(best)] = true;
    chosen.push_back(best);
    const auto row = counts.of(best);
    for (std::size_t i = 0; i < row.size(); ++i) have[i] += row[i];
  }
  return chosen;
}

ExpertBalance expert_balance(const ExpertCounts& counts, std::span<const std::int64_t> chosen) {
  const std::vector<std::int64_t> total = counts.total(chosen);
  ExpertBalance balance;
  if (total.empty()) return balance;
  balance.least = *std::min_element(total.begin(), total.end());
  balance.unseen = std::count(total.begin(), total.end(), 0);
  const auto experts = static_cast<std::size_t>(counts.num_experts);
  for (std::size_t begin = 0; begin < total.size(); begin += experts) {
    double sum = 0, entropy = 0;
    for (std::size_t e = 0; e < experts; ++e) sum += static_cast<double>(total[begin + e]);
    for (std::size_t e = 0; e < experts; ++e) {
      const double p = sum > 0 ? static_cast<double>(total[begin + e]) / sum : 0;
      if (p > 0) entropy -= p * std::log(p);
    }
    balance.entropy += experts > 1 ? entropy / std::log(static_cast<double>(experts)) : 1;
  }
  balance.entropy /= static_cast<double>(counts.layers.size());
  return balance;
}

ExpertCounter::ExpertCounter(const ModelSpec& spec, std::int64_t sequences) {
  counts_.layers = spec.moe_layers();
  counts_.sequences = sequences;
  for (const int layer : counts_.layers) {
    const std::int64_t experts = spec.router(layer).num_experts;
    KEDGE_CHECK(counts_.num_experts == 0 || counts_.num_experts == experts);
    counts_.num_experts = experts;
  }
  counts_.counts.assign(static_cast<std::size_t>(sequences * counts_.cells()), 0);
}

void ExpertCounter::set_segments(std::vector<std::pair<std::int64_t, std::int64_t>> sequence_and_tokens) {
  segments_ = std::move(sequence_and_tokens);
}

void ExpertCounter::routing(int layer, const RoutingDecision& decision) {
  const auto found = std::find(counts_.layers.begin(), counts_.layers.end(), layer);
  KEDGE_CHECK(found != counts_.layers.end() && decision.num_experts == counts_.num_experts);
  const std::int64_t row = found - counts_.layers.begin();
  std::int64_t token = 0;
  for (const auto& [sequence, tokens] : segments_) {
    std::int32_t* counts = counts_.counts.data() + sequence * counts_.cells() + row * counts_.num_experts;
    const auto ids = decision.expert_ids.subspan(static_cast<std::size_t>(token * decision.top_k),
                                                 static_cast<std::size_t>(tokens * decision.top_k));
    for (const std::int32_t expert : ids) ++counts[expert];
    token += tokens;
  }
  KEDGE_CHECK(token == decision.tokens);
}

ExpertCounts count_experts(const DecoderModel& model, ThreadPool& threads, const CalibrationData& data) {
  const ModelSpec& spec = model.spec();
  if (spec.moe_layers().empty()) {
    throw Error(ErrorCode::unsupported, "the model has no MoE layer", "experts to balance",
                "choose calibration sequences without balancing");
  }
  const auto total = static_cast<std::int64_t>(data.sequences.size());
  const std::int64_t batch = std::clamp<std::int64_t>(tokens_per_pass / data.seqlen, 1, total);
  ExpertCounter counter(spec, total);
  std::vector<SequenceState> states;
  for (std::int64_t i = 0; i < batch; ++i) states.emplace_back(spec, data.seqlen);
  Arena scratch;
  Progress progress("tokens per expert", data.tokens(), "tokens");
  for (std::int64_t begin = 0; begin < total; begin += batch) {
    throw_if_interrupted();
    std::vector<Segment> segments;
    std::vector<std::pair<std::int64_t, std::int64_t>> rows;
    for (std::int64_t s = begin; s < std::min(total, begin + batch); ++s) {
      SequenceState& state = states[static_cast<std::size_t>(s - begin)];
      state.truncate(0);
      segments.push_back({&state, data.sequences[static_cast<std::size_t>(s)]});
      rows.emplace_back(s, data.seqlen);
    }
    counter.set_segments(std::move(rows));
    const ArenaScope scope(scratch);
    model.forward({threads, scratch, &counter}, segments, LogitRows::none, nullptr);
    progress.update(std::min(total, begin + batch) * data.seqlen);
  }
  progress.finish();
  return counter.counts();
}

}  // namespace kedge
