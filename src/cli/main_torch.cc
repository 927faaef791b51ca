// kedge-torch: all of kedge, and what needs libtorch.
#include <torch/headeronly/version.h>

#include "cli/cli.h"
#include "kedge/train.h"
#include "ptq/methods_twin/tuner.h"
#include "twin/vector_math.h"

int main(int argc, char** argv) {
  kedge::twin::resolve_vector_math();
  const auto tuners = kedge::make_twin_tuners();
  const kedge::cli::TorchPart torch{.version = TORCH_VERSION, .tuners = tuners.get(), .train = kedge::train};
  return kedge::cli::run(argc, argv, &torch);
}
