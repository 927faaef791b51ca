#include <dlfcn.h>

#include "comm/communicator.h"
#include "kedge/error.h"

namespace kedge {

std::unique_ptr<Communicator> mpi_ranks(const std::vector<std::filesystem::path>& folders) {
  constexpr const char* kPlugin = "kedge-mpi.so";
  for (const std::filesystem::path& folder : folders) {
    const std::filesystem::path file = folder / kPlugin;
    if (!std::filesystem::exists(file)) continue;
    // RTLD_GLOBAL: Open MPI opens components that look its symbols up. Never closed: its threads may outlive us.
    void* plugin = ::dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (plugin == nullptr) throw Error(ErrorCode::io, std::string("the plugin for ranks cannot be opened: ") + ::dlerror());
    auto* open = reinterpret_cast<Communicator* (*)()>(::dlsym(plugin, "kedge_open_mpi"));
    if (open == nullptr) throw Error(ErrorCode::bad_file, file.string() + " is not kedge's plugin for ranks");
    return std::unique_ptr<Communicator>(open());
  }
  throw Error(ErrorCode::not_found, "mpirun has started several ranks, and this kedge has no plugin for them", kPlugin,
              "install Open MPI (on Debian libopenmpi-dev and openmpi-bin), then build kedge again");
}

}  // namespace kedge
