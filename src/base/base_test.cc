// The small parts: CPU names, execution options, random numbers, interrupts, version.
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <string>

#include "base/cpu.h"
#include "base/exec.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/version.h"
#include "kedge/error.h"

namespace kedge {
namespace {

TEST(Cpu, IsaNamesRoundTrip) {
  const auto isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::scalar);
  EXPECT_EQ(isas.back(), detect_isa());
  for (Isa isa : isas) EXPECT_EQ(parse_isa(isa_name(isa)), isa);
  EXPECT_EQ(parse_isa("auto"), detect_isa());
  EXPECT_THROW(parse_isa("sse9"), Error);
  if (detect_isa() < Isa::avx512_vnni) {
    EXPECT_THROW(parse_isa("avx512-vnni"), Error);
  }
  EXPECT_FALSE(cpu_model().empty());
}

TEST(Exec, NamesRoundTrip) {
  for (Numerics n : {Numerics::consistent, Numerics::fast}) EXPECT_EQ(parse_numerics(numerics_name(n)), n);
  for (Activations a : {Activations::fp32, Activations::int8}) EXPECT_EQ(parse_activations(activations_name(a)), a);
  EXPECT_THROW(parse_numerics("Fast"), Error);
  EXPECT_THROW(parse_activations(""), Error);
}

// Reference values: the authors' xoshiro256** seeded by splitmix64 from 0 (splitmix64's first outputs for 0 are
// published: e220a8397b1dcdaf 6e789e6aa1b965f4 06c45d188009454f f88bb8a8724c81ec).
TEST(Rng, FirstValuesForSeedZero) {
  Rng rng(0);
  // result = rotl(s1 * 5, 7) * 9 with s1 = 6e789e6aa1b965f4
  EXPECT_EQ(rng.next(), 0x99EC5F36CB75F2B4u);
}

TEST(Rng, SameSeedSameNumbers) {
  Rng a(42), b(42), c(43);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t x = a.next();
    EXPECT_EQ(x, b.next());
    differs = differs || x != c.next();
  }
  EXPECT_TRUE(differs);
}

TEST(Rng, Distributions) {
  Rng rng(7);
  double sum = 0, sum_normal = 0, square_normal = 0;
  int counts[5] = {};
  constexpr int kN = 100000;
  for (int i = 0; i < kN; ++i) {
    const double u = rng.uniform();
    ASSERT_TRUE(u >= 0 && u < 1);
    sum += u;
    const std::uint64_t k = rng.below(5);
    ASSERT_LT(k, 5u);
    ++counts[k];
    const double z = rng.normal();
    sum_normal += z;
    square_normal += z * z;
  }
  // Five standard errors each.
  EXPECT_NEAR(sum / kN, 0.5, 5 * std::sqrt(1.0 / 12 / kN));
  EXPECT_NEAR(sum_normal / kN, 0, 5 / std::sqrt(kN));
  EXPECT_NEAR(square_normal / kN, 1, 5 * std::sqrt(2.0 / kN));
  for (int count : counts) EXPECT_NEAR(count, kN / 5, 5 * std::sqrt(kN * 0.2 * 0.8));
}

TEST(Log, WarnsOnceAndQuietKeepsWarnings) {
  testing::internal::CaptureStderr();
  note("shown");
  set_quiet(true);
  note("hidden");
  Progress progress("work", 10, "rows");
  progress.update(3);
  progress.finish();
  warn("seen");
  set_quiet(false);
  warn_once("rare");
  warn_once("rare");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "shown\nwarning: seen\nwarning: rare\n");
}

TEST(Log, TalkScopeKeepsWarnings) {
  set_quiet(false);
  testing::internal::CaptureStderr();
  {
    const TalkScope talk(false);
    note("hidden");
    warn("kept");
    EXPECT_EQ(talk.warnings(), (std::vector<std::string>{"kept"}));
  }
  note("shown");
  {
    const TalkScope talk(true);
    EXPECT_TRUE(talk.warnings().empty());
    note("also shown");
    warn("kept and said");
    EXPECT_EQ(talk.warnings(), (std::vector<std::string>{"kept and said"}));
  }
  warn("said");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "shown\nalso shown\nwarning: kept and said\nwarning: said\n");
}

TEST(Log, ProgressEndsWithASummary) {
  testing::internal::CaptureStderr();
  {
    Progress progress("work", 10, "rows");
    progress.update(10);
    progress.finish();
    progress.finish();
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("work: 10 rows in 0 s"), std::string::npos) << text;
  EXPECT_EQ(text.back(), '\n');
}

TEST(InterruptDeathTest, FirstSignalIsAnErrorSecondEnds) {
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        throw_if_interrupted();
        ::raise(SIGINT);
        try {
          throw_if_interrupted();
        } catch (const Error& error) {
          ::_exit(error.exit_code() == 130 ? 77 : 1);
        }
        ::_exit(2);
      },
      testing::ExitedWithCode(77), "");
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        ::raise(SIGTERM);
        ::raise(SIGINT);
        ::_exit(2);
      },
      testing::ExitedWithCode(130), "");
}

TEST(Version, IsKnown) {
  EXPECT_EQ(std::string(version()).find_first_not_of("0123456789."), std::string::npos);
  EXPECT_STRNE(git_hash(), "");
  EXPECT_STRNE(build_type(), "");
}

}  // namespace
}  // namespace kedge
