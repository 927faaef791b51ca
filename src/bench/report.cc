#include <fmt/format.h>

#include "base/json.h"
#include "kedge/bench.h"
#include "record/envelope.h"

namespace kedge {
namespace {

double peak(const BenchReport& r) { return r.int8 && r.limits.int8_all > 0 ? r.limits.int8_all : r.limits.fp32_all; }

std::string line(const std::string& name, const std::string& value) { return fmt::format("{:<14}{}\n", name, value); }

std::string share(double value, double limit) {
  return limit > 0 ? fmt::format(", {:.1f} % of {:.1f}", 100 * value / limit, limit) : std::string();
}

std::string range(const BenchRate& rate) {
  if (rate.samples.size() == 1) return fmt::format("{:.2f} tok/s", rate.median);
  return fmt::format("{:.2f} tok/s ({:.2f} .. {:.2f})", rate.median, rate.lowest, rate.highest);
}

std::string limits_text(const MachineLimits& l) {
  std::string text = fmt::format("\n{:<26}{:>12}{:>12}\n", "limit", "1 thread", fmt::format("{} threads", l.threads));
  const auto row = [&](const std::string& name, double one, double all) {
    text += fmt::format("{:<26}{:>12.1f}{:>12.1f}\n", name, one, all);
  };
  row("memory read, GB/s", l.dram_read_one, l.dram_read_all);
  row("fp32, GFLOP/s", l.fp32_one, l.fp32_all);
  if (l.int8_all > 0) {
    row("int8, GOP/s", l.int8_one, l.int8_all);
    text += fmt::format("int8 by {}\n", l.int8_instruction);
  }
  return text;
}

Json rate_json(const BenchRate& rate) {
  if (rate.samples.empty()) return nullptr;
  return {{"median", rate.median}, {"lowest", rate.lowest}, {"highest", rate.highest}};
}

/// A share of a limit; null where there is none.
Json share_json(double value, double limit) { return limit > 0 && value > 0 ? Json(value / limit) : Json(nullptr); }

Json limits_json(const BenchReport& report) {
  if (!report.has_limits) return nullptr;
  const MachineLimits& l = report.limits;
  return {{"dram_buffer_bytes", l.dram_buffer_bytes},
          {"dram_read_gb_per_s", {{"one_thread", l.dram_read_one}, {"all_threads", l.dram_read_all}}},
          {"fp32_gflop_per_s", {{"one_thread", l.fp32_one}, {"all_threads", l.fp32_all}}},
          {"int8_gop_per_s", {{"one_thread", l.int8_one}, {"all_threads", l.int8_all}}},
          {"int8_instruction", l.int8_instruction}};
}

}  // namespace

double BenchReport::decode_gigabytes() const noexcept {
  return decode.median * static_cast<double>(active_bytes) * 1e-9;
}
double BenchReport::prefill_gigaops() const noexcept { return prefill.median * 2 * products_per_token * 1e-9; }
double BenchReport::decode_limit() const noexcept {
  return has_limits && active_bytes > 0 ? limits.dram_read_all * 1e9 / static_cast<double>(active_bytes) : 0;
}
double BenchReport::prefill_limit() const noexcept {
  return has_limits && products_per_token > 0 ? peak(*this) * 1e9 / (2 * products_per_token) : 0;
}

std::string bench_text(const BenchReport& r) {
  const BenchOptions& o = r.options;
  std::string text;
  text += line("model", o.shape.empty() ? o.model.string() : fmt::format("{}, random weights, {}", o.shape, o.scheme));
  text += line("computed with", fmt::format("{}, {} threads, {} numerics, {} activations", r.isa, r.threads,
                                            o.runtime.numerics, o.runtime.activations));
  text += line("weights", fmt::format("{:.3f} GB packed, {:.3f} GB of them per decoded token; loaded in {:.1f} s",
                                      static_cast<double>(r.weight_bytes) * 1e-9,
                                      static_cast<double>(r.active_bytes) * 1e-9, r.load_seconds));
  text += line("peak memory", fmt::format("{:.3f} GB", static_cast<double>(r.peak_memory_bytes) * 1e-9));
  if (!r.prefill.samples.empty()) {
    text += line(fmt::format("prefill {}", o.prefill), range(r.prefill));
    text += line("", fmt::format("{:.1f} {} with weights{}", r.prefill_gigaops(), r.int8 ? "GOP/s (int8)" : "GFLOP/s",
                                 r.has_limits ? share(r.prefill_gigaops(), peak(r)) : ""));
  }
  if (!r.decode.samples.empty()) {
    text += line(fmt::format("decode {}", o.decode), range(r.decode));
    text += line("", fmt::format("{:.2f} GB/s of weights{}", r.decode_gigabytes(),
                                 r.has_limits ? share(r.decode_gigabytes(), r.limits.dram_read_all) : ""));
  }
  if (r.has_limits) text += limits_text(r.limits);
  return text;
}

std::string bench_json(const BenchReport& r) {
  const BenchOptions& o = r.options;
  const LoadOptions load{parse_isa(r.isa), parse_numerics(o.runtime.numerics),
                         parse_activations(o.runtime.activations)};
  Provenance provenance = make_provenance(load, r.threads);
  provenance.seeds = {o.seed};
  if (o.shape.empty()) provenance.inputs.push_back(record_input("model", o.model));

  Json config = {{"model", o.model.empty() ? Json(nullptr) : Json(o.model.string())},
                 {"shape", o.shape.empty() ? Json(nullptr) : Json(o.shape)},
                 {"scheme", o.shape.empty() ? Json(nullptr) : Json(o.scheme)},
                 {"prefill", o.prefill},
                 {"decode", o.decode},
                 {"batch", o.batch},
                 {"repetitions", o.repetitions}};
  Json results = {{"model_type", r.model_type},
                  {"weight_bytes", r.weight_bytes},
                  {"active_bytes_per_token", r.active_bytes},
                  {"products_per_token", r.products_per_token},
                  {"load_seconds", r.load_seconds},
                  {"peak_memory_bytes", r.peak_memory_bytes},
                  {"prefill_tokens_per_second", rate_json(r.prefill)},
                  {"prefill_gop_per_s", r.prefill_gigaops()},
                  {"prefill_arithmetic", r.int8 ? "int8" : "fp32"},
                  {"prefill_share_of_limit", share_json(r.prefill.median, r.prefill_limit())},
                  {"decode_tokens_per_second", rate_json(r.decode)},
                  {"decode_gb_per_s", r.decode_gigabytes()},
                  {"decode_share_of_limit", share_json(r.decode.median, r.decode_limit())},
                  {"limits", limits_json(r)}};
  Json samples = Json::array();
  for (int i = 0; i < o.repetitions; ++i) {
    const auto at = static_cast<std::size_t>(i);
    Json sample = {{"repetition", i}};
    if (at < r.prefill.samples.size()) sample["prefill_tokens_per_second"] = r.prefill.samples[at];
    if (at < r.decode.samples.size()) sample["decode_tokens_per_second"] = r.decode.samples[at];
    samples.push_back(std::move(sample));
  }
  return envelope_text(
      make_envelope("kedge.bench/1", provenance, std::move(config), std::move(results), std::move(samples)));
}

}  // namespace kedge
