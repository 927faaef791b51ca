// The program: argv in, exit code out (docs/exit-codes.md).
#pragma once

#include <string>

namespace kedge {
class Communicator;
class LayerTunerFactory;
struct TrainOptions;
struct TrainReport;
}

namespace kedge::cli {

/// What kedge-torch has beyond kedge; its main fills this in.
struct TorchPart {
  std::string version;  ///< of libtorch
  LayerTunerFactory* tuners = nullptr;
  TrainReport (*train)(const TrainOptions& options, Communicator* ranks) = nullptr;
};

/// torch: null in kedge itself, which hands commands that need libtorch to kedge-torch (cli/torch_binary.h).
int run(int argc, char** argv, const TorchPart* torch = nullptr) noexcept;

}  // namespace kedge::cli
