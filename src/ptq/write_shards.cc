#include "ptq/write_shards.h"

#include <filesystem>
#include <string_view>
#include <utility>
#include <variant>

#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "ptq/export.h"
#include "ptq/module_quantizer.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

std::string errors_file(std::size_t shard) { return fmt::format("kedge.errors-{:05}.json", shard + 1); }

class Shards {
 public:
  explicit Shards(const ShardWriting& w)
      : w_(w),
        progress_("writing", weights_left(), "weights"),
        quantizer_(w.checkpoint, w.plan, w.recipe, w.threads, [this](std::int64_t done) { progress_.update(done); }) {}

  ShardsWritten run();

 private:
  const PlannedModule* quantized_module(const std::string& tensor) const {
    const auto at = w_.plan.module_of.find(tensor);
    return at != w_.plan.module_of.end() && w_.plan.modules[at->second].args ? &w_.plan.modules[at->second] : nullptr;
  }
  bool in_store(const std::string& tensor) const { return w_.store != nullptr && w_.store->find(tensor).has_value(); }
  std::int64_t weights_left() const;
  void begin(const ShardPlan& shard);
  void write(std::size_t shard);
  void recall(std::size_t shard);
  void copy(const SafetensorsWriter::Entry& entry, const CheckpointWriter::Sink& sink);
  void read_errors_of_layers();

  const ShardWriting& w_;
  Progress progress_;
  ModuleQuantizer quantizer_;
};

std::int64_t Shards::weights_left() const {
  std::int64_t weights = 0;
  for (std::size_t i = 0; i < w_.plan.shards.size(); ++i) {
    if (w_.writer.is_done(i)) continue;
    for (const auto& entry : w_.plan.shards[i].entries) {
      const PlannedModule* module = quantized_module(entry.name);
      if (module == nullptr || !entry.name.ends_with(".weight_packed") || in_store(entry.name)) continue;
      weights += module->linear.rows * module->linear.cols;
    }
  }
  return weights;
}

void Shards::begin(const ShardPlan& shard) {
  std::vector<SafetensorsWriter::Entry> here;
  for (const auto& entry : shard.entries) {
    if (!in_store(entry.name)) here.push_back(entry);
  }
  quantizer_.begin(here);
}

// A tensor that stays: the source's own bytes, dropped from memory once written.
void Shards::copy(const SafetensorsWriter::Entry& entry, const CheckpointWriter::Sink& sink) {
  const auto at = w_.plan.module_of.find(entry.name);
  const TensorView view = at == w_.plan.module_of.end()
                              ? w_.checkpoint.tensor(entry.name)
                              : std::get<TensorView>(load_linear(w_.checkpoint, w_.plan.modules[at->second].linear));
  sink(view.data, view.num_bytes());
  if (entry.name.ends_with(".weight")) {
    w_.checkpoint.drop(std::string_view(entry.name).substr(0, entry.name.size() - 7));
  }
}

void Shards::write(std::size_t shard) {
  const ShardPlan& plan = w_.plan.shards[shard];
  begin(plan);
  std::size_t produced = 0;
  w_.writer.write_shard(shard, [&](const SafetensorsWriter::Entry& entry, const CheckpointWriter::Sink& sink) {
    const bool stored = in_store(entry.name);
    const bool computed = !stored && quantized_module(entry.name) != nullptr;
    std::vector<std::byte> bytes;
    if (computed) bytes = quantizer_.bytes(entry);
    // Before the shard is recorded as finished: a finished shard has its error sums.
    if (++produced == plan.entries.size()) {
      w_.writer.write_file(errors_file(shard), errors_to_json(w_.plan, plan, quantizer_.errors()));
    }
    if (computed) {
      sink(bytes.data(), bytes.size());
    } else if (stored) {
      const TensorView view = *w_.store->find(entry.name);
      sink(view.data, view.num_bytes());
    } else {
      copy(entry, sink);
    }
  });
}

// The error sums of a shard that an earlier run finished: as that run left them, or computed again.
void Shards::recall(std::size_t shard) {
  const ShardPlan& plan = w_.plan.shards[shard];
  const fs::path file = w_.writer.folder() / errors_file(shard);
  std::error_code error;
  if (fs::exists(file, error) && errors_from_json(read_file(file), w_.plan, plan, quantizer_.errors())) return;
  begin(plan);
  quantizer_.measure();
}

void Shards::read_errors_of_layers() {
  if (w_.store == nullptr) return;
  std::map<int, Json> logs;
  for (std::size_t i = 0; i < w_.plan.modules.size(); ++i) {
    const LinearRef& linear = w_.plan.modules[i].linear;
    if (linear.layer < 0 || !w_.store->has(linear.layer)) continue;
    if (!logs.contains(linear.layer)) logs[linear.layer] = parse_json(w_.store->log(linear.layer), "a layer's log");
    const Json& modules = logs[linear.layer]["modules"];
    const auto at = modules.find(linear.module);
    if (at == modules.end()) continue;
    quantizer_.errors()[i] = module_error_from_json(at->value("error", Json())).value_or(ModuleError{});
  }
}

ShardsWritten Shards::run() {
  ShardsWritten out;
  read_errors_of_layers();
  for (std::size_t i = 0; i < w_.plan.shards.size(); ++i) {
    if (w_.writer.is_done(i)) {
      recall(i);
      ++out.resumed;
    } else {
      write(i);
    }
  }
  progress_.finish();
  out.errors = quantizer_.errors();
  return out;
}

}  // namespace

ShardsWritten write_shards(const ShardWriting& writing) { return Shards(writing).run(); }

std::vector<std::string> scratch_files(const QuantPlan& plan, const LayerStore* store, int num_layers) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < plan.shards.size(); ++i) names.push_back(errors_file(i));
  for (int layer = 0; store != nullptr && layer < num_layers; ++layer) names.push_back(LayerStore::file_name(layer));
  return names;
}

}  // namespace kedge
