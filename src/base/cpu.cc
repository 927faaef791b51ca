#include "base/cpu.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <thread>

#include "kedge/error.h"

namespace kedge {
namespace {

constexpr Isa kAllIsas[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_vnni};

int affinity_cpus() {
  for (int possible = 1024; possible <= 1 << 20; possible *= 2) {
    cpu_set_t* set = CPU_ALLOC(possible);
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(possible);
    const int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

// quota / period rounded up, or `none` where there is no limit.
int quota_cpus(double quota, double period, int none) {
  if (!(quota > 0) || !(period > 0)) return none;
  const double cpus = quota / period;
  if (cpus >= none) return none;
  const int whole = static_cast<int>(cpus);
  return std::max(1, whole + (cpus > whole ? 1 : 0));
}

// cgroup v2: "<quota|max> <period>" in cpu.max, at this process's group and each group above it.
int cgroup_v2_cpus(const std::string& group, int limit) {
  for (std::string path = group;;) {
    std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max") {
      double value = 0;
      std::from_chars(quota.data(), quota.data() + quota.size(), value);
      limit = quota_cpus(value, period, limit);
    }
    const std::size_t slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return limit;
    path.resize(slash);
  }
}

int cgroup_v1_cpus(int limit) {
  double quota = 0, period = 0;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  return quota_cpus(quota, period, limit);
}

}  // namespace

Isa detect_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) {
    return Isa::scalar;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return Isa::avx2;
  }
  return __builtin_cpu_supports("avx512vnni") ? Isa::avx512_vnni : Isa::avx512;
#else
  return Isa::scalar;
#endif
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  const Isa best = detect_isa();
  for (Isa isa : kAllIsas) {
    if (isa <= best) isas.push_back(isa);
  }
  return isas;
}

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_vnni: return "avx512-vnni";
  }
  return "unknown";
}

Isa parse_isa(std::string_view name) {
  const Isa best = detect_isa();
  if (name == "auto") return best;
  for (Isa isa : kAllIsas) {
    if (name != isa_name(isa)) continue;
    if (isa > best) {
      throw Error(ErrorCode::unsupported, "this CPU has no " + std::string(name),
                  std::string(isa_name(best)) + " or less", "use --isa auto");
    }
    return isa;
  }
  throw Error(ErrorCode::usage, "unknown instruction set \"" + std::string(name) + "\"",
              "auto, scalar, avx2, avx512 or avx512-vnni");
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (line.starts_with("model name") && colon != std::string::npos && colon + 2 < line.size()) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

int usable_cpus() {
  const int cpus = affinity_cpus();
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.starts_with("0::/")) return cgroup_v2_cpus(line.size() == 4 ? "" : line.substr(3), cgroup_v1_cpus(cpus));
  }
  return cgroup_v1_cpus(cpus);
}

}  // namespace kedge
