#include "claims/mnist_runs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "base/cpu.h"
#include "base/json.h"
#include "base/version.h"
#include "kedge/error.h"
#include "kedge/quantize.h"
#include "model/classify.h"
#include "ptq/activation_scales.h"
#include "record/envelope.h"
#include "record/provenance.h"
#include "stats/mutual_information.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr std::array<MnistVariant, 6> kVariants{{
    {"ffn", "dense", "ffn", 1, true},
    {"moe", "MoE", "moe", 1, true},
    {"moe-unbalanced", "MoE without balance loss", "moe", 1, false},
    {"moe-all", "MoE, all experts", "moe", 4, true},
    {"moe-two", "MoE, two experts", "moe", 2, true},
    {"mcqsmoe", "MoE by error, two experts", "mcqsmoe", 2, true},
}};
constexpr std::int64_t kBatch = 64, kCalibrationImages = 1024;
constexpr double kCapacityFactor = 1.25, kBalanceLoss = 0.01, kReconstructionLoss = 0.1;
constexpr int kPermutations = 999;

TrainOptions train_options(const MnistReportOptions& options, const MnistRun& run) {
  TrainOptions out;
  out.kind = "mnist";
  out.out = mnist_model_folder(options, run, {"fp32", ""});
  out.batch_size = kBatch;
  out.balance_loss = run.variant->balance ? kBalanceLoss : 0;
  out.reconstruction_loss = kReconstructionLoss;
  out.seed = run.seed;
  out.threads = 1;
  out.mnist.network = run.variant->network;
  out.mnist.data = options.data;
  out.mnist.epochs = options.epochs;
  out.mnist.top_k = run.variant->top_k;
  out.mnist.capacity_factor = kCapacityFactor;
  out.mnist.progress = false;
  return out;
}

std::uint64_t file_bytes(const fs::path& folder) {
  std::uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  }
  return bytes;
}

/// Choices beyond the training's capacity, were the test images to come 64 at a time.
double over_capacity(const Answers& answers) {
  const auto k = answers.top_k, experts = answers.num_experts;
  const auto images = static_cast<std::int64_t>(answers.predicted.size());
  std::int64_t over = 0;
  for (std::int64_t begin = 0; begin < images; begin += kBatch) {
    const std::int64_t rows = std::min(kBatch, images - begin);
    const auto limit =
        static_cast<std::int64_t>(kCapacityFactor * static_cast<double>(rows * k) / static_cast<double>(experts));
    std::vector<std::int64_t> load(static_cast<std::size_t>(experts), 0);
    for (std::int64_t i = begin * k; i < (begin + rows) * k; ++i) {
      over += ++load[static_cast<std::size_t>(answers.experts[static_cast<std::size_t>(i)])] > limit ? 1 : 0;
    }
  }
  return static_cast<double>(over) / static_cast<double>(images * k);
}

/// Entropy of shares over that of equal ones.
double relative_entropy(const std::vector<double>& shares) {
  double sum = 0;
  for (const double p : shares) sum -= p > 0 ? p * std::log(p) : 0;
  return sum / std::log(static_cast<double>(shares.size()));
}

/// The mean image of each expert's first choices, a grey level per pixel in hexadecimal.
Json expert_images(const Answers& answers, const ImageSet& images) {
  const auto size = static_cast<std::size_t>(images.rows * images.cols);
  std::vector<std::vector<double>> sums(static_cast<std::size_t>(answers.num_experts), std::vector<double>(size, 0.0));
  std::vector<double> counts(sums.size(), 0.0);
  for (std::int64_t i = 0; i < images.count; ++i) {
    const auto e = static_cast<std::size_t>(answers.experts[static_cast<std::size_t>(i * answers.top_k)]);
    ++counts[e];
    for (std::size_t p = 0; p < size; ++p) sums[e][p] += images.image(i)[p];
  }
  Json out = Json::array();
  for (std::size_t e = 0; e < sums.size(); ++e) {
    std::string hex;
    for (const double sum : sums[e]) {
      hex += fmt::format("{:02x}", counts[e] > 0 ? static_cast<int>(std::lround(sum / counts[e])) : 0);
    }
    out.push_back(hex);
  }
  return out;
}

Json routing_json(const Answers& answers, const ImageSet& images) {
  const auto experts = static_cast<std::size_t>(answers.num_experts);
  std::vector<std::vector<std::int64_t>> counts(experts, std::vector<std::int64_t>(kMnistClasses, 0));
  std::vector<double> load(experts, 0.0);
  std::vector<int> first, digits;
  for (std::int64_t i = 0; i < images.count; ++i) {
    first.push_back(answers.experts[static_cast<std::size_t>(i * answers.top_k)]);
    digits.push_back(images.label(i));
    ++counts[static_cast<std::size_t>(first.back())][static_cast<std::size_t>(digits.back())];
  }
  for (const std::int32_t e : answers.experts) load[static_cast<std::size_t>(e)] += 1;
  for (double& share : load) share /= static_cast<double>(answers.experts.size());
  const double entropy = std::accumulate(answers.entropy.begin(), answers.entropy.end(), 0.0) /
                         static_cast<double>(answers.entropy.size());
  const PermutationTest test = mutual_information_test(first, digits, kPermutations, 1);
  return {{"counts", counts},
          {"load", load},
          {"load_entropy", relative_entropy(load)},
          {"router_entropy", entropy / std::log(static_cast<double>(experts))},
          {"over_capacity", over_capacity(answers)},
          {"mutual_information",
           {{"nats", test.value},
            {"null_mean", test.null_mean},
            {"null_high", test.null_high},
            {"p", test.p},
            {"permutations", test.permutations}}},
          {"expert_images", expert_images(answers, images)}};
}

Json confusion_json(const Answers& answers, const ImageSet& images) {
  std::vector<std::vector<std::int64_t>> counts(kMnistClasses, std::vector<std::int64_t>(kMnistClasses, 0));
  for (std::int64_t i = 0; i < images.count; ++i) {
    const auto answer = static_cast<std::size_t>(answers.predicted[static_cast<std::size_t>(i)]);
    ++counts[static_cast<std::size_t>(images.label(i))][answer];
  }
  return counts;
}

/// Images whose experts are others than in fp32, as sets.
double changed_selections(const Answers& own, const Answers& reference) {
  const auto k = static_cast<std::size_t>(own.top_k);
  std::int64_t changed = 0;
  for (std::size_t i = 0; i < own.experts.size(); i += k) {
    std::vector<std::int32_t> a(own.experts.begin() + static_cast<std::ptrdiff_t>(i),
                                own.experts.begin() + static_cast<std::ptrdiff_t>(i + k));
    std::vector<std::int32_t> b(reference.experts.begin() + static_cast<std::ptrdiff_t>(i),
                                reference.experts.begin() + static_cast<std::ptrdiff_t>(i + k));
    std::sort(a.begin(), a.end());
    std::sort(b.begin(), b.end());
    changed += a == b ? 0 : 1;
  }
  return static_cast<double>(changed) / static_cast<double>(own.predicted.size());
}

void quantize_form(const MnistReportOptions& options, const MnistRun& run, const MnistForm& form) {
  QuantizeOptions quantization;
  quantization.source = mnist_model_folder(options, run, {"fp32", ""});
  quantization.destination = mnist_model_folder(options, run, form);
  quantization.scheme = form.scheme;
  quantization.threads = 1;
  quantization.calibration_images = kCalibrationImages;
  quantization.calibration.seed = run.seed;
  if (!form.observer.empty()) {
    quantization.data = options.data;
    quantization.observer = form.observer;
  }
  quantize(quantization);
}

}  // namespace

std::span<const MnistVariant> mnist_variants() noexcept { return kVariants; }

const MnistVariant* find_mnist_variant(std::string_view name) noexcept {
  const auto* at =
      std::find_if(kVariants.begin(), kVariants.end(), [&](const MnistVariant& v) { return v.name == name; });
  return at == kVariants.end() ? nullptr : at;
}

std::string mnist_variant_names() {
  std::string names;
  for (const MnistVariant& variant : kVariants) names += (names.empty() ? "" : ", ") + std::string(variant.name);
  return names;
}

std::vector<MnistForm> mnist_forms(const MnistVariant& variant) {
  std::vector<MnistForm> forms{{"fp32", ""}, {"w8a8-static", "min-max"}, {"w8a8-dynamic", ""}};
  if (!variant.balance || variant.top_k > 1) return forms;
  forms.push_back({"w8a16", ""});
  forms.push_back({"w4a16-g32", ""});
  for (const std::string& observer : observer_names()) {
    if (observer != "min-max") forms.push_back({"w8a8-static", observer});
  }
  return forms;
}

fs::path mnist_model_folder(const MnistReportOptions& options, const MnistRun& run, const MnistForm& form) {
  return options.out / "models" / (run.stem() + "_" + form.key());
}

Json mnist_run_config(const MnistReportOptions& options, const MnistRun& run, const MnistData& data) {
  return {{"variant", run.variant->name},
          {"seed", run.seed},
          {"network", run.variant->network},
          {"top_k", run.variant->top_k},
          {"balance_loss", run.variant->balance ? kBalanceLoss : 0.0},
          {"reconstruction_loss", run.variant->by_error() ? kReconstructionLoss : 0.0},
          {"capacity_factor", kCapacityFactor},
          {"epochs", options.epochs},
          {"batch_size", kBatch},
          {"calibration_images", kCalibrationImages},
          {"train_images", data.train.content_hash},
          {"test_images", data.test.content_hash},
          {"version", version()}};
}

Json execute_mnist_run(const MnistReportOptions& options, const MnistRun& run, const MnistData& data,
                       TrainFunction train) {
  // What a run that was stopped has left.
  for (const MnistForm& form : mnist_forms(*run.variant)) {
    const fs::path folder = mnist_model_folder(options, run, form);
    fs::remove_all(folder);
    fs::remove_all(folder.string() + ".partial");
  }
  const TrainReport trained = train(train_options(options, run), nullptr);
  ThreadPool threads(1);
  Arena arena;
  Json forms = Json::array();
  Answers reference;
  for (const MnistForm& form : mnist_forms(*run.variant)) {
    if (form.scheme != "fp32") quantize_form(options, run, form);
    const fs::path folder = mnist_model_folder(options, run, form);
    const Classifier classifier = Classifier::open(folder, {.isa = detect_isa()});
    const Answers test = classify({threads, arena}, classifier, data.test);
    const Answers on_train = classify({threads, arena}, classifier, data.train);
    if (form.scheme == "fp32") reference = test;
    Json line = {{"scheme", form.scheme},
                 {"observer", form.observer.empty() ? Json() : Json(form.observer)},
                 {"bytes", file_bytes(folder)},
                 {"test_accuracy", test.accuracy},
                 {"train_accuracy", on_train.accuracy},
                 {"test_loss", test.loss}};
    if (test.top_k > 0) line["changed_selections"] = changed_selections(test, reference);
    forms.push_back(std::move(line));
  }
  Json results = {{"variant", run.variant->name},
                  {"seed", run.seed},
                  {"parameters", trained.parameters},
                  {"active_parameters", trained.active_parameters},
                  {"training",
                   {{"loss", trained.loss},
                    {"seconds", trained.seconds},
                    {"expert_load", trained.expert_load},
                    {"over_capacity", trained.over_capacity}}},
                  {"forms", std::move(forms)},
                  {"confusion", confusion_json(reference, data.test)}};
  if (reference.top_k > 0) results["routing"] = routing_json(reference, data.test);
  return results;
}

std::optional<Json> read_mnist_record(const fs::path& file, const Json& config) {
  if (!fs::exists(file)) return std::nullopt;
  const Json record = read_json(file);
  if (!record.contains("config") || record["config"] != config) {
    throw Error(ErrorCode::mismatch, file.string() + " is a run of other settings, data or version",
                "runs that this command makes", "choose another --out or remove it");
  }
  return std::optional<Json>(std::in_place, record.at("results"));
}

void write_mnist_record(const fs::path& file, const char* schema, const fs::path& images, const MnistData& data,
                        Json config, Json results) {
  Provenance provenance = make_provenance({.isa = detect_isa()}, 1);
  provenance.inputs.push_back({"train", images.string(), data.train.content_hash});
  provenance.inputs.push_back({"test", images.string(), data.test.content_hash});
  write_envelope(file, make_envelope(schema, provenance, std::move(config), std::move(results), Json::array()));
}

}  // namespace kedge
