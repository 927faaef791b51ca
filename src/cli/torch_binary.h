// kedge-torch: the program beside kedge that has libtorch, whose start takes a quarter of a second. kedge
// hands over what needs gradients by becoming it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace kedge::cli {

/// Does kedge-torch stand beside the running program?
bool torch_binary_is_there() noexcept;
/// Replaces this process by kedge-torch with the same words (what follows the program's name) and environment,
/// with GOMP_SPINCOUNT=10000 where the environment says nothing of it and has no OMP_WAIT_POLICY.
/// Error(not_found) names the command that builds it when no kedge-torch stands beside the running program;
/// Error(io) when it cannot be started. CHECKs that this is not kedge-torch itself.
[[noreturn]] void exec_torch(const std::vector<std::string>& words);
/// The same, looking in a given folder.
[[noreturn]] void exec_torch_from(const std::filesystem::path& folder, const std::vector<std::string>& words);

}  // namespace kedge::cli
