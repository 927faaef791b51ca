#include "kedge/error.h"

#include <gtest/gtest.h>

#include "base/check.h"

namespace kedge {
namespace {

TEST(Error, ReadsAsOneSentence) {
  EXPECT_STREQ(Error(ErrorCode::usage, "no model").what(), "no model");
  EXPECT_STREQ(Error(ErrorCode::usage, "bits is 9", "2 to 8").what(), "bits is 9: expected 2 to 8");
  EXPECT_STREQ(Error(ErrorCode::usage, "bits is 9", "2 to 8", "use --scheme w4a16").what(),
               "bits is 9: expected 2 to 8; use --scheme w4a16");
  EXPECT_STREQ(Error(ErrorCode::usage, "no model", "", "name one").what(), "no model; name one");
}

TEST(Error, CodeIsExitCode) {
  EXPECT_EQ(Error(ErrorCode::bad_file, "x").exit_code(), 4);
  EXPECT_EQ(Error(ErrorCode::interrupted, "x").exit_code(), 130);
}

TEST(CheckDeathTest, NamesTheCondition) {
  EXPECT_DEATH(KEDGE_CHECK(1 + 1 == 3), "1 \\+ 1 == 3 does not hold .*error_test.cc");
  KEDGE_CHECK(true);
}

}  // namespace
}  // namespace kedge
