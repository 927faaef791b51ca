// Runs the built binary as a user does: arguments in; stdout, stderr and exit code out. And a folder to work in.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace kedge::trips {

namespace fs = std::filesystem;

/// A fresh folder that is removed with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "kedge-trip-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

inline std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void spit(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

/// Every file below a folder with its bytes.
inline std::map<std::string, std::string> folder_content(const fs::path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) out[fs::relative(entry.path(), folder).string()] = slurp(entry.path());
  }
  return out;
}

struct Result {
  int exit_code = -1;  ///< 128 + signal when one ended it
  std::string out, err;
};

struct Call {
  std::vector<std::string> arguments;
  std::string input;                        ///< stdin
  std::vector<std::string> environment;     ///< "KEDGE_X=y", added
  std::string stdout_path;                  ///< where stdout goes instead: "/dev/full"
  std::chrono::microseconds kill_after{0};  ///< 0: never; else `signal`
  int signal = SIGKILL;
  std::string program = KEDGE_BINARY;
};

inline Result run(const Call& call) {
  TemporaryFolder folder;
  const std::string out = call.stdout_path.empty() ? (folder / "out").string() : call.stdout_path;
  const std::string err = (folder / "err").string(), in = (folder / "in").string();
  spit(in, call.input);
  std::vector<std::string> words{call.program};
  words.insert(words.end(), call.arguments.begin(), call.arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<std::string> variables = call.environment;
  std::vector<char*> envp;
  for (std::string& variable : variables) envp.push_back(variable.data());
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::string_view(*variable).substr(0, 6) != "KEDGE_") envp.push_back(*variable);
  }
  envp.push_back(nullptr);

  const pid_t child = ::fork();
  if (child == 0) {
    const int in_fd = ::open(in.c_str(), O_RDONLY), out_fd = ::open(out.c_str(), O_WRONLY | O_CREAT, 0600),
              err_fd = ::open(err.c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(in_fd, 0);
    ::dup2(out_fd, 1);
    ::dup2(err_fd, 2);
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  if (call.kill_after.count() > 0) {
    std::this_thread::sleep_for(call.kill_after);
    ::kill(child, call.signal);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  Result result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (call.stdout_path.empty()) result.out = slurp(out);
  result.err = slurp(err);
  return result;
}

inline Result run(std::vector<std::string> arguments) {
  Call call;
  call.arguments = std::move(arguments);
  return run(call);
}

inline const std::string kDemo = KEDGE_SOURCE_DIR "/models/demo-4m";
inline const std::string kDemoText = KEDGE_SOURCE_DIR "/models/demo-text.txt";
inline const std::string kGoldens = KEDGE_SOURCE_DIR "/tests/goldens/hf/";

}  // namespace kedge::trips
