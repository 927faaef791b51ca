// kedge mnist report: dense and sparse classifiers of MNIST trained, quantized and compared over seeds.
//
// For each seed four networks are trained (model/classifier.h): dense; four experts, one per image; the same without a
// balance loss; all four experts per image. Each is measured in fp32 and quantized, static scales coming from training
// images alone. Means over seeds with Student-t 95 % intervals; a quantized network is compared with the fp32 one of
// its seed, so that the differences are paired. docs/formats/mnist.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "kedge/train.h"

namespace kedge {

struct MnistReportOptions {
  std::filesystem::path data;  ///< the folder with the four files of MNIST
  std::filesystem::path out;   ///< folder for runs/, mnist.json, mnist.html, mnist.md
  std::int64_t seeds = 5;      ///< 1 .. seeds
  std::int64_t epochs = 6;
  std::int64_t latency_rounds = 300;  ///< timed passes of each network and batch size
  int threads = 0;                    ///< trainings at once, each with one thread; 0: one per CPU
  bool resume = false;                ///< take the finished runs that are in out
  bool keep = false;                  ///< keep the models, in out/models
};

struct MnistReport {
  std::string json;   ///< mnist.json
  std::string table;  ///< for a terminal
  std::int64_t runs_done = 0, runs_resumed = 0;
  double seconds = 0;
};

/// train: of kind "mnist" (kedge/train.h), safe to call from several threads.
/// Errors: usage, not_found, bad_file, mismatch (data; a run of other settings), exists (a report without resume),
/// unsupported (a training diverged), io, interrupted (finished runs are kept).
MnistReport mnist_report(const MnistReportOptions& options, TrainFunction train);

}  // namespace kedge
