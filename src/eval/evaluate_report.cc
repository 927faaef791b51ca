#include "eval/evaluate_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/hash.h"
#include "base/json.h"
#include "record/envelope.h"
#include "record/provenance.h"
#include "report/table.h"
#include "report/text.h"

namespace kedge {
namespace {

// "acc,none" -> "acc_stderr,none", as the harness names it.
std::string error_name(const std::string& metric) {
  const std::size_t comma = metric.find(',');
  return metric.substr(0, comma) + "_stderr" + metric.substr(comma);
}

std::string plain_name(const std::string& metric) { return metric.substr(0, metric.find(',')); }

std::string shown_name(const std::string& metric) { return metric.ends_with(",none") ? plain_name(metric) : metric; }

Json confidence_json(const EvaluateConfidence& c) {
  return Json{{"questions", c.questions},
              {"accuracy", c.accuracy},
              {"accuracy_stderr", c.accuracy_error},
              {"mean_confidence", c.mean_confidence},
              {"ece_equal_width", c.ece_equal_width},
              {"ece_equal_mass", c.ece_equal_mass},
              {"brier", c.brier},
              {"brier_multiclass", c.brier_multiclass},
              {"auroc", c.auroc},
              {"aurc", c.aurc},
              {"confident_wrong", c.confident_wrong},
              {"confident", c.confident}};
}

Json row_json(const EvaluateTask& row) {
  Json out = {{"name", row.name}, {"alias", row.alias}};
  for (const EvaluateMetric& metric : row.metrics) {
    out[metric.name] = metric.value;
    out[error_name(metric.name)] = metric.standard_error;
  }
  out["sample_len"] = row.samples;
  return out;
}

Json results_json(const EvaluateResult& r, const EvalPlan& plan) {
  Json results = Json::object(), groups = Json::object(), subtasks = Json::object(), versions = Json::object(),
       shots = Json::object(), better = Json::object(), counts = Json::object(), data = Json::object();
  for (const EvaluateTask& row : r.tasks) {
    results[row.name] = row_json(row);
    versions[row.name] = row.version;
    shots[row.name] = row.num_fewshot;
    counts[row.name] = Json{{"original", row.records}, {"effective", row.samples}};
    data[row.name] = row.data;
    better[row.name] = Json::object();
    for (const EvaluateMetric& metric : row.metrics) {
      better[row.name][plain_name(metric.name)] = higher_is_better(plain_name(metric.name));
    }
  }
  Json confidence = Json::object();
  for (const std::vector<EvaluateTask>* rows : {&r.tasks, &r.groups}) {
    for (const EvaluateTask& row : *rows) {
      for (const EvaluateConfidence& c : row.confidence) confidence[row.name][c.way] = confidence_json(c);
    }
  }
  for (const EvaluateTask& row : r.groups) {
    groups[row.name] = row_json(row);
    subtasks[row.name] = Json::array();
    for (const EvalUnit& unit : plan.units) {
      for (const std::string& group : unit.groups) {
        if (group == row.name) subtasks[row.name].push_back(unit.name);
      }
    }
  }
  return Json{{"results", std::move(results)},
              {"groups", std::move(groups)},
              {"group_subtasks", std::move(subtasks)},
              {"versions", std::move(versions)},
              {"n-shot", std::move(shots)},
              {"higher_is_better", std::move(better)},
              {"n-samples", std::move(counts)},
              {"data", std::move(data)},
              {"confidence", std::move(confidence)},
              {"requests", r.requests},
              {"requests_resumed", r.requests_resumed},
              {"tokens_asked", r.tokens_asked},
              {"tokens_computed", r.tokens_computed},
              {"load_seconds", r.load_seconds},
              {"score_seconds", r.score_seconds}};
}

void add_rows(const std::vector<EvaluateTask>& rows, TextTable& table) {
  for (const EvaluateTask& row : rows) {
    bool first = true;
    for (const EvaluateMetric& metric : row.metrics) {
      table.add_row({first ? row.name : "", first ? row.version : "", first ? std::to_string(row.num_fewshot) : "",
                     first ? format_count(row.samples) : "", shown_name(metric.name), format_fixed(metric.value, 4),
                     std::isnan(metric.standard_error) ? "n/a" : format_fixed(metric.standard_error, 4)});
      first = false;
    }
  }
}

}  // namespace

std::string evaluate_table(const EvaluateResult& r) {
  TextTable table({"task", "version", "n-shot", "records", "metric", "value", "std. error"},
                  {Align::left, Align::left, Align::right, Align::right, Align::left, Align::right, Align::right});
  add_rows(r.tasks, table);
  if (!r.groups.empty()) {
    table.add_rule();
    add_rows(r.groups, table);
  }
  std::string out = table.str();
  std::string bundled;
  for (const EvaluateTask& row : r.tasks) {
    if (row.bundled) bundled += (bundled.empty() ? "" : ", ") + row.name;
  }
  if (!bundled.empty()) out += "\nOn kedge's own small subset of the records, not the benchmark: " + bundled + "\n";
  const double rate = r.score_seconds > 0 ? static_cast<double>(r.requests - r.requests_resumed) / r.score_seconds : 0;
  out += fmt::format("\n{} requests in {:.1f} s ({:.0f}/s), {} tokens computed of {} asked\n", format_count(r.requests),
                     r.score_seconds, rate, format_count(r.tokens_computed), format_count(r.tokens_asked));
  out += fmt::format("{}, {} activations, {} numerics, {} threads\n", r.isa, r.options.runtime.activations,
                     r.options.runtime.numerics, r.threads);
  return out;
}

std::string evaluate_confidence_table(const EvaluateResult& r) {
  TextTable table({"task", "way", "questions", "accuracy", "confidence", "ECE width", "ECE mass", "Brier", "Brier all",
                   "AUROC", "AURC", "wrong@0.8"},
                  {Align::left, Align::left});
  bool any = false;
  for (const std::vector<EvaluateTask>* rows : {&r.tasks, &r.groups}) {
    for (const EvaluateTask& row : *rows) {
      for (const EvaluateConfidence& c : row.confidence) {
        any = true;
        table.add_row({row.name, c.way, format_count(c.questions), format_fixed(c.accuracy, 4),
                       format_fixed(c.mean_confidence, 4), format_fixed(c.ece_equal_width, 4),
                       format_fixed(c.ece_equal_mass, 4), format_fixed(c.brier, 4), format_fixed(c.brier_multiclass, 4),
                       format_fixed(c.auroc, 4), format_fixed(c.aurc, 4),
                       fmt::format("{}/{}", c.confident_wrong, c.confident)});
      }
    }
  }
  return any ? table.str() : std::string();
}

std::string evaluate_json(const EvaluateResult& r, const EvalPlan& plan, const LoadOptions& options) {
  Provenance provenance = make_provenance(options, r.threads);
  provenance.seeds = {r.options.fewshot_seed, r.options.seed};
  provenance.inputs.push_back(record_input("model", r.options.model));
  std::set<std::string> seen;
  for (const auto& documents : plan.documents) {
    if (seen.insert(documents->path).second) {
      provenance.inputs.push_back({"records", documents->path, documents->sha256});
    }
  }
  Json definitions = Json::object();
  for (const auto& task : plan.tasks) definitions[task->name] = sha256_hex(task->definition);
  Json config = {{"model", r.options.model.string()},
                 {"tasks", r.options.tasks},
                 {"task_hashes", std::move(definitions)},
                 {"num_fewshot", r.options.num_fewshot},
                 {"limit", r.options.limit},
                 {"fewshot_seed", r.options.fewshot_seed},
                 {"votes", r.options.votes},
                 {"temperature", r.options.temperature},
                 {"mc_samples", r.options.mc_samples},
                 {"seed", r.options.seed},
                 {"confidence_bins", 10}};
  return envelope_text(
      make_envelope("kedge.eval/1", provenance, std::move(config), results_json(r, plan), Json::array()));
}

std::string samples_file_name(const std::string& unit) {
  std::string name = "samples_" + unit + ".jsonl";
  for (char& c : name) {
    if (c == '/' || c == '\\' || c == ' ') c = '_';  // a subtask's name is a value of the data
  }
  return name;
}

std::string samples_text(const EvalUnit& unit, std::span<const SampleOutcome> outcomes) {
  std::string out;
  for (std::size_t s = 0; s < outcomes.size(); ++s) {
    const EvalSample& sample = unit.samples[s];
    Json line = {{"doc_id", sample.doc_id}};
    if (unit.task->output_type == OutputType::multiple_choice && !unit.task->multiple_input) {
      line["target"] = sample.gold;
    } else {
      line["target"] = sample.target;
    }
    line["arguments"] = Json::array();
    for (const auto& [context, continuation] : sample.arguments) {
      if (unit.task->output_type == OutputType::loglikelihood_rolling) {
        line["arguments"].push_back(Json::array({continuation}));
      } else if (unit.task->output_type == OutputType::generate_until) {
        line["arguments"].push_back(Json::array({context}));
      } else {
        line["arguments"].push_back(Json::array({context, continuation}));
      }
    }
    line["resps"] = Json::array();
    for (const RequestScore& score : outcomes[s].scores) {
      if (unit.task->output_type == OutputType::generate_until) {
        line["resps"].push_back(score.text);
      } else {
        line["resps"].push_back(Json::array({score.loglikelihood, score.is_greedy}));
      }
    }
    const auto estimated = [](const RequestScore& score) { return score.standard_error > 0; };
    if (std::any_of(outcomes[s].scores.begin(), outcomes[s].scores.end(), estimated)) {
      line["standard_errors"] = Json::array();
      for (const RequestScore& score : outcomes[s].scores) line["standard_errors"].push_back(score.standard_error);
    }
    if (!outcomes[s].answers.empty()) {
      line["confidence"] = Json::array();
      for (const Answer& answer : outcomes[s].answers) {
        line["confidence"].push_back({{"choice", answer.choice}, {"probabilities", answer.probabilities}});
      }
    }
    for (const auto& [name, metric] : outcomes[s].metrics) {
      line[name] = unit.task->output_type == OutputType::loglikelihood_rolling
                       ? Json::array({metric.value, metric.weight})
                       : Json(metric.value);
    }
    out += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  return out;
}

}  // namespace kedge
