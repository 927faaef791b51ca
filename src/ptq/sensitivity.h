// How much rounding each unit of the model hurts, measured on a few calibration sequences, layer by layer.
//
//   error(u, b) = |out_b - out|^2 / |out|^2
//   loss(u, b)  = effect(B) * error(u, b) / error(B, 3)
// out: the hidden states after the unit's block, on the original's inputs; out_b: with the unit rounded to nearest at b
// bits. effect(B): what happens to the model when the whole block B, and nothing else, is rounded to nearest at 3 bits:
// the mean KL divergence of the next token (kld), or the squared mean of 1 - Jaccard of the chosen experts over all MoE
// layers (routing; squared, because the share of flips grows with the error, not with its square). `both` adds the two,
// each divided by its sum over the blocks; `error` takes loss = error.
//
// One expert's error is that of its weighted output over its tokens; errors of different experts add up. So an expert
// that no calibration token reaches costs nothing at any width: with bits per expert, calibrate on text of every kind
// that the model is for.
//
// Measured on a qwen3_moe of 3.9 M parameters (groups of 64, gptaq with refit, 3.25 and 4.25 bits): `both` and `kld`
// give about the same, `error` is close; `routing` alone neglects the last layer, which no router follows, and more
// than doubles the KL divergence at 4.25 bits. Hence `both` is the default.
//
// Cost: each block is computed once per earlier block, once per width and unit, on at most 4096 tokens (one sequence at
// least); one block's weights and one set of hidden states per block are in memory. Everything is computed in
// consistent arithmetic and summed in fp64 in order, so threads change nothing.
#pragma once

#include <array>
#include <filesystem>
#include <vector>

#include "base/thread_pool.h"
#include "ptq/calibration_data.h"
#include "ptq/mixed_precision.h"
#include "ptq/plan.h"

namespace kedge {

struct SensitivityUnit {
  int layer = 0;
  LinearRole role = LinearRole::attention;
  int expert = -1;  ///< -1: not one expert alone
  std::vector<const PlannedModule*> modules;
  std::size_t block = 0;  ///< of SensitivityReport::blocks
  std::array<double, std::size(kMixedWidths)> error{};
};

struct BlockSensitivity {
  double error = 0, kld = 0, routing = 0;  ///< at 3 bits
};

struct SensitivityReport {
  std::vector<SensitivityUnit> units;
  std::vector<BlockSensitivity> blocks;
};

struct SensitivityInput {
  const Checkpoint& checkpoint;
  const Recipe& recipe;
  const QuantPlan& plan;  ///< of the recipe without an allocation
  const CalibrationData& data;
  std::filesystem::path cache_dir;
  ThreadPool& threads;
};

/// Modules of the plan that are quantized and that no override matches, as units.
SensitivityReport measure_sensitivity(const SensitivityInput& input);

/// loss(u, b) by the recipe's choice, [units][widths].
std::vector<std::array<double, std::size(kMixedWidths)>> losses(const SensitivityReport& report, Sensitivity by);

}  // namespace kedge
