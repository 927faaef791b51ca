#include "train/record.h"

#include <algorithm>

#include "base/file.h"
#include "base/json.h"
#include "record/envelope.h"
#include "train/page.h"
#include "twin/parameters.h"

namespace kedge::training {

void count_parameters(const ModelSpec& spec, TrainReport& report) {
  report.parameters = report.active_parameters = 0;
  for (const twin::ParameterInfo& info : twin::list_parameters(spec)) {
    const std::int64_t size = num_elements(info.shape);
    report.parameters += size;
    const bool expert = !twin::stacked_name(info.name).empty();
    if (!expert) report.active_parameters += size;
  }
  for (const BlockSpec& block : spec.blocks) {
    if (const auto* by_error = std::get_if<ReconstructionMoe>(&block.mixer)) {
      if (by_error->output != ExpertOutput::ffn) continue;
      report.active_parameters +=
          by_error->router.slots() * (by_error->gated ? 3 : 2) * by_error->intermediate_size * spec.hidden_size;
    }
    const auto* moe = std::get_if<Moe>(&block.mixer);
    if (moe == nullptr) continue;
    report.active_parameters += moe->router.num_experts_per_tok * 3 * moe->moe_intermediate_size * spec.hidden_size;
  }
}

void summarize_log(const std::vector<Json>& lines, TrainReport& report) {
  const std::int64_t from = report.steps - std::max<std::int64_t>(1, report.steps / 10);
  std::int64_t count = 0;
  report.loss = 0;
  report.expert_load.clear();
  for (const Json& line : lines) {
    if (line.contains("valid_loss") && line["valid_loss"].is_number()) report.valid_loss = line["valid_loss"];
    if (!line.contains("loss") || line["step"] <= from) continue;
    ++count;
    report.loss += line["loss"].get<double>();
    const Json& peaks = line["peak_load"];
    report.expert_load.resize(peaks.size());
    for (std::size_t i = 0; i < peaks.size(); ++i) report.expert_load[i] += peaks[i].get<double>();
  }
  if (count == 0) return;
  report.loss /= static_cast<double>(count);
  for (double& load : report.expert_load) load /= static_cast<double>(count);
}

void write_record(const TrainOptions& options, const Json& settings, const std::vector<Json>& lines,
                  const TrainReport& report) {
  Provenance provenance = make_provenance({.isa = detect_isa()}, report.threads);
  provenance.seeds = {options.seed};
  for (const auto& text : options.texts) provenance.inputs.push_back(record_input("text", text));
  for (const auto& text : options.valid) provenance.inputs.push_back(record_input("valid", text));
  if (!options.init.empty()) provenance.inputs.push_back(record_input("init", options.init));
  Json results = {{"model_type", report.model_type},
                  {"parameters", report.parameters},
                  {"active_parameters", report.active_parameters},
                  {"steps", report.steps},
                  {"resumed_from", report.resumed_from},
                  {"tokens", report.tokens},
                  {"loss", report.loss},
                  {"valid_loss", report.valid_loss},
                  {"expert_load", report.expert_load},
                  {"seconds", report.seconds},
                  {"tokens_per_second", report.tokens_per_second},
                  {"device", report.device}};
  const Json record = make_envelope("kedge.train/1", provenance, settings, std::move(results), Json::array());
  write_file_atomically(options.out / kPageFile, training_page(record, lines));
  write_envelope(options.out / kRecordFile, record);
}

}  // namespace kedge::training
