// The program: argv in, exit code out (docs/exit-codes.md).
#pragma once

#include <string>

#include "kedge/train.h"

namespace kedge {
class LayerTunerFactory;
}

namespace kedge::cli {

/// What kedge-torch has beyond kedge; its main fills this in.
struct TorchPart {
  std::string version;  ///< of libtorch
  LayerTunerFactory* tuners = nullptr;
  TrainFunction train = nullptr;
};

/// torch: null in kedge itself, which hands commands that need libtorch to kedge-torch (cli/torch_binary.h).
int run(int argc, char** argv, const TorchPart* torch = nullptr) noexcept;

}  // namespace kedge::cli
