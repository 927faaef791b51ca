#include "audit/compare.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace kedge {
namespace {

AuditMetrics layer_metrics(const RoutingComparison& routing, std::size_t layer) {
  AuditMetrics metrics;
  for (std::size_t m = 0; m < routing_metrics().size(); ++m) {
    metrics.emplace_back(routing_metrics()[m].name, to_value(routing.layer_metric(layer, m)));
  }
  for (std::size_t m = 0; m < load_metrics().size(); ++m) {
    metrics.emplace_back(load_metrics()[m].name, to_value(routing.layer_load(layer, m)));
  }
  return metrics;
}

AuditMetrics mean_metrics(const RoutingComparison& routing, const std::vector<bool>& only) {
  AuditMetrics metrics;
  for (std::size_t m = 0; m < routing_metrics().size(); ++m) {
    metrics.emplace_back(routing_metrics()[m].name, to_value(routing.mean_metric(m, only)));
  }
  return metrics;
}

std::vector<AuditLayer> layer_summaries(const RoutingComparison& routing) {
  const auto first_flip = routing.first_flip();
  std::vector<AuditLayer> layers;
  for (std::size_t l = 0; l < routing.layers(); ++l) {
    AuditLayer layer;
    layer.layer = routing.layer_number(l);
    layer.experts = routing.router(l).num_experts;
    layer.top_k = routing.router(l).num_experts_per_tok;
    layer.metrics = layer_metrics(routing, l);
    layer.first_flip = to_value(first_flip[l]);
    layer.tokens_per_expert_original = routing.tokens_per_expert(l, false);
    layer.tokens_per_expert_quantized = routing.tokens_per_expert(l, true);
    const auto dead = [](const std::vector<std::int64_t>& load) { return std::count(load.begin(), load.end(), 0); };
    layer.dead_original = dead(layer.tokens_per_expert_original);
    layer.dead_quantized = dead(layer.tokens_per_expert_quantized);
    layers.push_back(std::move(layer));
  }
  return layers;
}

void append(AuditMetrics& to, const AuditMetrics& from) { to.insert(to.end(), from.begin(), from.end()); }

}  // namespace

Channel::Channel(const ChannelOptions& options, const DecoderModel& model, ThreadPool& threads)
    : options_(options), model_(model), threads_(threads), routing_(moe_routers(model.spec())) {
  if (options.mode == "local") {
    local_ = std::make_unique<LocalRunner>(model, threads, options.max_tokens);
  } else {
    recorder_ = std::make_unique<Recorder>(model, threads, options.max_tokens, false);
    language_.emplace(options.max_tokens);
  }
}

void Channel::start(std::int64_t tokens) {
  if (!recorder_) return;
  recorder_->start(tokens);
  outcome_.positions.assign(static_cast<std::size_t>(tokens), {});
}

void Channel::append(std::span<const std::int32_t> tokens, std::int64_t begin, std::span<const std::int32_t> sequence,
                     const float* original_logits) {
  if (!recorder_) return;
  const auto vocab = static_cast<std::size_t>(model_.spec().vocab_size);
  if (logits_.size() < tokens.size() * vocab) logits_.resize(tokens.size() * vocab);
  recorder_->append(tokens, logits_.data());
  const Isa isa = model_.options().isa;
  threads_.parallel_for(static_cast<std::int64_t>(tokens.size()), 4, [&](std::int64_t from, std::int64_t to, int) {
    for (std::int64_t i = from; i < to; ++i) {
      const auto row = static_cast<std::size_t>(i), position = static_cast<std::size_t>(begin + i);
      // The last token's target is outside the sequence: LanguageComparison does not read it.
      const std::int32_t target = position + 1 < sequence.size() ? sequence[position + 1] : 0;
      outcome_.positions[position] = compare_distributions({original_logits + row * vocab, vocab},
                                                   {logits_.data() + row * vocab, vocab}, target, isa);
    }
  });
}

const SequenceOutcome& Channel::finish(std::span<const std::int32_t> sequence, const RoutingTrace& original) {
  outcome_.layers = local_ ? local_->run(sequence, original) : recorder_->trace().layers;
  return outcome_;
}

void Channel::add(std::span<const LayerTrace> original, const SequenceOutcome& outcome) {
  routing_.add_sequence(original, outcome.layers);
  if (language_) language_->add_sequence(outcome.positions);
}

AuditComparison Channel::summary(const TokenRows& rows) const {
  AuditComparison result;
  result.name = options_.name, result.mode = options_.mode, result.activations = options_.activations;
  result.layers = layer_summaries(routing_);
  result.mean = mean_metrics(routing_, {});
  for (std::size_t m = 0; m < load_metrics().size(); ++m) {
    result.mean.emplace_back(load_metrics()[m].name, to_value(routing_.mean_load(m)));
  }
  result.unchanged_everywhere = to_value(routing_.first_flip().back());
  for (const MarginBin& bin : routing_.flips_by_margin()) {
    result.flips_by_margin.push_back({bin.low, bin.high, bin.tokens, bin.flips, to_value(bin.flip_rate)});
  }
  if (language_) {
    kedge::append(result.mean, language_->metrics());
    result.kld_by_position = language_->kld_by_position();
  }
  for (std::size_t text = 0; text < rows.names.size() && rows.names.size() > 1; ++text) {
    std::vector<bool> only;
    for (int source : rows.source) only.push_back(source == static_cast<int>(text));
    if (std::find(only.begin(), only.end(), true) == only.end()) continue;
    AuditMetrics metrics = mean_metrics(routing_, only);
    if (language_) kedge::append(metrics, language_->metrics(only));
    result.by_text.emplace_back(rows.names[text], std::move(metrics));
  }
  const auto jaccard = routing_.sequence_values(routing_metric_index("jaccard"));
  const auto exact_set = routing_.sequence_values(routing_metric_index("exact_set"));
  for (std::size_t s = 0; s < rows.rows.size(); ++s) {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    AuditSample sample{
        rows.source[s], static_cast<std::int64_t>(rows.rows[s].size()), jaccard[s], exact_set[s], nan, nan, nan, nan};
    if (language_) language_->describe(s, sample);
    result.samples.push_back(sample);
  }
  return result;
}

}  // namespace kedge
