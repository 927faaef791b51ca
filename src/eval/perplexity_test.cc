#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/cpu.h"
#include "base/json.h"
#include "kedge/error.h"
#include "kedge/eval.h"

namespace kedge {
namespace {

const std::filesystem::path root = KEDGE_SOURCE_DIR;

PerplexityOptions demo_options(std::int64_t limit) {
  PerplexityOptions options;
  options.model = root / "models/demo-4m";
  options.texts = {root / "models/demo-text.txt"};
  options.limit = limit;
  options.runtime.threads = 2;
  return options;
}

template <class F>
ErrorCode error_of(F&& edit) {
  PerplexityOptions options = demo_options(2);
  edit(options);
  try {
    perplexity(options);
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::io;
}

TEST(Perplexity, EqualsTransformersOnTheBundledModel) {
  const Json expected = read_json(root / "tests/goldens/demo-4m.expected.json")["perplexity"];
  const PerplexityResult result = perplexity(demo_options(0));
  EXPECT_EQ(result.sequences, expected["rows"].get<std::int64_t>());
  EXPECT_EQ(result.tokens_scored, expected["tokens_scored"].get<std::int64_t>());
  EXPECT_NEAR(result.mean_nll, expected["mean_nll"].get<double>(), expected["tolerance_mean_nll"].get<double>());
  EXPECT_NEAR(result.ppl, std::exp(result.mean_nll), 1e-9);
  // An independent count: the scored tokens are all of the text but the first token of each row and the remainder.
  EXPECT_LT(result.bytes_scored, static_cast<std::int64_t>(std::filesystem::file_size(root / "models/demo-text.txt")));
  EXPECT_GT(result.bytes_scored, 115000);
  EXPECT_NEAR(result.bits_per_byte, result.mean_nll * 35955 / std::log(2.0) / static_cast<double>(result.bytes_scored),
              1e-9);

  double mean = 0, square = 0;  // rows of equal length: the plain standard error of their means
  for (const SequenceScore& s : result.samples) mean += s.nll / 255 / 141;
  for (const SequenceScore& s : result.samples) square += (s.nll / 255 - mean) * (s.nll / 255 - mean);
  EXPECT_NEAR(mean, result.mean_nll, 1e-9);
  EXPECT_NEAR(result.standard_error, std::sqrt(square / 140 / 141), 1e-6);
  EXPECT_LT(result.nll_low, mean);
  EXPECT_GT(result.nll_high, mean);
}

TEST(Perplexity, ThreadsAndLimitsChangeNoBit) {
  const PerplexityResult four = perplexity(demo_options(4));
  PerplexityOptions options = demo_options(2);
  options.runtime.threads = 1;
  const PerplexityResult two = perplexity(options);
  ASSERT_EQ(two.samples.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(two.samples[i].nll, four.samples[i].nll);
  options.limit = 1;
  EXPECT_TRUE(std::isnan(perplexity(options).standard_error));
}

TEST(Perplexity, IsasChangeNoBit) {
  PerplexityOptions options = demo_options(1);
  options.seqlen = 6;  // the scalar rows are slow
  options.runtime.isa = "scalar";
  const PerplexityResult scalar = perplexity(options);
  for (const Isa isa : available_isas()) {
    options.runtime.isa = isa_name(isa);
    EXPECT_EQ(perplexity(options).samples[0].nll, scalar.samples[0].nll) << isa_name(isa);
  }
}

TEST(Perplexity, Reports) {
  const PerplexityResult result = perplexity(demo_options(2));
  EXPECT_NE(perplexity_text(result).find("perplexity"), std::string::npos);
  const Json json = parse_json(perplexity_json(result), "report");
  EXPECT_EQ(json["schema"], "kedge.perplexity/1");
  EXPECT_EQ(json["results"]["tokens_scored"], 510);
  EXPECT_EQ(json["results"]["mean_nll"].get<double>(), result.mean_nll);
  EXPECT_EQ(json["samples"].size(), 2u);
  EXPECT_EQ(json["config"]["seqlen"], 256);
}

TEST(Perplexity, Complains) {
  EXPECT_EQ(error_of([](auto& o) { o.texts.clear(); }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.seqlen = 1; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.seqlen = 1025; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.limit = -1; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.runtime.activations = "int4"; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.model = root / "none"; }), ErrorCode::not_found);
}

}  // namespace
}  // namespace kedge
