// The runs of kedge mnist report: a network trained with a seed, quantized and measured. One JSON record each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/idx.h"
#include "kedge/mnist.h"
#include "kedge/train.h"

namespace kedge {

struct MnistVariant {
  const char* name;     ///< "ffn", "moe", "moe-unbalanced", "moe-all"
  const char* network;  ///< of model/classifier.h
  std::int64_t top_k;
  bool balance;
};
std::span<const MnistVariant> mnist_variants() noexcept;

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

/// Seconds of one pass of each variant and form of a seed, model alone, at batch 1 and 64: all of them in turn, round
/// after round, on one thread. Error(not_found) when a model is gone.
nlohmann::ordered_json measure_mnist_latency(const MnistReportOptions& options, std::uint64_t seed,
                                             const MnistData& data);

}  // namespace kedge
