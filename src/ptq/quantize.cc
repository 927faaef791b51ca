#include "kedge/quantize.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "comm/communicator.h"
#include "kedge/error.h"
#include "model/classifier.h"
#include "model/decoder.h"
#include "ptq/allocation.h"
#include "ptq/anchor/fit_stacks.h"
#include "ptq/balance.h"
#include "ptq/calibrate.h"
#include "ptq/calibration_data.h"
#include "ptq/classifier.h"
#include "ptq/export.h"
#include "ptq/layers/layer.h"
#include "ptq/layers/layer_store.h"
#include "ptq/make_recipe.h"
#include "ptq/methods.h"
#include "ptq/plan.h"
#include "ptq/recipe.h"
#include "ptq/summary.h"
#include "ptq/write_shards.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

bool is_inside(const fs::path& path, const fs::path& folder) {
  const auto [at, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return at == folder.end();
}

// A path without links, dots and trailing slashes; parts that do not exist stay as they are.
fs::path resolved(const fs::path& path) {
  std::error_code error;
  fs::path out = fs::weakly_canonical(fs::absolute(path), error);
  if (error) throw Error(ErrorCode::io, "the path " + path.string() + " cannot be read: " + error.message());
  return out.has_filename() ? out : out.parent_path();
}

void check_paths(const QuantizeOptions& options) {
  const fs::path source = resolved(options.source), destination = resolved(options.destination);
  if (source == destination) {
    throw Error(ErrorCode::usage, "source and destination are the same folder, " + options.source.string(),
                "two different folders");
  }
  if (is_inside(destination, source)) {
    throw Error(
        ErrorCode::usage,
        "the destination " + options.destination.string() + " lies inside the source " + options.source.string(),
        "a folder outside it");
  }
  std::error_code error;
  if (CheckpointWriter::is_unfinished(destination)) return;  // the writer knows whether it is this run's
  if (fs::exists(destination, error) && !(fs::is_directory(destination, error) && fs::is_empty(destination, error))) {
    throw Error(ErrorCode::exists, "the destination " + options.destination.string() + " exists", "",
                "remove it or choose another name");
  }
}

// Fails before hours of work where the result cannot fit; a later full disk is an error of its own.
void check_space(const fs::path& destination, const fs::path& partial, std::uint64_t needed) {
  std::error_code error;
  std::uint64_t written = 0;
  for (fs::directory_iterator at(partial, error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    const std::uintmax_t size = at->file_size(ignored);
    if (!ignored) written += size;
  }
  const fs::path parent = resolved(destination).parent_path();
  const fs::space_info space = fs::space(parent, error);
  if (error || needed <= written || needed - written <= space.available) return;
  throw Error(ErrorCode::io,
              fmt::format("{} has {:.1f} MB free and the quantized model needs {:.1f} MB more", parent.string(),
                          double(space.available) / 1e6, double(needed - written) / 1e6),
              "", "free some space or choose another folder");
}

// What a partial folder belongs to.
std::string plan_hash(const QuantPlan& plan, const std::string& source_hash, const Recipe& recipe,
                      const CalibrationData* data, int ranks) {
  Sha256 hash;
  hash.update(source_hash + "\n" + recipe.hash() + "\n" + version() + "\n");
  if (data != nullptr) hash.update(fmt::format("{} {}\n", data->ids_hash, data->seed));
  if (ranks > 1) hash.update(fmt::format("{} ranks\n", ranks));  // whose sums are in another order
  for (const ShardPlan& shard : plan.shards) {
    for (const auto& entry : shard.entries) {
      hash.update(fmt::format("{} {} {}\n", entry.name, dtype_name(entry.dtype), shape_string(entry.shape)));
    }
    hash.update("\n");
  }
  return hash.hex();
}

// Sequences to choose from for each that is wanted.
constexpr std::int64_t kBalancePool = 4;

std::optional<CalibrationData> calibration_data(const QuantizeOptions& options, const Recipe& recipe,
                                                const Checkpoint& checkpoint, ThreadPool& threads) {
  if (!recipe.calibrated()) return std::nullopt;
  const ModelSpec spec = model_spec(checkpoint);
  std::optional<std::optional<ChatTemplate>> chat;  // read at the first chat
  const auto chat_template = [&]() -> const ChatTemplate* {
    if (!chat) chat.emplace(ChatTemplate::open(options.source));
    return *chat ? &**chat : nullptr;
  };
  spec.require_causal("calibration follows next-token predictions");
  if (spec.routes_by_error()) {
    throw Error(ErrorCode::unsupported,
                spec.model_type + " has layers routed by reconstruction error, which no calibrated method knows",
                "a method without calibration", "give --method rtn or rtn-mse");
  }
  const CalibrationModel model{spec.max_position_embeddings, spec.vocab_size, chat_template};
  const Tokenizer tokenizer = Tokenizer::open(options.source);
  CalibrationOptions wanted = options.calibration;
  if (!wanted.balance) return read_calibration(wanted, tokenizer, model);
  if (wanted.nsamples < 1) {
    throw Error(ErrorCode::usage, "balance chooses among sequences and nsamples is 0, which means all",
                "the number of sequences to choose");
  }
  wanted.nsamples *= kBalancePool;
  const CalibrationData pool = read_calibration(wanted, tokenizer, model);
  note(fmt::format("counting the tokens of each expert in {} sequences", pool.sequences.size()));
  const LoadOptions load{detect_isa(), Numerics::consistent, Activations::fp32};
  const ExpertCounts counts = count_experts(DecoderModel::load(checkpoint, load, threads), threads, pool);
  return select_sequences(pool, choose_balanced(counts, options.calibration.nsamples));
}

struct Job {
  const QuantizeOptions& options;
  const Checkpoint& checkpoint;
  const Recipe& recipe;
  const QuantPlan& plan;
  LayerTunerFactory* tuners;
  std::optional<CalibrationData> data;  ///< where it was needed before
  Communicator* ranks;                  ///< null: one
};

Json stack_manifests(const LayerStore* store, int num_layers) {
  Json stacks = Json::object();
  for (int layer = 0; store != nullptr && layer < num_layers; ++layer) {
    const Json of_layer = store->stacks(layer);
    for (const auto& [name, manifest] : of_layer.items()) stacks[name] = manifest;
  }
  return stacks;
}

std::vector<std::string> layer_logs(const LayerStore* store, int num_layers) {
  std::vector<std::string> logs;
  for (int layer = 0; store != nullptr && layer < num_layers; ++layer) logs.push_back(store->log(layer));
  return logs;
}

// Rank 0 says whether there is anything left to calibrate.
bool all_go_on(Communicator* ranks, bool goes_on) {
  return ranks == nullptr ? goes_on : ranks->broadcast(goes_on ? "go on" : "") == "go on";
}

Json store_config(const Job& job) {
  return {{"quantization_config", plain_quantization(job.checkpoint, job.plan, job.recipe)}};
}

void calibrate(const Job& job, const CalibrationData& data, ThreadPool& threads, LayerStore& store) {
  std::unique_ptr<LayerTuner> tuner;
  if (find_quant_method(job.recipe.method).needs == MethodNeeds::torch) tuner = job.tuners->make(job.recipe, data);
  const bool alone = job.ranks == nullptr;
  const std::optional<CalibrationData> own = alone ? std::nullopt : std::optional(share_of(data, *job.ranks));
  quantize_layers({job.checkpoint, job.plan, job.recipe, alone ? data : *own, job.options.cache_dir, threads,
                   tuner.get(), job.ranks},
                  store);
}

// What ranks other than the first do.
void take_part(const Job& job) {
  ThreadPool threads(job.options.threads);
  const auto data = job.data ? job.data : calibration_data(job.options, job.recipe, job.checkpoint, threads);
  if (!all_go_on(job.ranks, false)) return;
  LayerStore store(job.checkpoint, job.plan, resolved(job.options.destination).string() + ".partial",
                   store_config(job));
  calibrate(job, *data, threads, store);
}

void write_checkpoint(const Job& job, std::vector<ModuleError>& errors, QuantizeReport& report) {
  const ModelSpec spec = model_spec(job.checkpoint);
  ThreadPool threads(job.options.threads);
  report.threads = threads.size();
  const int ranks = job.ranks == nullptr ? 1 : job.ranks->size();
  const auto data = job.data ? job.data : calibration_data(job.options, job.recipe, job.checkpoint, threads);
  const fs::path destination = resolved(job.options.destination);
  // Results of finished layers stand beside the shards until the checkpoint is complete.
  const bool by_layer = data || !job.plan.stacks.empty();
  check_space(destination, destination.string() + ".partial", job.plan.output_bytes * (by_layer ? 2 : 1));
  note("hashing " + job.options.source.string());
  report.source_hash = job.checkpoint.content_hash();
  CheckpointWriter writer(destination, job.plan.shards,
                          plan_hash(job.plan, report.source_hash, job.recipe, data ? &*data : nullptr, ranks));
  std::optional<LayerStore> store;
  if (by_layer) {
    store.emplace(job.checkpoint, job.plan, writer.folder(), store_config(job));
  }
  const std::vector<std::string> scratch = scratch_files(job.plan, store ? &*store : nullptr, spec.num_hidden_layers);
  const auto finish = [&] {
    for (const std::string& name : scratch) fs::remove(writer.folder() / name);
    writer.finish();
  };
  const bool is_complete = by_layer && writer.is_complete();
  if (data) all_go_on(job.ranks, !is_complete);
  if (is_complete) {
    // A run that was stopped at its very end: nobody has heard its warnings yet.
    const Json done = read_json(writer.folder() / "kedge.manifest.json");
    int layer = 0;
    for (const Json& log : done.value("layers", Json::array())) warn_of_layer(layer++, log, job.recipe);
    return finish();
  }

  if (data) {
    calibrate(job, *data, threads, *store);
  } else if (by_layer) {
    fit_stacks(job.checkpoint, job.plan, job.recipe, threads, *store);
  }
  const ShardsWritten written =
      write_shards({job.checkpoint, job.plan, job.recipe, writer, threads, store ? &*store : nullptr});
  errors = written.errors;
  report.shards_resumed = written.resumed;
  for (const fs::path& file : side_files(job.options.source)) writer.copy_file(file);
  writer.write_file("config.json", quantized_config(job.checkpoint, job.plan, job.recipe,
                                                    stack_manifests(store ? &*store : nullptr, spec.num_hidden_layers)));
  writer.write_file("kedge.manifest.json",
                    manifest({job.checkpoint, report.source_hash, job.plan, job.recipe, errors, data ? &*data : nullptr,
                              layer_logs(store ? &*store : nullptr, spec.num_hidden_layers), ranks}));
  writer.mark_complete();
  finish();
}

std::optional<Allocation> allocation_for(const QuantizeOptions& options, const Recipe& recipe,
                                         const Checkpoint& checkpoint, std::optional<CalibrationData>& data) {
  if (!recipe.mixed.enabled()) return std::nullopt;
  ThreadPool threads(options.threads);
  data = calibration_data(options, recipe, checkpoint, threads);
  return allocate_bits(checkpoint, recipe, *data, options.cache_dir, threads);
}

QuantizeReport make_report(const QuantizeOptions& options, const Checkpoint& checkpoint, const QuantPlan& plan,
                           const Recipe& recipe) {
  QuantizeReport report;
  report.scheme = recipe.scheme.name;
  report.method = recipe.method;
  report.model_type = model_spec(checkpoint).model_type;
  report.recipe_hash = recipe.hash();
  report.kedge_only = !plan.stacks.empty();
  report.allocation = plan.allocation;
  report.dry_run = options.dry_run;
  report.shards = static_cast<std::int64_t>(plan.shards.size());
  return report;
}

[[noreturn]] void refuse_ranks(const std::string& why) {
  throw Error(ErrorCode::unsupported, why,
              "a method without gradients that reads calibration data, such as kedge or gptq", "run it without mpirun");
}

// A folder that has no config.json is Checkpoint::open()'s to complain of.
bool is_classifier_folder(const fs::path& source) {
  std::error_code ignored;
  return fs::is_regular_file(source / "config.json", ignored) && is_classifier(read_json(source / "config.json"));
}

}  // namespace

QuantizeReport quantize(const QuantizeOptions& options, LayerTunerFactory* tuners, Communicator* given_ranks) {
  const auto start = std::chrono::steady_clock::now();
  Communicator* ranks = given_ranks != nullptr && given_ranks->size() > 1 ? given_ranks : nullptr;
  const bool is_root = ranks == nullptr || ranks->is_root();
  if (is_classifier_folder(options.source)) {
    if (ranks != nullptr) refuse_ranks("a classifier is quantized without calibration text");
    check_paths(options);
    return quantize_classifier(options);
  }
  const Recipe recipe = make_recipe(options);
  if (ranks != nullptr && (!recipe.calibrated() || find_quant_method(recipe.method).needs == MethodNeeds::torch)) {
    refuse_ranks("the method " + recipe.method + " does not share its work among ranks");
  }
  if (!options.dry_run && is_root) check_paths(options);
  if (!options.dry_run && tuners == nullptr && find_quant_method(recipe.method).needs == MethodNeeds::torch) {
    throw Error(ErrorCode::unsupported, "the method " + recipe.method + " needs libtorch", "a method without gradients",
                "or run kedge-torch, which \"make torch\" builds");
  }
  const Checkpoint checkpoint = Checkpoint::open(options.source);
  if (!checkpoint.quant_format().empty()) {
    throw Error(ErrorCode::unsupported,
                options.source.string() + " is quantized already (" + checkpoint.quant_format() + ")",
                "a checkpoint in high precision", "quantize from the original");
  }
  std::optional<CalibrationData> data;
  const std::optional<Allocation> allocation = allocation_for(options, recipe, checkpoint, data);
  const QuantPlan plan =
      plan_quantization(checkpoint, recipe, options.max_shard_bytes, allocation ? &*allocation : nullptr);
  QuantizeReport report = make_report(options, checkpoint, plan, recipe);
  std::vector<ModuleError> errors;
  if (!options.dry_run && !is_root) {
    take_part({options, checkpoint, recipe, plan, tuners, std::move(data), ranks});
  } else if (!options.dry_run) {
    try {
      write_checkpoint({options, checkpoint, recipe, plan, tuners, std::move(data), ranks}, errors, report);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::interrupted) throw;
      throw Error(ErrorCode::interrupted,
                  "interrupted; what is finished is kept in " + resolved(options.destination).string() + ".partial", "",
                  "run the same command again to resume, or remove that folder");
    }
  }
  summarize(plan, errors, report);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

bool quantize_method_needs_torch(const std::string& method) {
  return method != "auto" && find_quant_method(method).needs == MethodNeeds::torch;
}

std::vector<std::string> quantize_methods() {
  std::vector<std::string> names;
  for (const QuantMethod& method : quant_methods()) names.emplace_back(method.name);
  return names;
}

}  // namespace kedge
