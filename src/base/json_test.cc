#include "base/json.h"

#include <gtest/gtest.h>

#include <chrono>

#include "kedge/error.h"

namespace kedge {
namespace {

std::string message(std::string_view text, int max_depth = 64) {
  try {
    parse_json(text, "x.json", max_depth);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_file);
    return error.what();
  }
  return "";
}

TEST(Json, BuildsWhatNlohmannBuilds) {
  for (const char* text :
       {"{}", "[]", "null", "3", "-4", "18446744073709551615", "2.5", "\"a\\u00e9\\n\"", "[1,[2,{\"a\":[]}],{}]",
        R"({"b":1,"a":{"b":null,"c":[true,false,{"d":"e"}]},"z":[[],[[]]],"":0})"}) {
    EXPECT_EQ(parse_json(text, "x"), Json::parse(text)) << text;
  }
  EXPECT_EQ(parse_json(R"({"b":1,"a":2})", "x").dump(), R"({"b":1,"a":2})");  // order is kept
}

TEST(Json, DuplicateKeys) {
  EXPECT_NE(message(R"({"a":1,"b":2,"a":3})").find("x.json has the key \"a\" twice"), std::string::npos);
  EXPECT_NE(message(R"({"a":1,"\u0061":3})"), "");
  EXPECT_NE(message(R"([{"c":{"a":1,"a":1}}])"), "");
  EXPECT_EQ(message(R"([{"a":1},{"a":1},{"a":{"a":1}}])"), "");
  std::string many = "{";
  for (int i = 0; i < 100; ++i) many += "\"k" + std::to_string(i) + "\":0,";
  EXPECT_EQ(message(many + "\"k100\":0}"), "");
  EXPECT_NE(message(many + "\"k3\":0}"), "");
  EXPECT_NE(message(many + "\"k99\":0}"), "");
}

TEST(Json, Malformed) {
  for (const char* text : {"", " ", "{", "[1,]", "{\"a\"}", "{\"a\":1,}", "nul", "1 2", "{} x", "\"\xff\"", "\"\xc3\"",
                           "\"\xed\xa0\x80\"", "\"\\ud800\"", "'a'", "01", "1e999", "NaN", "/**/1"}) {
    EXPECT_NE(message(text).find("x.json is not valid JSON at byte"), std::string::npos) << text;
  }
  EXPECT_LT(message("\"" + std::string(100000, 'a')).size(), 300u);
}

TEST(Json, NulByte) {
  using namespace std::string_view_literals;
  EXPECT_NE(message("{\"a\":1}\0junk"sv).find("x.json has a NUL byte"), std::string::npos);
}

TEST(Json, Depth) {
  auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(message(nested(64)), "");
  EXPECT_NE(message(nested(65)).find("at most 64 levels"), std::string::npos);
  EXPECT_NE(message(std::string(1000000, '[')), "");
  EXPECT_NE(message("{\"a\":[1]}", 1), "");
}

// A vocabulary: must not take quadratic time.
TEST(Json, ManyKeysAreFast) {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) text += (i ? ",\"token" : "\"token") + std::to_string(i) + "\":" + std::to_string(i);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_json(text + "}", "x").size(), 200000u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Json, Get) {
  const Json object = parse_json(R"({"i":3,"d":2.5,"s":"t","b":true,"n":null,"u":18446744073709551615})", "x");
  EXPECT_EQ(json_get<std::int64_t>(object, "i", "x"), 3);
  EXPECT_EQ(json_get<double>(object, "i", "x"), 3.0);
  EXPECT_EQ(json_get<double>(object, "d", "x"), 2.5);
  EXPECT_EQ(json_get<std::string>(object, "s", "x"), "t");
  EXPECT_TRUE(json_get<bool>(object, "b", "x"));
  EXPECT_EQ(json_get_or<std::int64_t>(object, "n", 7, "x"), 7);
  EXPECT_EQ(json_get_or<std::string>(object, "missing", "f", "x"), "f");
  EXPECT_THROW(json_get<std::int64_t>(object, "missing", "x"), Error);
  EXPECT_THROW(json_get<std::int64_t>(object, "n", "x"), Error);
  EXPECT_THROW(json_get<std::int64_t>(object, "d", "x"), Error);
  EXPECT_THROW(json_get<std::int64_t>(object, "u", "x"), Error);
  EXPECT_THROW(json_get<bool>(object, "i", "x"), Error);
  EXPECT_THROW(json_get<std::string>(object, "i", "x"), Error);
  EXPECT_THROW(json_get_or<bool>(object, "s", false, "x"), Error);
  EXPECT_THROW(json_get<bool>(parse_json("[1]", "x"), "i", "x"), Error);
}

}  // namespace
}  // namespace kedge
