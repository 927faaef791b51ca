#include "ptq/classifier.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>

#include <fmt/format.h>

#include "base/check.h"
#include "base/cpu.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/version.h"
#include "io/checkpoint_writer.h"
#include "io/wire/wire.h"
#include "kedge/error.h"
#include "model/classify.h"
#include "nn/probe.h"
#include "quant/scale_search.h"

namespace kedge {
namespace {

constexpr std::int64_t kCalibrationBatch = 64;

void check_options(const QuantizeOptions& o) {
  const auto refuse = [](const std::string& what, const std::string& expected) {
    throw Error(ErrorCode::usage, what + " says nothing to a classifier", expected, "leave it out");
  };
  if (o.method != "auto" && o.method != "rtn") refuse("the method " + o.method, "rtn");
  if (!o.overrides.empty()) refuse("override", "one scheme for all matrices but the router");
  if (o.target_bits > 0) refuse("target_bits", "a scheme");
  if (parse_scheme(o.scheme).anchor) refuse("the scheme " + o.scheme, "one without an anchor");
  if (o.dry_run) refuse("dry_run", "a destination");
  if (o.router_refit == true || o.act_order == true || !o.scale_search.empty()) {
    refuse("router_refit, act_order or scale_search", "round to nearest");
  }
}

DType scale_dtype_of(const std::string& name) {
  if (name == "auto" || name == "float16") return DType::f16;
  if (name == "bfloat16") return DType::bf16;
  if (name == "float32") return DType::f32;
  throw Error(ErrorCode::usage, "the scale type is \"" + name + "\"", "auto, float32, float16 or bfloat16");
}

/// The inputs of every linear, by module and batch.
class InputCollector : public ForwardProbe {
 public:
  unsigned sites() const noexcept override { return static_cast<unsigned>(Site::linear_input); }
  void linear_input(std::string_view module, std::int64_t rows, std::int64_t size, const float* x,
                    std::int64_t ld) override {
    std::vector<float> batch;
    for (std::int64_t r = 0; r < rows; ++r) batch.insert(batch.end(), x + r * ld, x + r * ld + size);
    inputs_[std::string(module)].push_back(std::move(batch));
  }
  const std::map<std::string, ActivationBatches>& inputs() const noexcept { return inputs_; }

 private:
  std::map<std::string, ActivationBatches> inputs_;
};

/// `count` of the training images in an order that the seed gives; all where there are no more.
std::vector<std::int64_t> choose_images(std::int64_t available, std::int64_t count, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(available));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto wanted = static_cast<std::size_t>(std::min(available, count));
  if (wanted == order.size()) return order;
  Rng rng(seed);
  for (std::size_t i = 0; i < wanted; ++i) std::swap(order[i], order[i + rng.below(order.size() - i)]);
  order.resize(wanted);
  return order;
}

struct StaticScales {
  std::map<std::string, float> by_module;
  std::vector<int> experts_without_images;
  std::string images_hash;
  std::int64_t images = 0;
};

/// The inputs that the linears meet on these images, `kCalibrationBatch` at a time.
std::map<std::string, ActivationBatches> collect_inputs(const Classifier& classifier, const ImageSet& train,
                                                        const std::vector<std::int64_t>& chosen, ThreadPool& threads) {
  const ClassifierSpec& spec = classifier.spec();
  Arena arena;
  InputCollector collector;
  std::vector<float> x(static_cast<std::size_t>(kCalibrationBatch * spec.num_inputs()));
  std::vector<float> logits(static_cast<std::size_t>(kCalibrationBatch * spec.num_classes));
  const auto count = static_cast<std::int64_t>(chosen.size());
  for (std::int64_t begin = 0; begin < count; begin += kCalibrationBatch) {
    throw_if_interrupted();
    const std::int64_t rows = std::min(kCalibrationBatch, count - begin);
    for (std::int64_t r = 0; r < rows; ++r) {
      normalize_images(spec, train.image(chosen[static_cast<std::size_t>(begin + r)]), 1,
                       x.data() + r * spec.num_inputs());
    }
    classifier.forward({threads, arena, &collector}, x.data(), rows, logits.data());
  }
  return collector.inputs();
}

StaticScales calibrate(const QuantizeOptions& options, const Checkpoint& checkpoint, const ClassifierSpec& spec) {
  if (options.data.empty()) {
    throw Error(ErrorCode::usage, "w8a8-static needs images to calibrate on", "--data DIR, the four files of MNIST",
                "or choose w8a8-dynamic, which needs none");
  }
  const ActivationObserver observer = parse_observer(options.observer);
  if (options.calibration_images < 1) throw Error(ErrorCode::usage, "no calibration image is asked for", "at least 1");
  const ImageSet train = read_mnist(options.data, MnistPart::train);
  check_images(spec, train);
  const std::vector<std::int64_t> chosen =
      choose_images(train.count, options.calibration_images, options.calibration.seed);
  ThreadPool threads(options.threads);
  const LoadOptions load{.isa = detect_isa()};
  const auto inputs = collect_inputs(Classifier::load(checkpoint, spec, load), train, chosen, threads);
  std::optional<std::map<std::string, ActivationBatches>> all_images;
  StaticScales scales{{}, {}, train.content_hash, static_cast<std::int64_t>(chosen.size())};
  for (const ClassifierLinear& linear : list_linears(spec)) {
    if (linear.router) continue;
    auto at = inputs.find(linear.module);
    if (at == inputs.end()) {
      std::vector<int>& without = scales.experts_without_images;
      if (without.empty() || without.back() != linear.expert) without.push_back(linear.expert);
      const std::string what =
          fmt::format("expert {} gets none of the {} calibration images", linear.expert, scales.images);
      if (options.expert_fallback == "error") {
        throw Error(ErrorCode::mismatch, what, "images for every expert",
                    "give more --calibration-images, or choose w8a8-dynamic");
      }
      warn_once(what + "; its scales come from all of them");
      if (!all_images) {
        ClassifierSpec every = spec;
        every.router.num_experts_per_tok = spec.router.num_experts;
        all_images = collect_inputs(Classifier::load(checkpoint, every, load), train, chosen, threads);
      }
      at = all_images->find(linear.module);
      KEDGE_CHECK(at != all_images->end());
    }
    scales.by_module[linear.module] = static_scale(at->second, observer);
  }
  return scales;
}

struct Job {
  const QuantizeOptions& options;
  const Checkpoint& checkpoint;
  ClassifierSpec spec;
  QuantScheme scheme;
  DType scale_dtype;
  StaticScales scales;
  std::map<std::string, QuantTensor> quantized;  ///< by module
};

bool is_int(const QuantScheme& scheme) { return scheme.input_activations != InputActivations::none; }

void add_group(QuantizeReport& report, const std::string& role, const std::string& scheme, std::int64_t weights,
               std::uint64_t source, std::uint64_t output, double error, double norm) {
  const auto same = [&](const QuantizeGroup& g) { return g.role == role && g.scheme == scheme; };
  auto at = std::find_if(report.groups.begin(), report.groups.end(), same);
  if (at == report.groups.end()) at = report.groups.insert(at, QuantizeGroup{role, scheme});
  // Sums until finish_groups(): of squared errors, in units of the weights' squares.
  const double before = std::pow(at->relative_rms_error.value_or(0), 2) * static_cast<double>(at->weights);
  ++at->modules;
  at->weights += weights;
  at->source_bytes += source;
  at->output_bytes += output;
  const double own = norm > 0 ? error / norm * static_cast<double>(weights) : 0;
  if (scheme != "none") at->relative_rms_error = std::sqrt((before + own) / static_cast<double>(at->weights));
}

QuantTensor quantize_linear(Job& job, const ClassifierLinear& linear, QuantizeReport& report) {
  const Tensor values = to_float_matrix(job.checkpoint.weight(linear.module, linear.rows, linear.cols), linear.module);
  const std::span<const float> w(values.data<float>(), static_cast<std::size_t>(values.size()));
  if (!all_finite(w)) {
    throw Error(ErrorCode::bad_file, "the weight of " + linear.module + " holds a value that is not finite");
  }
  const QuantArgs args = args_for_cols(job.scheme.weights, linear.cols);
  QuantTensor q = quantize_rtn(w, linear.rows, linear.cols, args, job.scale_dtype);
  std::vector<float> back(w.size());
  dequantize(q, back);
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    error += std::pow(static_cast<double>(back[i]) - static_cast<double>(w[i]), 2);
    norm += std::pow(static_cast<double>(w[i]), 2);
  }
  if (const auto at = job.scales.by_module.find(linear.module); at != job.scales.by_module.end()) {
    q.input_scale = at->second;
  }
  std::uint64_t bytes = 0;
  const auto entries =
      is_int(job.scheme) ? compressed_tensors::int_entries(linear.module, linear.rows, linear.cols, job.scale_dtype,
                                                           job.scheme.input_activations)
                         : compressed_tensors::entries(linear.module, args, linear.rows, linear.cols, job.scale_dtype);
  for (const auto& entry : entries) bytes += entry_bytes(entry);
  report.channel_fallbacks += args == job.scheme.weights ? 0 : 1;
  add_group(report, linear.expert >= 0 ? "expert" : "mlp", is_int(job.scheme) ? job.scheme.name : scheme_name(args),
            values.size(), values.num_bytes(), bytes, error, norm);
  return q;
}

Json quantization_config_of(const Job& job) {
  std::vector<std::string> ignore;
  if (job.spec.has_moe()) ignore.emplace_back("moe.gate");
  if (is_int(job.scheme)) {
    return compressed_tensors::int_quantization_config(job.scheme.input_activations, job.options.observer, ignore);
  }
  std::vector<std::pair<std::vector<std::string>, QuantArgs>> groups;
  for (const auto& [module, q] : job.quantized) {
    const auto same = [&](const auto& group) { return group.second == q.args; };
    auto at = std::find_if(groups.begin(), groups.end(), same);
    if (at == groups.end()) at = groups.emplace(at, std::vector<std::string>(), q.args);
    at->first.push_back(module);
  }
  return compressed_tensors::quantization_config(groups, ignore);
}

/// A module's tensor among its entries: "fc1.weight_scale" -> {"fc1", ".weight_scale"}.
std::pair<std::string, std::string> split_name(const std::string& name) {
  const std::size_t at = name.rfind('.');
  return {name.substr(0, at), name.substr(at)};
}

Json recipe_json(const QuantScheme& scheme, DType scale_dtype, const QuantizeOptions& options) {
  const char* type = scale_dtype == DType::f16 ? "float16" : scale_dtype == DType::bf16 ? "bfloat16" : "float32";
  Json recipe = {{"scheme", scheme.name}, {"method", "rtn"}, {"scale_dtype", type}};
  if (scheme.input_activations == InputActivations::static_tensor) recipe["observer"] = options.observer;
  return recipe;
}

Json manifest_of(const Job& job, const std::string& source_hash, const QuantizeReport& report) {
  Json modules = Json::array();
  for (const ClassifierLinear& linear : list_linears(job.spec)) {
    const auto at = job.quantized.find(linear.module);
    Json module = {{"name", linear.module}, {"scheme", "none"}};
    if (at != job.quantized.end()) {
      module["scheme"] = is_int(job.scheme) ? job.scheme.name : scheme_name(at->second.args);
      if (at->second.input_scale != 0) module["input_scale"] = at->second.input_scale;
    }
    modules.push_back(std::move(module));
  }
  Json manifest = {
      {"schema", "kedge.manifest/1"},
      {"kedge", version()},
      {"format", is_int(job.scheme) ? "compressed-tensors/int-quantized" : "compressed-tensors/pack-quantized"},
      {"source", {{"model_type", kClassifierModelType}, {"content_hash", source_hash}}},
      {"recipe", recipe_json(job.scheme, job.scale_dtype, job.options)},
      {"recipe_hash", report.recipe_hash},
      {"modules", std::move(modules)}};
  if (!job.scales.by_module.empty()) {
    manifest["calibration"] = {{"images", job.scales.images},
                               {"seed", job.options.calibration.seed},
                               {"train_images", job.scales.images_hash},
                               {"experts_without_images", job.scales.experts_without_images}};
  }
  return manifest;
}

void write(const Job& job, const std::string& source_hash, QuantizeReport& report) {
  ShardPlan shard;
  for (const auto& [module, q] : job.quantized) {
    const auto own = is_int(job.scheme) ? compressed_tensors::int_entries(module, q.rows, q.cols, job.scale_dtype,
                                                                          job.scheme.input_activations)
                                        : compressed_tensors::entries(module, q.args, q.rows, q.cols, job.scale_dtype);
    shard.entries.insert(shard.entries.end(), own.begin(), own.end());
  }
  for (const TensorInfo& info : job.checkpoint.tensors()) {
    const auto [module, suffix] = split_name(info.name);
    if (suffix == ".weight" && job.quantized.contains(module)) continue;
    shard.entries.push_back({info.name, info.dtype, info.shape});
    add_group(report, "other", "none", num_elements(info.shape), info.end - info.begin, info.end - info.begin, 0, 0);
  }
  const std::string plan = source_hash + report.recipe_hash + version() + Json(job.scales.by_module).dump();
  CheckpointWriter writer(job.options.destination, {shard}, sha256_hex(plan));
  const auto produce = [&](const SafetensorsWriter::Entry& entry, const CheckpointWriter::Sink& sink) {
    const auto [module, suffix] = split_name(entry.name);
    const auto at = job.quantized.find(module);
    if (at == job.quantized.end() || suffix == ".bias") {
      const TensorView view = job.checkpoint.tensor(entry.name);
      return sink(view.data, view.num_bytes());
    }
    const std::vector<std::byte> bytes = is_int(job.scheme) ? compressed_tensors::int_serialize(at->second, suffix)
                                                            : compressed_tensors::serialize(at->second, suffix);
    sink(bytes.data(), bytes.size());
  };
  if (!writer.is_done(0)) writer.write_shard(0, produce);  // done: by a run that was stopped after it
  Json config = job.checkpoint.config();
  config["quantization_config"] = quantization_config_of(job);
  writer.write_file("config.json", config.dump(2) + "\n");
  writer.write_file("kedge.manifest.json", manifest_of(job, source_hash, report).dump(2) + "\n");
  writer.mark_complete();
  writer.finish();
}

}  // namespace

QuantizeReport quantize_classifier(const QuantizeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  check_options(options);
  const Checkpoint checkpoint = Checkpoint::open(options.source);
  if (!checkpoint.quant_format().empty()) {
    throw Error(ErrorCode::unsupported,
                options.source.string() + " is quantized already (" + checkpoint.quant_format() + ")",
                "a checkpoint in high precision", "quantize from the original");
  }
  Job job{options,
          checkpoint,
          classifier_spec(checkpoint.config(), (options.source / "config.json").string()),
          parse_scheme(options.scheme),
          scale_dtype_of(options.scale_dtype),
          {},
          {}};
  if (job.scheme.input_activations == InputActivations::static_tensor) {
    job.scales = calibrate(options, checkpoint, job.spec);
  }
  QuantizeReport report;
  report.scheme = job.scheme.name;
  report.method = "rtn";
  report.model_type = kClassifierModelType;
  report.source_hash = checkpoint.content_hash();
  report.threads = options.threads > 0 ? options.threads : usable_cpus();
  report.recipe_hash = sha256_hex(recipe_json(job.scheme, job.scale_dtype, options).dump());
  for (const ClassifierLinear& linear : list_linears(job.spec)) {
    if (!linear.router) job.quantized.emplace(linear.module, quantize_linear(job, linear, report));
  }
  write(job, report.source_hash, report);
  std::uint64_t quantized_bytes = 0;
  std::int64_t quantized_weights = 0;
  for (const QuantizeGroup& group : report.groups) {
    report.source_bytes += group.source_bytes;
    report.output_bytes += group.output_bytes;
    report.weights += group.weights;
    if (group.scheme == "none") continue;
    quantized_bytes += group.output_bytes;
    quantized_weights += group.weights;
  }
  report.bits_per_weight = 8.0 * static_cast<double>(report.output_bytes) / static_cast<double>(report.weights);
  report.quantized_bits_per_weight =
      8.0 * static_cast<double>(quantized_bytes) / static_cast<double>(quantized_weights);
  report.shards = 1;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace kedge
