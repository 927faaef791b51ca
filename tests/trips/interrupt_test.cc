// Ctrl-C in the middle of a long command: one line, exit code 130, and the same command goes on from there.
#include <signal.h>

#include <algorithm>

#include "base/json.h"
#include "process.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::TemporaryFolder;

struct Interrupted {
  const char* name;
  std::vector<std::string> words;  ///< without the destination, which follows
  std::vector<std::string> again;  ///< more words that the second call needs
};

class Interrupt : public testing::TestWithParam<const char*> {};

Interrupted command(const std::string& name, const TemporaryFolder& folder) {
  if (name == "quantize") {
    return {"quantize",
            {"quantize", "--method", "gptq", "--scheme", "w3a16-g128", "--nsamples", "16", "--seqlen", "128",
             "--threads", "1", trips::kDemo},
            {}};
  }
  if (name == "eval") {
    return {"eval", {"eval", trips::kDemo, "--threads", "1", "--tasks", "hellaswag,piqa", "--out"}, {}};
  }
  trips::spit(folder / "r.toml", "models = [\"" + trips::kDemo + "\"]\ntexts = [\"" + trips::kDemoText + R"("]
schemes = ["w2a16-g128"]
seeds = [1, 2, 3]
baseline = "feedback"
[calibration]
nsamples = 4
seqlen = 64
[audit]
seqlen = 64
limit = 4
[[methods]]
name = "feedback"
method = "gptq"
)");
  return {"ablate", {"ablate", (folder / "r.toml").string(), "--threads", "1", "--out"}, {"--resume"}};
}

TEST_P(Interrupt, IsOneLineAndTheRestCanFollow) {
  const TemporaryFolder folder;
  const Interrupted c = command(GetParam(), folder);
  const auto call_into = [&](const std::string& out, const std::vector<std::string>& more) {
    trips::Call call;
    call.arguments = c.words;
    call.arguments.push_back((folder / out).string());
    call.arguments.insert(call.arguments.end(), more.begin(), more.end());
    call.arguments.push_back("--quiet");
    return call;
  };
  const auto start = std::chrono::steady_clock::now();
  const trips::Result whole = trips::run(call_into("whole", {}));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  int heard = 0;
  for (int round = 0; round < 8 && heard < 1; ++round) {
    const std::string name = std::to_string(round);
    trips::Call first = call_into(name, {});
    first.kill_after = took * (3 + round) / 11;
    first.signal = SIGINT;
    const trips::Result stopped = trips::run(first);
    if (stopped.exit_code == 0) continue;  // it was faster
    EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
    if (stopped.err.empty()) continue;  // it had not begun
    ++heard;
    const std::size_t line = stopped.err.find("kedge: interrupted");  // warnings may stand before it
    ASSERT_NE(line, std::string::npos) << stopped.err;
    EXPECT_EQ(std::count(stopped.err.begin() + static_cast<std::ptrdiff_t>(line), stopped.err.end(), '\n'), 1)
        << stopped.err;
    const bool resumes = c.again.empty() || fs::exists(folder / name / "runs");
    const trips::Result rest = trips::run(call_into(name, resumes ? c.again : std::vector<std::string>{}));
    EXPECT_EQ(rest.exit_code, 0) << rest.err;
    if (std::string(c.name) == "quantize") {
      EXPECT_TRUE(trips::folder_content(folder / name) == trips::folder_content(folder / "whole")) << round;
    }
  }
  EXPECT_GE(heard, 1);
}
INSTANTIATE_TEST_SUITE_P(All, Interrupt, testing::Values("quantize", "eval", "ablate"));

}  // namespace
}  // namespace kedge
