#include "base/toml_file.h"

#include <gtest/gtest.h>

#include "kedge/error.h"

namespace kedge {
namespace {

TEST(TomlFile, MalformedFilesAreErrors) {
  // The last ones break what the library takes for granted; it would end the program.
  for (const char* text : {"a", "a = ", "[a", "a = [1,", "a = 1\na = 2", "[= b]", "[= \"b]\nc = 1\n",
                           "\xCD\x8B[= \"$c\n", "\xC3\xA9 = 1", "\xCD\x8B = 1", "a = \xCD\x8B", "a = \xE2\x80\xA8"}) {
    try {
      parse_toml(text, "f.toml");
      ADD_FAILURE() << text << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_file) << text;
      EXPECT_NE(std::string(error.what()).find("f.toml:"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace kedge
