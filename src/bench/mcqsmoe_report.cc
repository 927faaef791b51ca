#include <fmt/format.h>

#include "base/json.h"
#include "bench/rate.h"
#include "kedge/bench_mcqsmoe.h"
#include "record/envelope.h"

namespace kedge {
namespace {

std::string share(double value, double limit) {
  return limit > 0 ? fmt::format(" ({:.0f} %)", 100 * value / limit) : std::string();
}

double ratio(const McqsMoeBenchRow& row, const McqsMoeDense& dense) {
  return dense.rate.median > 0 ? row.rate.median / dense.rate.median : 0;
}

Json rate_json(const BenchRate& rate) {
  return {{"median", rate.median}, {"lowest", rate.lowest}, {"highest", rate.highest}, {"samples", rate.samples}};
}

Json dense_json(const McqsMoeBenchRow& row, const McqsMoeDense& dense) {
  return {{"intermediate_size", dense.intermediate_size},
          {"parameters", dense.parameters},
          {"flops_per_batch", dense.flops},
          {"tokens_per_second", rate_json(dense.rate)},
          {"speedup", ratio(row, dense)}};
}

Json row_json(const McqsMoeBenchRow& row, const McqsMoeBenchReport& report) {
  const bool one = row.threads == 1;
  const double flops = one ? report.limits.fp32_one : report.limits.fp32_all;
  const double bytes = one ? report.limits.dram_read_one : report.limits.dram_read_all;
  return {{"name", row.name},
          {"output", row.output},
          {"hidden_size", row.hidden_size},
          {"bottleneck", row.bottleneck},
          {"intermediate_size", row.intermediate_size},
          {"num_experts", row.num_experts},
          {"num_experts_per_tok", row.num_experts_per_tok},
          {"tokens", row.tokens},
          {"threads", row.threads},
          {"parameters", row.parameters},
          {"weight_bytes", row.weight_bytes},
          {"tokens_per_second", rate_json(row.rate)},
          {"on_one_thread", {{"tokens_per_second", rate_json(row.one_thread)}, {"speedup", row.over_one_thread()}}},
          {"gflop_per_s", row.gigaflops()},
          {"share_of_fp32_peak", flops > 0 ? Json(row.gigaflops() / flops) : Json(nullptr)},
          {"gb_per_s", row.gigabytes()},
          {"share_of_memory_read", bytes > 0 ? Json(row.gigabytes() / bytes) : Json(nullptr)},
          {"routing",
           {{"flops_per_batch", row.routing_flops},
            {"share_of_expert_flops", row.routing_flops / row.expert_flops},
            {"share_of_time", row.routing_share}}},
          {"expert_flops_per_batch", row.expert_flops},
          {"active_flops_per_batch", row.active_flops},
          {"dense_of_equal_stored_parameters", dense_json(row, row.stored)},
          {"dense_of_equal_active_flops", dense_json(row, row.active)},
          {"fp32_dense_of_equal_active_flops", dense_json(row, row.active_fp32)}};
}

}  // namespace

double McqsMoeBenchRow::over_one_thread() const noexcept {
  std::vector<double> times;
  for (std::size_t i = 0; i < rate.samples.size(); ++i) times.push_back(rate.samples[i] / one_thread.samples[i]);
  return make_rate(std::move(times)).median;
}
double McqsMoeBenchRow::gigaflops() const noexcept {
  return rate.median / static_cast<double>(tokens) * (routing_flops + expert_flops) * 1e-9;
}
double McqsMoeBenchRow::gigabytes() const noexcept {
  return rate.median / static_cast<double>(tokens) * static_cast<double>(weight_bytes) * 1e-9;
}

std::string mcqsmoe_text(const McqsMoeBenchReport& r) {
  std::string text =
      fmt::format("MCQSMoE, random weights, int4 deltas in groups of 64 on an fp16 anchor, {}; {}, {} numerics\n",
                  r.options.form, r.isa, r.options.runtime.numerics);
  text += fmt::format("{:<11}{:>9}{:>11}{:>23}{:>14}{:>18}{:>18}{:>16}{:>16}{:>12}{:>12}{:>16}\n", "row", "threads",
                      "tok/s", "range", "x one thread", "GFLOP/s", "GB/s", "routing FLOPs", "routing time", "x stored",
                      "x active", "x active fp32");
  for (const McqsMoeBenchRow& row : r.rows) {
    const bool one = row.threads == 1;
    text += fmt::format(
        "{:<11}{:>9}{:>11.1f}{:>23}{:>14.2f}{:>18}{:>18}{:>16}{:>16}{:>12.2f}{:>12.2f}{:>16.2f}\n", row.name,
        row.threads, row.rate.median, fmt::format("{:.1f} .. {:.1f}", row.rate.lowest, row.rate.highest),
        row.over_one_thread(),
        fmt::format("{:.1f}", row.gigaflops()) + share(row.gigaflops(), one ? r.limits.fp32_one : r.limits.fp32_all),
        fmt::format("{:.2f}", row.gigabytes()) +
            share(row.gigabytes(), one ? r.limits.dram_read_one : r.limits.dram_read_all),
        fmt::format("{:.1f} %", 100 * row.routing_flops / row.expert_flops),
        fmt::format("{:.1f} %", 100 * row.routing_share), ratio(row, row.stored), ratio(row, row.active),
        ratio(row, row.active_fp32));
  }
  text +=
      "routing FLOPs: over those of the experts; routing time: of the batch's\n"
      "x stored, x active: speed over a dense int4 layer of equal stored parameters, and of equal active FLOPs\n"
      "x active fp32: the latter with fp32 weights; x one thread: median over the turns\n";
  if (r.has_limits) {
    const MachineLimits& l = r.limits;
    text += fmt::format("limits: {:.1f} GFLOP/s on one thread, {:.1f} on {}; memory read {:.1f} and {:.1f} GB/s\n",
                        l.fp32_one, l.fp32_all, l.threads, l.dram_read_one, l.dram_read_all);
  }
  return text;
}

std::string mcqsmoe_json(const McqsMoeBenchReport& r) {
  const RuntimeOptions& runtime = r.options.runtime;
  const LoadOptions load{parse_isa(r.isa), parse_numerics(runtime.numerics), parse_activations(runtime.activations)};
  int threads = 1;
  Json rows = Json::array();
  for (const McqsMoeBenchRow& row : r.rows) {
    threads = std::max(threads, row.threads);
    rows.push_back(row_json(row, r));
  }
  Provenance provenance = make_provenance(load, threads);
  provenance.seeds = {r.options.seed};
  Json config = {{"form", r.options.form}, {"tokens", r.options.tokens}, {"repetitions", r.options.repetitions}};
  Json limits = nullptr;
  if (r.has_limits) {
    limits = {{"dram_read_gb_per_s", {{"one_thread", r.limits.dram_read_one}, {"all_threads", r.limits.dram_read_all}}},
              {"fp32_gflop_per_s", {{"one_thread", r.limits.fp32_one}, {"all_threads", r.limits.fp32_all}}}};
  }
  return envelope_text(make_envelope("kedge.bench-mcqsmoe/1", provenance, std::move(config),
                                     {{"rows", std::move(rows)}, {"limits", std::move(limits)}}, Json::array()));
}

}  // namespace kedge
