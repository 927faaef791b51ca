#include "kedge/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "comm/bytes.h"
#include "comm/communicator.h"
#include "eval/diffusion_scorer.h"
#include "eval/evaluate_report.h"
#include "eval/generator.h"
#include "eval/outcome.h"
#include "eval/plan.h"
#include "eval/progress_file.h"
#include "eval/requests.h"
#include "eval/scorer.h"
#include "generate/session.h"
#include "kedge/error.h"
#include "record/out_folder.h"
#include "record/provenance.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The requests of a unit's samples, in order; first[s] is where sample s begins.
struct EncodedUnit {
  std::vector<ScoreRequest> requests;
  std::vector<std::size_t> first;  // [samples + 1]
};

EncodedUnit encode_unit(const EvalUnit& unit, const RequestEncoder& encoder, ThreadPool& threads) {
  std::vector<std::vector<ScoreRequest>> by_sample(unit.samples.size());
  threads.parallel_for(static_cast<std::int64_t>(by_sample.size()), 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t s = begin; s < end; ++s) {
      const EvalSample& sample = unit.samples[static_cast<std::size_t>(s)];
      std::vector<ScoreRequest>& out = by_sample[static_cast<std::size_t>(s)];
      try {
        for (const auto& [context, continuation] : sample.arguments) {
          if (unit.task->output_type == OutputType::loglikelihood_rolling) {
            out = encoder.windows(continuation);
          } else if (unit.task->output_type == OutputType::generate_until) {
            out.push_back({encoder.prompt(context), {}});
          } else {
            out.push_back(encoder.pair(context, continuation));
          }
        }
      } catch (const Error& error) {
        throw Error(error.code(), fmt::format("task {}, record {}: {}", unit.name, sample.doc_id, error.what()));
      }
    }
  });
  EncodedUnit out;
  for (std::vector<ScoreRequest>& requests : by_sample) {
    out.first.push_back(out.requests.size());
    std::move(requests.begin(), requests.end(), std::back_inserter(out.requests));
  }
  out.first.push_back(out.requests.size());
  return out;
}

// The windows of one text count together.
RequestScore summed(std::span<const RequestScore> windows) {
  RequestScore out{0, true, {}, {}};
  for (const RequestScore& window : windows) {
    out.loglikelihood += window.loglikelihood;
    out.is_greedy = out.is_greedy && window.is_greedy;
  }
  return out;
}

std::string to_bytes(std::span<const RequestScore> scores) {
  ByteWriter writer;
  for (const RequestScore& score : scores) {
    writer.put(score.loglikelihood);
    writer.put(score.is_greedy);
    writer.put(score.token_logprobs);
    writer.put(std::string_view(score.text));
    writer.put(score.standard_error);
  }
  return writer.bytes();
}

RequestScore take_score(ByteReader& reader) {
  RequestScore score;
  score.loglikelihood = reader.take<double>();
  score.is_greedy = reader.take<bool>();
  score.token_logprobs = reader.take_list<double>();
  score.text = reader.take_text();
  score.standard_error = reader.take<double>();
  return score;
}

// [ranks + 1]: neighbouring requests, which share beginnings, stay with one rank; about as many tokens for each.
std::vector<std::size_t> shares(std::span<const ScoreRequest> requests, int ranks) {
  const auto tokens = [](const ScoreRequest& request) { return request.context.size() + request.continuation.size(); };
  std::size_t all = 0, seen = 0;
  for (const ScoreRequest& request : requests) all += tokens(request);
  std::vector<std::size_t> bounds = {0};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    while (bounds.size() < static_cast<std::size_t>(ranks) && seen * static_cast<std::size_t>(ranks) >= all * bounds.size()) {
      bounds.push_back(i);
    }
    seen += tokens(requests[i]);
  }
  bounds.resize(static_cast<std::size_t>(ranks) + 1, requests.size());
  return bounds;
}

class Evaluation {
 public:
  Evaluation(const EvaluateOptions& options, const EvalPlan& plan, Communicator& ranks, EvaluateResult& result)
      : options_(options),
        plan_(plan),
        ranks_(ranks),
        result_(result),
        load_options_(make_load_options(options.runtime)),
        threads_(options.runtime.threads),
        tokenizer_(Tokenizer::open(options.model)),
        model_(load_model(options.model, load_options_, threads_)),
        encoder_(tokenizer_, model_),
        scorer_(model_),
        generator_(model_, tokenizer_),
        votes_{options.votes, options.temperature, options.seed} {
    if (model_.model.spec().is_masked_diffusion()) {
      refuse_left_to_right();
      diffusion_.emplace(model_, options.mc_samples, options.seed);
    }
    result_.isa = isa_name(load_options_.isa);
    result_.threads = threads_.size();
  }

  void run() {
    std::vector<EncodedUnit> encoded;
    std::vector<std::size_t> offsets;
    for (const EvalUnit& unit : plan_.units) {
      encoded.push_back(encode_unit(unit, encoder_, threads_));
      offsets.push_back(static_cast<std::size_t>(result_.requests));
      result_.requests += static_cast<std::int64_t>(encoded.back().requests.size());
    }
    ProgressFile progress(options_.out, plan_hash(), ranks_);
    std::optional<Progress> bar;
    if (ranks_.is_root()) bar.emplace("eval", result_.requests, "requests");
    std::int64_t done = 0;
    for (std::size_t u = 0; u < plan_.units.size(); ++u) {
      const EvalUnit& unit = plan_.units[u];
      const std::vector<RequestScore> scores =
          score_unit(unit, encoded[u], offsets[u], progress, [&](std::int64_t more) {
            if (bar) bar->update(done += more, unit.name);
          });
      if (ranks_.is_root()) finish_unit(unit, encoded[u], scores);
      encoded[u].requests = {};
    }
    count_tokens();
    if (!ranks_.is_root()) return;
    bar->finish();
    add_groups();
    write_outputs();
    progress.remove();
  }

 private:
  void refuse_left_to_right() const {
    if (options_.votes > 0) {
      model_.model.spec().require_causal("answers are sampled from left to right for self-consistency");
    }
    for (const EvalUnit& unit : plan_.units) {
      if (unit.task->output_type != OutputType::generate_until) continue;
      model_.model.spec().require_causal("task " + unit.name + " has its answers written from left to right");
    }
  }

  // With a folder to resume from, the model's content is part of it.
  std::string plan_hash() const {
    if (options_.out.empty()) return {};
    return sha256_hex(fmt::format("{}\n{}\n{}\n{} {}\n{} {}", plan_.hash, hash_input(options_.model), version(),
                                  options_.runtime.numerics, options_.runtime.activations, options_.mc_samples,
                                  options_.seed));
  }

  template <class F>
  std::vector<RequestScore> score_unit(const EvalUnit& unit, const EncodedUnit& encoded, std::size_t offset,
                                       ProgressFile& progress, F&& advance) {
    std::vector<RequestScore> scores(encoded.requests.size());
    std::vector<ScoreRequest> open;
    std::vector<std::size_t> open_index;
    for (std::size_t i = 0; i < encoded.requests.size(); ++i) {
      const auto at = progress.finished().find(offset + i);
      if (at != progress.finished().end()) {
        scores[i] = at->second;
        ++result_.requests_resumed;
      } else {
        open.push_back(encoded.requests[i]);
        open_index.push_back(i);
      }
    }
    advance(static_cast<std::int64_t>(scores.size() - open.size()));
    const std::vector<std::size_t> bounds = shares(open, ranks_.size());
    const std::size_t first = bounds[static_cast<std::size_t>(ranks_.rank())];
    const std::size_t count = bounds[static_cast<std::size_t>(ranks_.rank()) + 1] - first;
    std::int64_t in_round = 0;
    std::vector<RequestScore> own(count);
    const auto done = [&](std::size_t i, const RequestScore& score) {
      own[i] = score;
      progress.add(offset + open_index[first + i], score);
      ++in_round;
    };
    const auto finished_round = [&] {
      progress.flush();
      advance(std::exchange(in_round, 0));
    };
    const std::span<const ScoreRequest> share = std::span<const ScoreRequest>(open).subspan(first, count);
    if (unit.task->output_type == OutputType::generate_until) {
      std::vector<TextRequest> texts;
      for (const ScoreRequest& request : share) {
        texts.push_back({request.context, &unit.task->until, unit.task->max_gen_toks});
      }
      generator_.generate(texts, [&](std::size_t i, const std::string& text) {
        done(i, {0, false, {}, text});
        finished_round();
      });
    } else if (diffusion_) {
      diffusion_->score(share, done, finished_round);
    } else {
      scorer_.score(share, done, finished_round);
    }
    gather_scores(own, open_index, bounds, scores, advance);
    return scores;
  }

  // At rank 0: the shares of all ranks.
  template <class F>
  void gather_scores(std::span<const RequestScore> own, const std::vector<std::size_t>& open_index,
                     const std::vector<std::size_t>& bounds, std::vector<RequestScore>& scores, F&& advance) {
    for (std::size_t i = 0; i < own.size(); ++i) {
      scores[open_index[bounds[static_cast<std::size_t>(ranks_.rank())] + i]] = own[i];
    }
    if (ranks_.size() == 1) return;
    const std::vector<std::string> all = ranks_.gather(to_bytes(own));
    for (std::size_t rank = 1; rank < all.size(); ++rank) {
      ByteReader reader(all[rank]);
      for (std::size_t i = bounds[rank]; i < bounds[rank + 1]; ++i) scores[open_index[i]] = take_score(reader);
      advance(static_cast<std::int64_t>(bounds[rank + 1] - bounds[rank]));
    }
  }

  void count_tokens() {
    ByteWriter writer;
    writer.put(diffusion_ ? diffusion_->tokens_computed() : scorer_.tokens_asked());
    writer.put(diffusion_ ? diffusion_->tokens_computed() : scorer_.tokens_computed());
    for (const std::string& bytes : ranks_.gather(writer.bytes())) {
      ByteReader reader(bytes);
      result_.tokens_asked += reader.take<std::int64_t>();
      result_.tokens_computed += reader.take<std::int64_t>();
    }
  }

  void finish_unit(const EvalUnit& unit, const EncodedUnit& encoded, const std::vector<RequestScore>& scores) {
    std::vector<SampleOutcome> outcomes;
    for (std::size_t s = 0; s < unit.samples.size(); ++s) {
      const std::span<const RequestScore> all(scores);
      const std::span<const RequestScore> own = all.subspan(encoded.first[s], encoded.first[s + 1] - encoded.first[s]);
      SampleOutcome outcome;
      if (unit.task->output_type == OutputType::loglikelihood_rolling) {
        outcome.scores = {summed(own)};
      } else {
        outcome.scores.assign(own.begin(), own.end());
      }
      outcome.metrics = sample_metrics(*unit.task, unit.samples[s], outcome.scores);
      const std::span<const ScoreRequest> requests(encoded.requests);
      outcome.answers = sample_answers(*unit.task, unit.samples[s], outcome.scores,
                                       requests.subspan(encoded.first[s], own.size()), votes_);
      outcomes.push_back(std::move(outcome));
    }
    const std::vector<MetricValue> values = unit_metrics(*unit.task, outcomes);
    EvaluateTask row{.name = unit.name,
                     .alias = unit.alias,
                     .version = unit.task->version,
                     .group = unit.groups.empty() ? "" : unit.groups.back(),
                     .data = unit.documents->path,
                     .bundled = unit.documents->bundled,
                     .num_fewshot = unit.num_fewshot,
                     .samples = static_cast<std::int64_t>(unit.samples.size()),
                     .records = unit.records,
                     .metrics = {},
                     .confidence = confidence_of({&unit}, {&outcomes})};
    const std::vector<std::string> columns = metric_columns(*unit.task);
    for (std::size_t m = 0; m < values.size(); ++m) {
      row.metrics.push_back({columns[m], values[m].value, values[m].standard_error});
    }
    result_.tasks.push_back(std::move(row));
    values_.push_back(values);
    if (!options_.out.empty()) {
      write_file_atomically(options_.out / samples_file_name(unit.name), samples_text(unit, outcomes));
    }
    outcomes_.push_back(std::move(outcomes));
  }

  std::vector<EvaluateConfidence> confidence_of(const std::vector<const EvalUnit*>& units,
                                                const std::vector<const std::vector<SampleOutcome>*>& outcomes) const {
    std::vector<const EvalSample*> samples;
    std::vector<const SampleOutcome*> of_samples;
    for (std::size_t u = 0; u < units.size(); ++u) {
      for (std::size_t s = 0; s < outcomes[u]->size(); ++s) {
        if ((*outcomes[u])[s].answers.empty()) continue;
        samples.push_back(&units[u]->samples[s]);
        of_samples.push_back(&(*outcomes[u])[s]);
      }
    }
    if (samples.empty()) return {};
    return confidence_rows(answer_ways(diffusion_ ? "diffusion" : "ar", votes_), samples, of_samples);
  }

  void add_groups() {
    for (const std::string& group : plan_.groups) {
      std::vector<std::size_t> members;
      for (std::size_t u = 0; u < plan_.units.size(); ++u) {
        const std::vector<std::string>& groups = plan_.units[u].groups;
        if (std::find(groups.begin(), groups.end(), group) != groups.end()) members.push_back(u);
      }
      const EvalTask& task = *plan_.units[members.front()].task;
      EvaluateTask row = result_.tasks[members.front()];
      row.name = row.alias = group;
      row.group.clear();
      row.data.clear();
      row.metrics.clear();
      row.samples = row.records = 0;
      std::vector<const EvalUnit*> units;
      std::vector<const std::vector<SampleOutcome>*> outcomes;
      for (const std::size_t u : members) {
        units.push_back(&plan_.units[u]);
        outcomes.push_back(&outcomes_[u]);
        row.samples += result_.tasks[u].samples;
        row.records += result_.tasks[u].records;
      }
      const std::vector<std::string> columns = metric_columns(task);
      for (std::size_t m = 0; m < columns.size(); ++m) {
        std::vector<MetricValue> values;
        for (const std::size_t u : members) values.push_back(values_[u][m]);
        const MetricValue value = aggregate_group(values, task.weight_by_size);
        row.metrics.push_back({columns[m], value.value, value.standard_error});
      }
      row.confidence = confidence_of(units, outcomes);
      result_.groups.push_back(std::move(row));
    }
  }

  void write_outputs() {
    result_.score_seconds = seconds_since(start_);
    result_.json = evaluate_json(result_, plan_, load_options_);
    if (!options_.out.empty()) write_file_atomically(options_.out / "results.json", result_.json);
  }

  const EvaluateOptions& options_;
  const EvalPlan& plan_;
  Communicator& ranks_;
  EvaluateResult& result_;
  LoadOptions load_options_;
  ThreadPool threads_;
  Tokenizer tokenizer_;
  LoadedModel model_;
  RequestEncoder encoder_;
  LoglikelihoodScorer scorer_;
  std::optional<DiffusionScorer> diffusion_;  // in the scorer's place
  TextGenerator generator_;
  VoteOptions votes_;
  std::vector<std::vector<MetricValue>> values_;      // [units][metrics]
  std::vector<std::vector<SampleOutcome>> outcomes_;  // [units][samples]
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

EvaluateResult evaluate(const EvaluateOptions& options, Communicator* given_ranks) {
  const std::unique_ptr<Communicator> alone = given_ranks == nullptr ? single_rank() : nullptr;
  Communicator& ranks = given_ranks == nullptr ? *alone : *given_ranks;
  EvaluateResult result;
  result.options = options;
  if (options.mc_samples < 1) throw Error(ErrorCode::usage, "no masks are to be drawn", "mc_samples of 1 or more");
  if (options.votes < 0 || !(options.temperature > 0) || !std::isfinite(options.temperature)) {
    throw Error(ErrorCode::usage, fmt::format("{} votes at a temperature of {}", options.votes, options.temperature),
                "0 votes or more, at a temperature above 0");
  }
  const EvalPlan plan = make_plan(options);
  std::optional<OutFolder> folder;
  if (!options.out.empty() && ranks.is_root()) {
    std::vector<std::string> files = {"results.json"};
    for (const EvalUnit& unit : plan.units) files.push_back(samples_file_name(unit.name));
    // Samples of finished tasks lie beside the progress of a run that goes on.
    const bool goes_on = ProgressFile::exists(options.out);
    require_free(options.out, files, options.overwrite || goes_on);
    folder.emplace(options.out);
  }
  ranks.barrier();  // the folder is there
  const auto start = std::chrono::steady_clock::now();
  Evaluation evaluation(options, plan, ranks, result);
  result.load_seconds = seconds_since(start);
  evaluation.run();
  return result;
}

std::vector<std::string> bundled_tasks() { return bundled_task_names(); }

}  // namespace kedge
