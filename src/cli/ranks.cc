#include "cli/ranks.h"

#include <cstdlib>
#include <filesystem>
#include <string>

#include "comm/communicator.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

// Open MPI's name; MPICH's and Slurm's process managers have their own.
int started_size() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  return 1;
}

}  // namespace

std::unique_ptr<Communicator> started_ranks(const Command& command) {
  const int size = started_size();
  if (size <= 1) return nullptr;
  if (!command.ranks) {
    throw Error(ErrorCode::usage,
                std::string("kedge ") + command.name + " does not share its work, and mpirun has started it " +
                    std::to_string(size) + " times",
                "", "start it once, without mpirun");
  }
  std::error_code failed;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", failed).parent_path();
  return mpi_ranks({self, self.parent_path() / KEDGE_PLUGIN_FOLDER});
}

}  // namespace kedge::cli
