// The instruction sets that kernels are written for, and which of them this CPU (and its OS) has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kedge {

/// Ordered: a CPU that has one has all before it. avx2 includes FMA and F16C; avx512 is F+BW+DQ+VL;
/// avx512_vnni adds VNNI.
enum class Isa : int { scalar = 0, avx2 = 1, avx512 = 2, avx512_vnni = 3 };

Isa detect_isa();
/// All that this machine has, scalar first.
std::vector<Isa> available_isas();
const char* isa_name(Isa isa) noexcept;  ///< "scalar", "avx2", "avx512", "avx512-vnni"
/// "auto" gives detect_isa(). Throws Error(usage) for an unknown name, Error(unsupported) when the CPU lacks it.
Isa parse_isa(std::string_view name);
std::string cpu_model();  ///< as /proc/cpuinfo names it, or "unknown"
/// CPUs this process may use: its affinity mask, and the cgroup's CPU quota rounded up. At least 1.
int usable_cpus();

}  // namespace kedge
