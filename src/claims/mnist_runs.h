// The runs of kedge mnist report: a network trained with a seed, quantized and measured. One JSON record each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/idx.h"
#include "kedge/mnist.h"
#include "kedge/train.h"
#include "model/classifier.h"

namespace kedge {

struct MnistVariant {
  const char* name;     ///< "ffn", "moe", ...
  const char* label;    ///< for people
  const char* network;  ///< of model/classifier.h
  std::int64_t top_k;
  bool balance;

  bool routes() const noexcept { return std::string_view(network) != "ffn"; }
  bool by_error() const noexcept { return std::string_view(network) == "mcqsmoe"; }
};
std::span<const MnistVariant> mnist_variants() noexcept;
/// nullptr: there is none of this name.
const MnistVariant* find_mnist_variant(std::string_view name) noexcept;
std::string mnist_variant_names();  ///< "ffn, moe, ..."

/// A network as it is stored: fp32, or a scheme with the observer of its static scales.
struct MnistForm {
  std::string scheme;    ///< "fp32", "w8a8-static", ...
  std::string observer;  ///< empty unless static
  std::string key() const { return observer.empty() || observer == "min-max" ? scheme : scheme + "-" + observer; }
};
std::vector<MnistForm> mnist_forms(const MnistVariant& variant);

struct MnistRun {
  const MnistVariant* variant = nullptr;
  std::uint64_t seed = 0;
  std::string stem() const { return std::string(variant->name) + "_seed" + std::to_string(seed); }
};

struct MnistData {
  ImageSet train, test;
};

std::filesystem::path mnist_model_folder(const MnistReportOptions& options, const MnistRun& run, const MnistForm& form);
/// All that a run's result depends on; a record with the same is the run's.
nlohmann::ordered_json mnist_run_config(const MnistReportOptions& options, const MnistRun& run, const MnistData& data);
/// Trains, quantizes, measures; the models stay in their folders. Uses one thread. Errors as mnist_report's.
nlohmann::ordered_json execute_mnist_run(const MnistReportOptions& options, const MnistRun& run, const MnistData& data,
                                         TrainFunction train);

/// The results of the record in `file`, where there is one. Error(mismatch) where it is of another configuration.
std::optional<nlohmann::ordered_json> read_mnist_record(const std::filesystem::path& file,
                                                        const nlohmann::ordered_json& config);
void write_mnist_record(const std::filesystem::path& file, const char* schema, const std::filesystem::path& images,
                        const MnistData& data, nlohmann::ordered_json config, nlohmann::ordered_json results);
inline constexpr const char* kMnistRunSchema = "kedge.mnist-run/1";

/// Seconds of each pass [network][round], model alone, on one thread: the networks take turns, each round on other
/// images, after a warm-up.
std::vector<std::vector<double>> time_in_turn(std::span<const Classifier* const> networks, const ImageSet& images,
                                              std::int64_t batch, std::int64_t rounds);

/// Seconds of one pass of each variant and form of a seed, at batch 1 and 64, all of them in turn. Error(not_found)
/// when a model is gone.
nlohmann::ordered_json measure_mnist_latency(const MnistReportOptions& options, std::uint64_t seed,
                                             const MnistData& data);

}  // namespace kedge
