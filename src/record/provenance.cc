#include "record/provenance.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/version.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 6> kHashedEndings = {".safetensors", ".gguf", ".json",
                                                            ".model",       ".txt",  ".jinja"};

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  ::gmtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

// Arguments are separated by zero bytes in /proc/self/cmdline.
std::vector<std::string> own_command_line() {
  std::vector<std::string> arguments;
  std::string text;
  try {
    text = read_file("/proc/self/cmdline");
  } catch (const Error&) {  // no /proc: the record says nothing rather than something wrong
    return arguments;
  }
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\0', begin), text.size());
    arguments.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return arguments;
}

std::string hash_folder(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string ending = it->path().extension().string();
    std::error_code ignored;
    if (std::find(kHashedEndings.begin(), kHashedEndings.end(), ending) == kHashedEndings.end()) continue;
    if (it->is_regular_file(ignored)) names.push_back(it->path().filename().string());
  }
  if (error) throw Error(ErrorCode::io, "cannot read " + folder.string() + ": " + error.message());
  std::sort(names.begin(), names.end());
  Sha256 hash;
  for (const std::string& name : names) {
    throw_if_interrupted();
    hash.update(sha256_file(folder / name) + "  " + name + "\n");
  }
  return hash.hex();
}

}  // namespace

Provenance make_provenance(const LoadOptions& options, int threads) {
  Provenance provenance;
  provenance.kedge_version = version();
  provenance.git_hash = git_hash();
  provenance.build_type = build_type();
  provenance.cpu = cpu_model();
  provenance.isa = isa_name(options.isa);
  provenance.numerics = numerics_name(options.numerics);
  provenance.activations = activations_name(options.activations);
  provenance.threads = threads;
  provenance.date = utc_now();
  provenance.command_line = own_command_line();
  return provenance;
}

std::string hash_input(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored) ? hash_folder(path) : sha256_file(path);
}

InputRecord record_input(std::string role, const fs::path& path) {
  return {std::move(role), path.string(), hash_input(path)};
}

Json to_json(const Provenance& provenance) {
  Json inputs = Json::array();
  for (const InputRecord& input : provenance.inputs) {
    inputs.push_back(Json{{"role", input.role}, {"path", input.path}, {"sha256", input.sha256}});
  }
  return Json{{"kedge_version", provenance.kedge_version},
              {"git_hash", provenance.git_hash},
              {"build_type", provenance.build_type},
              {"cpu", provenance.cpu},
              {"isa", provenance.isa},
              {"numerics", provenance.numerics},
              {"activations", provenance.activations},
              {"threads", provenance.threads},
              {"date", provenance.date},
              {"command_line", provenance.command_line},
              {"seeds", provenance.seeds},
              {"inputs", std::move(inputs)}};
}

}  // namespace kedge
