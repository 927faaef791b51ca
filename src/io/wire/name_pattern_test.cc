#include "io/wire/name_pattern.h"

#include <gtest/gtest.h>

#include <string>

namespace kedge {
namespace {

bool matches(std::string_view pattern, std::string_view name) {
  const auto compiled = NamePattern::compile(pattern);
  if (!compiled) {
    ADD_FAILURE() << pattern << " was not read";
    return false;
  }
  return compiled->matches_prefix(name);
}

TEST(NamePattern, MatchesLikeReMatch) {
  EXPECT_TRUE(matches(".*mlp.gate$", "model.layers.3.mlp.gate"));
  EXPECT_FALSE(matches(".*mlp.gate$", "model.layers.3.mlp.gate_proj"));
  EXPECT_TRUE(matches(".*mlp\\.gate", "model.layers.3.mlp.gate_proj"));  // a prefix is enough
  EXPECT_FALSE(matches("mlp", "model.mlp"));                             // but it starts at the front
  EXPECT_TRUE(matches("model\\.layers\\.\\d+\\.self_attn\\.(q|k|v)_proj$", "model.layers.12.self_attn.k_proj"));
  EXPECT_FALSE(matches("model\\.layers\\.\\d+\\.self_attn\\.(q|k|v)_proj$", "model.layers.x.self_attn.k_proj"));
  EXPECT_TRUE(matches(".*experts\\.[0-9]{1,2}\\.(?:up|down)_proj", "l.experts.63.down_proj"));
  EXPECT_FALSE(matches("^.*experts\\.[0-9]{1,2}\\.up", "l.experts.163.up"));
  EXPECT_TRUE(matches("a{2}b?c+$", "aacc"));
  EXPECT_FALSE(matches("a{2}b?c+$", "aab"));
  EXPECT_TRUE(matches("a{2,}$", "aaaaa"));
  EXPECT_FALSE(matches("a{2,}$", "a"));
  EXPECT_TRUE(matches("[^.]+\\.w$", "ab.w"));
  EXPECT_FALSE(matches("[^.]+\\.w$", "a.b.w"));
  EXPECT_TRUE(matches("", "anything"));
  EXPECT_TRUE(matches("(a|)b", "b"));
  EXPECT_TRUE(matches("(a*)*b", "aaab"));
  EXPECT_TRUE(matches("x|y|zz$", "zz"));
  EXPECT_TRUE(matches("a{0}b", "b"));
  EXPECT_TRUE(matches("\\w+?\\s$", "ab "));
}

TEST(NamePattern, RefusesWhatItCannotRead) {
  for (const char* pattern : {"(?!a)b", "(?<=a)b", "(a)\\1", "a**", "(", "(a", "a)", "[a", "*a", "a{2", "a{3,1}",
                              "a{9999}", "\\", "\\bx", "(?P<n>a)", "(a{100}){100}", "a{1,2}{3}"}) {
    EXPECT_FALSE(NamePattern::compile(pattern)) << pattern;
  }
  EXPECT_FALSE(NamePattern::compile(std::string(100000, '(')));
}

TEST(NamePattern, StaysFastOnHostilePatterns) {
  // A backtracking engine needs 2^4000 steps here.
  const std::string name(4000, 'a');
  EXPECT_FALSE(matches("(a+)+$b", name));
  EXPECT_FALSE(matches("(a|a)*(a|aa)*b$", name));
}

}  // namespace
}  // namespace kedge
