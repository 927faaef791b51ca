// kedge-torch: all of kedge, and what needs libtorch.
#include <torch/headeronly/version.h>

#include "cli/cli.h"

int main(int argc, char** argv) {
  const kedge::cli::TorchPart torch{.version = TORCH_VERSION};
  return kedge::cli::run(argc, argv, &torch);
}
