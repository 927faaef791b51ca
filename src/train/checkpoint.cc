#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include <fmt/format.h>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "io/checkpoint_writer.h"
#include "io/wire/anchor_delta.h"
#include "kedge/error.h"
#include "model/checkpoint_source.h"

namespace kedge::training {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "checkpoint-";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kState = "trainer_state.json";
constexpr std::uint64_t kMaxSideFile = 1ull << 30;

std::optional<std::int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* first = name.data() + std::string_view(kPrefix).size();
  const char* last = name.data() + name.size();
  std::int64_t step = 0;
  const auto [end, failed] = std::from_chars(first, last, step);
  if (first == last || failed != std::errc() || end != last) return std::nullopt;
  return step;
}

/// By step, ascending.
std::vector<FoundCheckpoint> all_checkpoints(const fs::path& out) {
  std::vector<FoundCheckpoint> found;
  for (const auto& entry : fs::directory_iterator(out)) {
    const std::optional<std::int64_t> step = step_of(entry.path().filename().string());
    if (step && entry.is_directory() && fs::exists(entry.path() / kState)) found.push_back({entry.path(), *step});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return found;
}

DType stored_type(const std::string& dtype) {
  if (dtype == "float32") return DType::f32;
  if (dtype == "bfloat16") return DType::bf16;
  KEDGE_CHECK(dtype == "float16");
  return DType::f16;
}

/// Where a config says the type of its weights; transformers 5 writes "dtype".
Json with_dtype(Json config, const std::string& dtype) {
  config.erase("torch_dtype");
  config["dtype"] = dtype;
  return config;
}

std::vector<std::byte> stored_bytes(const at::Tensor& value, DType dtype) {
  const at::Tensor host = value.detach().to(at::kCPU).contiguous();
  std::vector<std::byte> bytes(static_cast<std::size_t>(host.numel()) * static_cast<std::size_t>(dtype_bits(dtype)) /
                               8);
  convert_from_float(dtype, host.const_data_ptr<float>(), host.numel(), bytes.data());
  return bytes;
}

/// Names in the file -> canonical names.
struct FilePlan {
  std::vector<SafetensorsWriter::Entry> entries;
  std::map<std::string, std::string> canonical;
};

using Stacks = std::map<std::string, AnchorDelta>;

bool in_stack(const Stacks& stacks, const std::string& canonical) {
  const std::string stacked = twin::stacked_name(canonical);
  return !stacked.empty() && stacks.contains(stacked.substr(0, stacked.size() - std::string_view(".weight").size()));
}

/// Without what the stacks hold.
FilePlan plan_file(const Trainer& trainer, const Json& config, DType dtype, const Stacks& stacks) {
  const ModelFamily& family = family_of(config, "config.json");
  FilePlan plan;
  for (const twin::ParameterInfo& info : twin::list_parameters(trainer.spec())) {
    const std::string name = to_file_name(family, info.name);
    if (in_stack(stacks, info.name)) continue;
    // transformers keeps the selection bias in fp32; encoders with orthonormal rows would not be so in fewer bits, and
    // weights of experts follow exp of a temperature's.
    const bool exact = info.kind == twin::ParameterKind::selection_bias ||
                       info.kind == twin::ParameterKind::temperature ||
                       (info.kind == twin::ParameterKind::router && trainer.spec().routes_by_error());
    plan.entries.push_back({name, exact ? DType::f32 : dtype, info.shape});
    plan.canonical[name] = info.name;
  }
  return plan;
}

void write_optimizer(const fs::path& path, const Optimizer& optimizer) {
  std::vector<SafetensorsWriter::Entry> entries;
  std::map<std::string, at::Tensor> values;
  for (const auto& [name, value] : optimizer.state()) {
    entries.push_back({name, DType::f32, value.sizes().vec()});
    values[name] = value;
  }
  SafetensorsWriter writer(path, entries);
  for (const SafetensorsWriter::Entry& entry : writer.order()) {
    const std::vector<std::byte> bytes = stored_bytes(values[entry.name], DType::f32);
    writer.write(entry.name, bytes.data(), bytes.size());
  }
  writer.finish();
}

}  // namespace

std::optional<FoundCheckpoint> newest_checkpoint(const fs::path& out) {
  std::vector<fs::path> half;
  for (const auto& entry : fs::directory_iterator(out)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".partial" && step_of(path.stem().string())) half.push_back(path);
  }
  for (const fs::path& path : half) fs::remove_all(path);
  const std::vector<FoundCheckpoint> found = all_checkpoints(out);
  return found.empty() ? std::nullopt : std::optional(found.back());
}

void write_checkpoint(const fs::path& out, const Trainer& trainer, const ModelFiles& files, std::int64_t step,
                      const Json& state) {
  const fs::path path = out / fmt::format("{}{:06}", kPrefix, step);
  if (fs::exists(path)) return;  // written when the run was stopped here; the same bytes
  FilePlan plan = plan_file(trainer, files.config, DType::f32, {});
  CheckpointWriter writer(path, {{plan.entries}}, sha256_hex(state.dump()));
  writer.write_shard(
      0,
      [&](const SafetensorsWriter::Entry& entry, const CheckpointWriter::Sink& sink) {
        const std::vector<std::byte> bytes =
            stored_bytes(trainer.weights().value(plan.canonical[entry.name]), entry.dtype);
        sink(bytes.data(), bytes.size());
      },
      /*interruptible=*/false);
  write_optimizer(writer.folder() / kOptimizer, trainer.optimizer());
  for (const fs::path& file : files.sources) writer.copy_file(file);
  writer.write_file("config.json", with_dtype(files.config, "float32").dump(2) + "\n");
  writer.write_file(kState, state.dump(1) + "\n");
  writer.finish();
}

void remove_old_checkpoints(const fs::path& out, std::int64_t keep) {
  std::vector<FoundCheckpoint> found = all_checkpoints(out);
  while (static_cast<std::int64_t>(found.size()) > keep) {
    // A folder that is half removed must not be taken for a checkpoint.
    fs::path leaving = found.front().path;
    leaving += ".partial";
    fs::rename(found.front().path, leaving);
    fs::remove_all(leaving);
    found.erase(found.begin());
  }
}

Json read_state(const FoundCheckpoint& found) { return read_json(found.path / kState); }

twin::Parameters read_weights(const fs::path& directory, const ModelSpec& spec, const twin::Options& options) {
  const Checkpoint checkpoint = Checkpoint::open(directory);
  const ModelSpec own = model_spec(checkpoint);
  const auto shapes = [](const ModelSpec& s) {
    std::map<std::string, Shape> out;
    for (const twin::ParameterInfo& info : twin::list_parameters(s)) out[info.name] = info.shape;
    return out;
  };
  if (own.model_type != spec.model_type || shapes(own) != shapes(spec)) {
    throw Error(ErrorCode::mismatch,
                fmt::format("{} holds a {} model of other shapes than the config's ({})", directory.string(),
                            own.model_type, spec.model_type),
                "weights of the architecture that is trained");
  }
  const CheckpointSource source(checkpoint, spec);
  return twin::load_parameters(twin::list_parameters(spec), source, options);
}

void read_optimizer(const FoundCheckpoint& found, Optimizer& optimizer) {
  const SafetensorsFile file(found.path / kOptimizer);
  for (const auto& [name, value] : optimizer.state()) {
    const TensorView view = file.tensor(name);
    if (view.dtype != DType::f32 || view.shape != value.sizes().vec()) {
      throw Error(ErrorCode::bad_file,
                  fmt::format("\"{}\" in {} is {} {}", name, (found.path / kOptimizer).string(), dtype_name(view.dtype),
                              shape_string(view.shape)),
                  "F32 " + shape_string(value.sizes().vec()));
    }
    at::Tensor host = at::empty(view.shape, at::TensorOptions().dtype(at::kFloat));
    convert_to_float(view.dtype, view.data, view.size(), host.mutable_data_ptr<float>());
    const at::NoGradGuard no_gradients;
    value.copy_(host);
  }
}

void write_model(const fs::path& out, const Trainer& trainer, const ModelFiles& files, const std::string& dtype) {
  for (const fs::path& file : files.sources) {
    write_file_atomically(out / file.filename(), read_file(file, kMaxSideFile));
  }
  const Stacks stacks = trainer.rounds() ? encode_stacks(trainer.spec(), trainer.weights()) : Stacks();
  Json config = with_dtype(files.config, dtype);
  FilePlan plan = plan_file(trainer, files.config, stored_type(dtype), stacks);
  Json manifests = Json::object();
  for (const auto& [name, stack] : stacks) {
    manifests[name] = anchor_delta::manifest(stack);
    const auto own = anchor_delta::entries(name, stack.shape());
    plan.entries.insert(plan.entries.end(), own.begin(), own.end());
  }
  if (!stacks.empty()) {
    const AnchorDeltaArgs& args = stacks.begin()->second.args;
    const std::string scheme = fmt::format("anchor-int{}-g{}", args.num_bits, args.group_size);
    config["quantization_config"] = anchor_delta::quantization_config(scheme, std::move(manifests), nullptr);
  }
  write_file_atomically(out / "config.json", config.dump(2) + "\n");
  SafetensorsWriter writer(out / "model.safetensors", plan.entries, {{"format", "pt"}});
  for (const SafetensorsWriter::Entry& entry : writer.order()) {
    const auto name = plan.canonical.find(entry.name);
    const std::size_t dot = entry.name.rfind('.');
    const std::vector<std::byte> bytes =
        name != plan.canonical.end()
            ? stored_bytes(trainer.weights().value(name->second), entry.dtype)
            : anchor_delta::serialize(stacks.at(entry.name.substr(0, dot)), std::string_view(entry.name).substr(dot));
    writer.write(entry.name, bytes.data(), bytes.size());
  }
  writer.finish();
}

}  // namespace kedge::training
