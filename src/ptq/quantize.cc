#include "kedge/quantize.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "kedge/error.h"
#include "ptq/export.h"
#include "ptq/methods.h"
#include "ptq/module_quantizer.h"
#include "ptq/plan.h"
#include "ptq/recipe.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

const char* role_name(LinearRole role) {
  switch (role) {
    case LinearRole::attention: return "attention";
    case LinearRole::mlp: return "mlp";
    case LinearRole::expert: return "expert";
    case LinearRole::shared_expert: return "shared_expert";
    case LinearRole::router: return "router";
    case LinearRole::lm_head: return "lm_head";
  }
  return "other";
}

Recipe make_recipe(const QuantizeOptions& options) {
  Recipe recipe{parse_scheme(options.scheme), find_quant_method(options.method).name, {}};
  for (const QuantizeOverride& override : options.overrides) {
    std::optional<QuantScheme> scheme;
    if (override.scheme != "none") scheme = parse_scheme(override.scheme);
    recipe.overrides.push_back({ModulePattern(override.pattern), std::move(scheme)});
  }
  return recipe;
}

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

std::string plan_hash(const QuantPlan& plan, const std::string& source_hash, const Recipe& recipe) {
  Sha256 hash;
  hash.update(source_hash + "\n" + recipe.hash() + "\n" + version() + "\n");
  for (const ShardPlan& shard : plan.shards) {
    for (const auto& entry : shard.entries) {
      hash.update(fmt::format("{} {} {}\n", entry.name, dtype_name(entry.dtype), shape_string(entry.shape)));
    }
    hash.update("\n");
  }
  return hash.hex();
}

std::string errors_file(std::size_t shard) { return fmt::format("kedge.errors-{:05}.json", shard + 1); }

std::int64_t weights_to_quantize(const QuantPlan& plan, const CheckpointWriter& writer) {
  std::int64_t weights = 0;
  for (std::size_t i = 0; i < plan.shards.size(); ++i) {
    if (writer.is_done(i)) continue;
    for (const auto& entry : plan.shards[i].entries) {
      const auto at = plan.module_of.find(entry.name);
      if (at == plan.module_of.end() || !entry.name.ends_with(".weight_packed")) continue;
      weights += plan.modules[at->second].linear.rows * plan.modules[at->second].linear.cols;
    }
  }
  return weights;
}

struct Writing {
  const Checkpoint& checkpoint;
  const QuantPlan& plan;
  CheckpointWriter& writer;
  ModuleQuantizer& quantizer;
};

// A tensor that stays: the source's own bytes, dropped from memory once written.
void copy_tensor(const Writing& w, const SafetensorsWriter::Entry& entry, const CheckpointWriter::Sink& sink) {
  const auto at = w.plan.module_of.find(entry.name);
  const TensorView view = at == w.plan.module_of.end()
                              ? w.checkpoint.tensor(entry.name)
                              : std::get<TensorView>(load_linear(w.checkpoint, w.plan.modules[at->second].linear));
  sink(view.data, view.num_bytes());
  if (entry.name.ends_with(".weight")) w.checkpoint.drop(std::string_view(entry.name).substr(0, entry.name.size() - 7));
}

void write_shard(const Writing& w, std::size_t shard) {
  const ShardPlan& plan = w.plan.shards[shard];
  w.quantizer.begin(plan.entries);
  std::size_t produced = 0;
  w.writer.write_shard(shard, [&](const SafetensorsWriter::Entry& entry, const CheckpointWriter::Sink& sink) {
    const auto at = w.plan.module_of.find(entry.name);
    const bool quantized = at != w.plan.module_of.end() && w.plan.modules[at->second].args;
    std::vector<std::byte> bytes;
    if (quantized) bytes = w.quantizer.bytes(entry);
    // Before the shard is recorded as finished: a finished shard has its error sums.
    if (++produced == plan.entries.size()) {
      w.writer.write_file(errors_file(shard), errors_to_json(w.plan, plan, w.quantizer.errors()));
    }
    if (quantized) {
      sink(bytes.data(), bytes.size());
    } else {
      copy_tensor(w, entry, sink);
    }
  });
}

// The error sums of a shard that an earlier run finished: as that run left them, or computed again.
void recall_shard(const Writing& w, std::size_t shard, const fs::path& partial) {
  const ShardPlan& plan = w.plan.shards[shard];
  const fs::path file = partial / errors_file(shard);
  std::error_code error;
  if (fs::exists(file, error) && errors_from_json(read_file(file), w.plan, plan, w.quantizer.errors())) return;
  w.quantizer.begin(plan.entries);
  w.quantizer.measure();
}

void write_checkpoint(const QuantizeOptions& options, const Checkpoint& checkpoint, const QuantPlan& plan,
                      const Recipe& recipe, std::vector<ModuleError>& errors, QuantizeReport& report) {
  fs::path destination = resolved(options.destination);
  const fs::path partial = destination.string() + ".partial";
  check_space(destination, partial, plan.output_bytes);
  note("hashing " + options.source.string());
  report.source_hash = checkpoint.content_hash();
  CheckpointWriter writer(destination, plan.shards, plan_hash(plan, report.source_hash, recipe));

  ThreadPool threads(options.threads);
  report.threads = threads.size();
  Progress progress("quantizing", weights_to_quantize(plan, writer), "weights");
  ModuleQuantizer quantizer(checkpoint, plan, find_quant_method(recipe.method), threads,
                            [&](std::int64_t done) { progress.update(done); });
  const Writing writing{checkpoint, plan, writer, quantizer};
  try {
    for (std::size_t i = 0; i < plan.shards.size(); ++i) {
      if (writer.is_done(i)) {
        recall_shard(writing, i, partial);
        ++report.shards_resumed;
      } else {
        write_shard(writing, i);
      }
    }
    progress.finish();
    errors = quantizer.errors();
    for (const fs::path& file : side_files(options.source)) writer.copy_file(file);
    writer.write_file("config.json", quantized_config(checkpoint, plan, recipe));
    writer.write_file("kedge.manifest.json", manifest(checkpoint, report.source_hash, plan, recipe, errors));
    for (std::size_t i = 0; i < plan.shards.size(); ++i) fs::remove(partial / errors_file(i));
    writer.finish();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::interrupted) throw;
    throw Error(ErrorCode::interrupted, "interrupted; finished shards are kept in " + partial.string(), "",
                "run the same command again to resume, or remove that folder");
  }
}

QuantizeReport make_report(const QuantizeOptions& options, const Checkpoint& checkpoint, const QuantPlan& plan,
                           const Recipe& recipe) {
  QuantizeReport report;
  report.scheme = recipe.scheme.name;
  report.method = recipe.method;
  report.model_type = model_spec(checkpoint).model_type;
  report.recipe_hash = recipe.hash();
  report.dry_run = options.dry_run;
  report.shards = static_cast<std::int64_t>(plan.shards.size());
  return report;
}

// Sizes and errors by role and scheme. errors is empty in a dry run.
void fill_groups(const QuantPlan& plan, const std::vector<ModuleError>& errors, QuantizeReport& report) {
  std::map<std::tuple<int, bool, std::string>, std::pair<QuantizeGroup, ModuleError>> groups;
  std::uint64_t quantized_bytes = 0;
  std::int64_t quantized_weights = 0;
  for (std::size_t i = 0; i < plan.modules.size(); ++i) {
    const PlannedModule& module = plan.modules[i];
    auto& [group, sum] = groups[{static_cast<int>(module.linear.role), !module.args, module.scheme()}];
    const std::int64_t weights = module.linear.rows * module.linear.cols;
    group.role = role_name(module.linear.role);
    group.scheme = module.scheme();
    ++group.modules;
    group.weights += weights;
    group.source_bytes += module.source_bytes;
    group.output_bytes += module.output_bytes;
    report.channel_fallbacks += module.channel_fallback ? 1 : 0;
    if (!module.args) continue;
    quantized_bytes += module.output_bytes;
    quantized_weights += weights;
    if (errors.empty()) continue;
    sum.squared_error += errors[i].squared_error;
    sum.squared_weight += errors[i].squared_weight;
  }
  for (auto& [key, value] : groups) {
    value.first.relative_rms_error = value.second.relative_rms();
    report.groups.push_back(std::move(value.first));
  }
  QuantizeGroup other{"other", "none"};
  for (const TensorInfo& tensor : plan.copies) {
    ++other.modules;
    other.weights += num_elements(tensor.shape);
    other.source_bytes += tensor.end - tensor.begin;
    other.output_bytes += tensor.end - tensor.begin;
  }
  if (other.modules > 0) report.groups.push_back(std::move(other));
  for (const QuantizeGroup& group : report.groups) {
    report.weights += group.weights;
    report.source_bytes += group.source_bytes;
    report.output_bytes += group.output_bytes;
  }
  if (report.weights > 0) report.bits_per_weight = 8.0 * double(report.output_bytes) / double(report.weights);
  if (quantized_weights > 0)
    report.quantized_bits_per_weight = 8.0 * double(quantized_bytes) / double(quantized_weights);
}

}  // namespace

QuantizeReport quantize(const QuantizeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const Recipe recipe = make_recipe(options);
  if (!options.dry_run) check_paths(options);
  const Checkpoint checkpoint = Checkpoint::open(options.source);
  if (!checkpoint.quant_format().empty()) {
    throw Error(ErrorCode::unsupported,
                options.source.string() + " is quantized already (" + checkpoint.quant_format() + ")",
                "a checkpoint in high precision", "quantize from the original");
  }
  const QuantPlan plan = plan_quantization(checkpoint, recipe, options.max_shard_bytes);
  QuantizeReport report = make_report(options, checkpoint, plan, recipe);
  std::vector<ModuleError> errors;
  if (!options.dry_run) write_checkpoint(options, checkpoint, plan, recipe, errors, report);
  fill_groups(plan, errors, report);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

std::vector<std::string> quantize_methods() {
  std::vector<std::string> names;
  for (const QuantMethod& method : quant_methods()) names.emplace_back(method.name);
  return names;
}

}  // namespace kedge
