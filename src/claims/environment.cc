#include "claims/environment.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <sstream>

#include "base/cpu.h"
#include "base/file.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// The first line of a small file of /proc or /sys; empty where it is not there.
std::string first_line(const char* path) {
  try {
    const std::string text = read_file(path, 1 << 20);
    return text.substr(0, text.find('\n'));
  } catch (const Error&) {
    return {};
  }
}

Json number_or_null(const std::string& text, double factor) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return end == text.c_str() ? Json(nullptr) : Json(value * factor);
}

Json meminfo(const std::string& key) {
  try {
    std::istringstream lines(read_file("/proc/meminfo", 1 << 20));
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with(key + ":")) return std::strtoull(line.c_str() + key.size() + 1, nullptr, 10) * 1024;
    }
  } catch (const Error&) {
  }
  return nullptr;
}

Json affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return nullptr;
  Json cpus = Json::array();
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

std::string utc_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  ::gmtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

Json machine_state() {
  double loads[3] = {};
  Json load = nullptr;
  if (::getloadavg(loads, 3) == 3) load = {loads[0], loads[1], loads[2]};
  const std::string governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  utsname system = {};
  ::uname(&system);
  return {{"time", utc_time()},
          {"cpu", cpu_model()},
          {"cpus", usable_cpus()},
          {"affinity", affinity()},
          {"memory_bytes", meminfo("MemTotal")},
          {"memory_available_bytes", meminfo("MemAvailable")},
          {"load_average", std::move(load)},
          {"governor", governor.empty() ? Json(nullptr) : Json(governor)},
          {"frequency_mhz", number_or_null(first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"), 1e-3)},
          {"temperature_c", number_or_null(first_line("/sys/class/thermal/thermal_zone0/temp"), 1e-3)},
          {"kernel", std::string(system.sysname) + " " + system.release},
          {"compiler", __VERSION__}};
}

}  // namespace kedge
