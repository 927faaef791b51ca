#include "train/language.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "comm/communicator.h"
#include "generate/corpus.h"
#include "io/folder.h"
#include "kedge/error.h"
#include "train/batches.h"
#include "train/checkpoint.h"
#include "train/log.h"
#include "train/record.h"
#include "train/settings.h"

namespace kedge::training {
namespace {

namespace fs = std::filesystem;

/// The tokenizer and the files that a model directory takes over with it.
struct TokenizerFiles {
  Tokenizer tokenizer;
  std::vector<fs::path> files;
};

TokenizerFiles open_tokenizer(const fs::path& path) {
  constexpr const char* kName = "tokenizer.json";
  if (!fs::is_directory(path)) {
    if (path.filename() != kName) {
      throw Error(ErrorCode::usage, "the tokenizer " + path.string() + " is neither a folder nor a tokenizer.json");
    }
    return {Tokenizer::parse(read_file(path), path.string()), {path}};
  }
  TokenizerFiles out{Tokenizer::open(path), {}};
  for (const char* name : {kName, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}) {
    if (fs::exists(path / name)) out.files.push_back(path / name);
  }
  return out;
}

TokenRows read_rows(const TokenizerFiles& tokenizer, const std::vector<fs::path>& texts, std::int64_t seqlen,
                    std::int64_t limit, std::int64_t vocab_size) {
  TokenRows rows = read_token_rows(tokenizer.tokenizer, texts, seqlen, limit);
  if (static_cast<std::int64_t>(rows.rows[0].size()) != seqlen) {
    throw Error(ErrorCode::usage, fmt::format("the text has fewer than {} tokens, one sequence", seqlen),
                "a longer text", "give more text or a smaller --seqlen");
  }
  check_token_ids(rows.rows, vocab_size);
  return rows;
}

/// A mask_token_id in the config is what makes a masked-diffusion model.
void set_objective(const TrainOptions& options, const Tokenizer& tokenizer, Json& config) {
  const bool masks = config.is_object() && config.contains("mask_token_id") && !config["mask_token_id"].is_null();
  if (options.objective == "next-token" && masks) {
    throw Error(ErrorCode::usage, "the config has a mask_token_id, so its model fills in masked tokens",
                "a config without one for --objective next-token");
  }
  if (options.objective != "masked-diffusion" || masks || !config.is_object()) return;
  const std::int64_t mask = tokenizer.vocab_size();
  config["mask_token_id"] = mask;
  const auto vocab_size = json_get_or<std::int64_t>(config, "vocab_size", 0, "the config");
  config["vocab_size"] = std::max(vocab_size, mask + 1);
}

/// Random ones; the routers' from a seed of their own where there is one.
twin::Parameters first_weights(const ModelSpec& spec, const TrainOptions& options, double deviation) {
  const std::vector<twin::ParameterInfo> all = twin::list_parameters(spec);
  twin::Parameters drawn = twin::random_parameters(all, options.seed, {}, deviation);
  if (!options.routing_seed) return drawn;
  std::vector<twin::ParameterInfo> of_routers;
  for (const twin::ParameterInfo& info : all) {
    if (info.kind == twin::ParameterKind::router) of_routers.push_back(info);
  }
  // Another stream than that of --seed, which may be the same number.
  const std::uint64_t stream = *options.routing_seed * 0x9E3779B97F4A7C15ull + 1;
  const twin::Parameters routers = twin::random_parameters(of_routers, stream, {}, deviation);
  twin::Parameters out;
  for (const auto& [name, value] : drawn) out.insert(name, routers.contains(name) ? routers[name] : value);
  return out;
}

/// Busiest expert over the mean.
double peak_load(const std::vector<std::int64_t>& counts) {
  const auto total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  const auto most = static_cast<double>(*std::max_element(counts.begin(), counts.end()));
  return most * static_cast<double>(counts.size()) / static_cast<double>(total);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class LanguageRun {
 public:
  LanguageRun(const TrainOptions& options, Communicator* ranks);
  TrainReport run();

 private:
  void read_inputs();
  void open_out();
  void make_trainer();
  void one_step(std::int64_t step);
  void evaluate(std::int64_t step);
  void save(std::int64_t step);
  void stop_if_interrupted(std::int64_t step);
  void finish();
  bool is_due(std::int64_t step, std::int64_t every) const { return every > 0 && step % every == 0; }

  TrainOptions options_;
  std::unique_ptr<Communicator> alone_;
  Communicator& ranks_;
  Schedule schedule_;
  twin::Options model_options_;
  Json config_;
  ModelSpec spec_;
  std::optional<TokenizerFiles> tokenizer_;
  TokenRows rows_, valid_;
  Json settings_;
  std::optional<Folder> lock_;
  std::optional<FoundCheckpoint> resumed_;
  std::optional<Trainer> trainer_;
  std::optional<Batches> batches_;
  std::optional<Log> log_;
  std::optional<Progress> progress_;
  std::int64_t evaluated_ = 0;  ///< step of the last measurement
  TrainReport report_;
};

LanguageRun::LanguageRun(const TrainOptions& options, Communicator* ranks)
    : options_(options),
      alone_(ranks == nullptr ? single_rank() : nullptr),
      ranks_(ranks == nullptr ? *alone_ : *ranks) {
  check(options_);
  if (options_.batch_size % ranks_.size() != 0) {
    throw Error(ErrorCode::usage, fmt::format("{} sequences of a step for {} ranks", options_.batch_size, ranks_.size()),
                "a multiple of the number of ranks", "give another --batch-size");
  }
  schedule_ = schedule_of(options_);
  model_options_ = model_options(options_);
  report_.threads = options_.threads > 0 ? options_.threads : usable_cpus();
  at::set_num_threads(report_.threads);
  twin::prefer_repeatable_kernels(model_options_.device);
  read_inputs();
  if (ranks_.is_root()) open_out();
  ranks_.barrier();
  resumed_ = newest_checkpoint(options_.out);
  make_trainer();
}

void LanguageRun::read_inputs() {
  const fs::path config_path = options_.config.empty() ? options_.init / "config.json" : options_.config;
  config_ = read_json(config_path);
  tokenizer_.emplace(open_tokenizer(options_.tokenizer.empty() ? options_.init : options_.tokenizer));
  set_objective(options_, tokenizer_->tokenizer, config_);
  spec_ = family_of(config_, config_path.string()).spec(config_, config_path.string());
  if (options_.seqlen > spec_.max_position_embeddings) {
    throw Error(ErrorCode::usage, fmt::format("a sequence length of {}", options_.seqlen),
                fmt::format("at most {}, the config's max_position_embeddings", spec_.max_position_embeddings));
  }
  rows_ = read_rows(*tokenizer_, options_.texts, options_.seqlen, 0, spec_.vocab_size);
  if (!options_.valid.empty()) {
    valid_ = read_rows(*tokenizer_, options_.valid, options_.seqlen, options_.eval_sequences, spec_.vocab_size);
  }
  InputHashes hashes{rows_.content_hash, tokenizer_->tokenizer.content_hash(), {}};
  if (!options_.init.empty()) hashes.init = Checkpoint::open(options_.init).content_hash();
  report_.device = model_options_.device.str();
  settings_ = settings_json(options_, config_, spec_, hashes, model_options_.device.is_cpu() ? "cpu" : "cuda");
}

void LanguageRun::open_out() {
  std::error_code error;
  fs::create_directories(options_.out, error);
  if (error) throw Error(ErrorCode::io, "cannot create " + options_.out.string() + ": " + error.message());
  lock_.emplace(options_.out);
  if (!lock_->lock(std::chrono::seconds(20))) {
    throw Error(ErrorCode::exists, "another process trains in " + options_.out.string(), "", "wait for it to end");
  }
  if (fs::exists(options_.out / kRecordFile)) {
    throw Error(ErrorCode::exists, options_.out.string() + " holds a finished run", "",
                "choose another --out or remove it");
  }
  if (!newest_checkpoint(options_.out) && (fs::exists(options_.out / "config.json") || fs::exists(options_.out / "model.safetensors"))) {
    throw Error(ErrorCode::exists, options_.out.string() + " holds a model that this command did not train", "",
                "choose another --out");
  }
}

void LanguageRun::make_trainer() {
  twin::Options on_host;
  twin::Parameters first;
  if (resumed_) {
    const Json state = read_state(*resumed_);
    check_same_settings(state.contains("settings") ? state["settings"] : Json(), settings_, resumed_->path.string());
    const auto threads = json_get<std::int64_t>(state, "threads", resumed_->path.string());
    const auto ranks = json_get_or<std::int64_t>(state, "ranks", 1, resumed_->path.string());
    if (threads != report_.threads || ranks != ranks_.size()) {
      warn(fmt::format("the run was begun with {} threads in each of {} ranks and goes on with {} in {}: its losses will "
                       "differ in the last bits",
                       threads, ranks, report_.threads, ranks_.size()));
    }
    first = read_weights(resumed_->path, spec_, on_host);
  } else if (!options_.init.empty()) {
    first = read_weights(options_.init, spec_, on_host);
  } else {
    const double deviation = json_get_or<double>(config_, "initializer_range", 0.02, "the config");
    first = first_weights(spec_, options_, deviation);
  }
  TrainerSettings settings = trainer_settings(options_);
  settings.resumed_from = resumed_ ? resumed_->step : 0;
  trainer_.emplace(spec_, first, settings, model_options_, &ranks_);
  if (!resumed_) trainer_->place_on_manifolds();
  if (resumed_) {
    read_optimizer(*resumed_, trainer_->optimizer());
    report_.resumed_from = resumed_->step;
    note(fmt::format("going on after step {} of {}", resumed_->step, options_.steps));
  }
  batches_.emplace(rows_.rows, options_.batch_size, options_.shuffle, options_.data_seed.value_or(options_.seed));
  if (ranks_.is_root()) log_.emplace(options_.out / kLogFile, report_.resumed_from);
}

TrainReport LanguageRun::run() {
  const auto start = std::chrono::steady_clock::now();
  const std::int64_t tokens_per_step = options_.batch_size * options_.seqlen, from = report_.resumed_from;
  if (ranks_.is_root()) progress_.emplace("train", (options_.steps - from) * tokens_per_step, "tokens");
  for (std::int64_t step = from + 1; step <= options_.steps; ++step) {
    stop_if_interrupted(step - 1);
    one_step(step);
    if (is_due(step, options_.eval_every)) evaluate(step);
    if (is_due(step, options_.save_every) || step == options_.steps) save(step);
  }
  if (!ranks_.is_root()) return report_;
  progress_->finish();
  report_.steps = options_.steps;
  report_.tokens = options_.steps * tokens_per_step;
  report_.seconds = seconds_since(start);
  report_.tokens_per_second = static_cast<double>((options_.steps - from) * tokens_per_step) / report_.seconds;
  finish();
  return report_;
}

void LanguageRun::one_step(std::int64_t step) {
  const auto start = std::chrono::steady_clock::now();
  const double lr = schedule_.at(step);
  const std::int64_t share = options_.batch_size / ranks_.size();
  const StepResult result = trainer_->step(batches_->at_step(step).narrow(0, ranks_.rank() * share, share), lr, step);
  if (!ranks_.is_root()) return;
  const std::int64_t tokens = options_.batch_size * options_.seqlen;
  Json peaks = Json::array();
  double highest = 0;
  for (const auto& counts : result.load) {
    peaks.push_back(peak_load(counts));
    highest = std::max(highest, peak_load(counts));
  }
  Json line = {{"step", step},
               {"loss", result.loss},
               {"balance_loss", result.balance_loss},
               {"z_loss", result.z_loss},
               {"gradient_norm", result.gradient_norm},
               {"lr", lr},
               {"peak_load", std::move(peaks)},
               {"tokens_per_second", static_cast<double>(tokens) / seconds_since(start)}};
  if (!std::isnan(result.reconstruction_loss)) line["reconstruction_loss"] = result.reconstruction_loss;
  log_->write(line);
  std::string detail = fmt::format("step {}/{}, loss {:.3f}", step, options_.steps, result.loss);
  if (highest > 0) detail += fmt::format(", busiest expert {:.1f} x mean", highest);
  progress_->update((step - report_.resumed_from) * tokens, detail);
}

void LanguageRun::evaluate(std::int64_t step) {
  if (valid_.rows.empty() || evaluated_ == step) return;
  evaluated_ = step;
  Evaluation result;
  const auto count = static_cast<std::int64_t>(valid_.rows.size());
  for (std::int64_t begin = 0; ranks_.is_root() && begin < count; begin += options_.batch_size) {
    trainer_->evaluate(rows_tensor(valid_.rows, begin, std::min(count, begin + options_.batch_size)), result);
  }
  if (!ranks_.is_root()) return;
  report_.valid_loss = result.nll / static_cast<double>(result.tokens);
  log_->write({{"step", step}, {"valid_loss", report_.valid_loss}, {"expert_counts", result.load}});
}

void LanguageRun::save(std::int64_t step) {
  if (!ranks_.is_root()) return;
  const Json state = {{"schema", "kedge.trainer-state/1"},
                      {"step", step},
                      {"threads", report_.threads},
                      {"ranks", ranks_.size()},
                      {"settings", settings_}};
  write_checkpoint(options_.out, *trainer_, {config_, tokenizer_->files}, step, state);
  remove_old_checkpoints(options_.out, options_.keep);
}

void LanguageRun::stop_if_interrupted(std::int64_t step) {
  if (!ranks_.is_root()) return;  // the root saves, then ends the others
  try {
    throw_if_interrupted();
  } catch (const Error&) {
    if (step == 0) throw;
    save(step);
    throw Error(ErrorCode::interrupted,
                fmt::format("interrupted; a checkpoint of step {} is in {}", step, options_.out.string()), "",
                "the same command goes on from there");
  }
}

void LanguageRun::finish() {
  evaluate(options_.steps);
  if (valid_.rows.empty()) report_.valid_loss = std::numeric_limits<double>::quiet_NaN();
  std::string dtype = options_.save_dtype;
  if (dtype == "auto") {
    const auto from_config =
        json_get_or<std::string>(config_, config_.contains("dtype") ? "dtype" : "torch_dtype", "float32", "the config");
    dtype = from_config == "bfloat16" || from_config == "float16" ? from_config : "float32";
  }
  write_model(options_.out, *trainer_, {config_, tokenizer_->files}, dtype);
  report_.model_type = spec_.model_type;
  count_parameters(spec_, report_);
  const std::vector<Json> lines = read_log(options_.out / kLogFile);
  summarize_log(lines, report_);
  write_record(options_, settings_, lines, report_);
}

}  // namespace

TrainReport train_language_model(const TrainOptions& options, Communicator* ranks) {
  return LanguageRun(options, ranks).run();
}

}  // namespace kedge::training
