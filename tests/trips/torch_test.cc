// kedge-torch beside kedge: the handing over, and that each is what it says.
#include <gtest/gtest.h>

#include "cli/torch_binary.h"
#include "kedge/error.h"
#include "process.h"

namespace kedge::trips {
namespace {

/// A kedge-torch that prints these words of the shell, each as <word>, and ends with 7.
void stand_in(const TemporaryFolder& folder, const std::string& words) {
  const fs::path program = folder / "kedge-torch";
  spit(program, "#!/bin/sh\nprintf '<%s>' " + words + " >&2\nexit 7\n");
  fs::permissions(program, fs::perms::owner_all);
}

TEST(TorchBinary, GetsTheWordsAsTheyAre) {
  TemporaryFolder folder;
  stand_in(folder, "\"$@\" \"$GOMP_SPINCOUNT\"");
  ::unsetenv("OMP_WAIT_POLICY");
  ::unsetenv("GOMP_SPINCOUNT");
  EXPECT_EXIT(cli::exec_torch_from(folder.path(), {"quantize", "a b", "", "--x=$y"}), ::testing::ExitedWithCode(7),
              "<quantize><a b><><--x=\\$y><10000>");
}

TEST(TorchBinary, LeavesTheUsersWaitPolicyAlone) {
  TemporaryFolder folder;
  stand_in(folder, "\"$OMP_WAIT_POLICY\" \"$GOMP_SPINCOUNT\"");
  ::unsetenv("GOMP_SPINCOUNT");
  ::setenv("OMP_WAIT_POLICY", "ACTIVE", 1);
  EXPECT_EXIT(cli::exec_torch_from(folder.path(), {}), ::testing::ExitedWithCode(7), "<ACTIVE><>");
  ::unsetenv("OMP_WAIT_POLICY");
}

TEST(TorchBinary, MissingItNamesTheCommandThatBuildsIt) {
  TemporaryFolder folder;
  try {
    cli::exec_torch_from(folder.path(), {"quantize"});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_found);
    EXPECT_NE(std::string(error.what()).find("make torch"), std::string::npos) << error.what();
  }
}

TEST(TorchBinary, ThatCannotStartIsAnError) {
  TemporaryFolder folder;
  spit(folder / "kedge-torch", "neither a program nor a script");
  fs::permissions(folder / "kedge-torch", fs::perms::owner_all);
  EXPECT_THROW(cli::exec_torch_from(folder.path(), {}), Error);
}

TEST(TorchBinary, KedgeItselfDoesNotLinkLibtorch) {
  const std::string binary = slurp(KEDGE_BINARY);
  ASSERT_NE(binary.find("libfmt.so"), std::string::npos);  // libraries are named where this looks
  for (const char* library : {"libtorch.so", "libtorch_cpu.so", "libc10.so"}) {
    EXPECT_EQ(binary.find(library), std::string::npos) << library;
  }
  EXPECT_EQ(run({"--version"}).out.find("libtorch"), std::string::npos);
}

#ifdef KEDGE_TORCH_BINARY
TEST(TorchBinary, IsAllOfKedge) {
  Call call;
  call.program = KEDGE_TORCH_BINARY;
  call.arguments = {"--version"};
  const Result version = run(call);
  EXPECT_EQ(version.exit_code, 0) << version.err;
  EXPECT_NE(version.out.find("libtorch 2.13.0"), std::string::npos) << version.out;

  call.arguments = {"run", kDemo, "-p", "It was a dark and", "-n", "8"};
  const Result torch = run(call), plain = run(call.arguments);
  EXPECT_EQ(torch.exit_code, 0) << torch.err;
  EXPECT_EQ(torch.out, plain.out);
  EXPECT_FALSE(plain.out.empty());
}
#endif

}  // namespace
}  // namespace kedge::trips
