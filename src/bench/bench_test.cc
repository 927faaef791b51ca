#include "kedge/bench.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/json.h"
#include "bench/limits.h"
#include "bench/shapes.h"
#include "bench/work.h"
#include "kedge/error.h"

namespace kedge {
namespace {

const std::filesystem::path kDemo = std::filesystem::path(KEDGE_SOURCE_DIR) / "models" / "demo-4m";

TEST(Limits, EveryIsaReachesSomethingPlausible) {
  ThreadPool threads(2);
  double scalar = 0;
  for (Isa isa : available_isas()) {
    LimitOptions options;
    options.isa = isa;
    options.buffer_bytes = std::uint64_t{1} << 26;
    options.seconds = 0.05;
    const MachineLimits limits = measure_limits(threads, options);
    EXPECT_EQ(limits.isa, isa_name(isa));
    EXPECT_EQ(limits.threads, 2);
    // One core: between 0.1 GFLOP/s and 64 flops at 10 GHz; memory and caches: below 1 TB/s.
    EXPECT_GT(limits.fp32_one, 0.1);
    EXPECT_LT(limits.fp32_one, 640);
    EXPECT_GT(limits.dram_read_one, 0.1);
    EXPECT_LT(limits.dram_read_one, 1000);
    if (isa == Isa::scalar) {
      scalar = limits.fp32_one;
      EXPECT_EQ(limits.int8_one, 0);
    } else {
      EXPECT_GT(limits.fp32_one, 0.5 * scalar);  // wide room: the machine may be shared
      EXPECT_GT(limits.int8_one, 0.5 * scalar);
      EXPECT_FALSE(limits.int8_instruction.empty());
    }
  }
}

TEST(Shapes, CostWhatTheModelCardsSay) {
  // OLMoE: 1.3 B active parameters of which 2 x 50304 x 2048 are embedding and head.
  EXPECT_NEAR(products_per_token(shape_spec("olmoe-1b-7b")), 1.08e9, 0.02e9);
  // Qwen3-30B-A3B: 3.3 B active, 2 x 151936 x 2048 of them embedding and head.
  EXPECT_NEAR(products_per_token(shape_spec("qwen3-30b-a3b")), 2.72e9, 0.05e9);
  EXPECT_EQ(bench_shapes().size(), 2u);
  EXPECT_THROW(shape_spec("gpt-2"), Error);
}

TEST(Bench, MeasuresTheBundledModel) {
  BenchOptions options;
  options.model = kDemo;
  options.prefill = 48;
  options.decode = 8;
  options.repetitions = 3;
  options.limits = false;
  options.runtime.threads = 2;
  const BenchReport report = bench(options);
  ASSERT_EQ(report.prefill.samples.size(), 3u);
  ASSERT_EQ(report.decode.samples.size(), 3u);
  EXPECT_GT(report.decode.lowest, 0);
  EXPECT_LE(report.decode.lowest, report.decode.median);
  EXPECT_LE(report.decode.median, report.decode.highest);
  EXPECT_LT(report.active_bytes, report.weight_bytes);
  EXPECT_GT(report.active_bytes, 0u);
  EXPECT_DOUBLE_EQ(report.decode_gigabytes(), report.decode.median * static_cast<double>(report.active_bytes) * 1e-9);
  EXPECT_EQ(report.decode_limit(), 0);
  EXPECT_FALSE(report.int8);

  const std::string text = bench_text(report);
  EXPECT_NE(text.find("prefill 48"), std::string::npos) << text;
  EXPECT_NE(text.find("decode 8"), std::string::npos);
  const Json json = parse_json(bench_json(report), "bench_json");
  EXPECT_EQ(json["schema"], "kedge.bench/1");
  EXPECT_EQ(json["samples"].size(), 3u);
  EXPECT_EQ(json["config"]["prefill"], 48);
  EXPECT_TRUE(json["results"]["limits"].is_null());
  EXPECT_TRUE(json["results"]["decode_share_of_limit"].is_null());
  EXPECT_EQ(json["provenance"]["inputs"].size(), 1u);
  EXPECT_DOUBLE_EQ(json["results"]["decode_tokens_per_second"]["median"].get<double>(), report.decode.median);
}

TEST(Bench, DecodeAlone) {
  BenchOptions options;
  options.model = kDemo;
  options.prefill = 0;
  options.decode = 4;
  options.repetitions = 1;
  options.limits = false;
  const BenchReport report = bench(options);
  EXPECT_TRUE(report.prefill.samples.empty());
  EXPECT_EQ(report.decode.samples.size(), 1u);
  EXPECT_TRUE(parse_json(bench_json(report), "bench_json")["results"]["prefill_tokens_per_second"].is_null());
}

TEST(Bench, RefusesWhatItCannotMeasure) {
  const auto code = [](const BenchOptions& options) {
    try {
      bench(options);
    } catch (const Error& error) {
      return static_cast<int>(error.code());
    }
    return 0;
  };
  const int usage = static_cast<int>(ErrorCode::usage);
  BenchOptions options;
  options.limits = false;
  EXPECT_EQ(code(options), usage);
  options.shape = "no-such-shape";
  EXPECT_EQ(code(options), usage);
  options.model = kDemo;
  EXPECT_EQ(code(options), usage);
  options.shape.clear();
  options.prefill = options.decode = 0;
  EXPECT_EQ(code(options), usage);
  options.decode = 1'000'000;
  EXPECT_EQ(code(options), usage);
  options.decode = 1;
  options.repetitions = 0;
  EXPECT_EQ(code(options), usage);
  options.repetitions = 1;
  options.model = kDemo / "no-such-folder";
  EXPECT_EQ(code(options), static_cast<int>(ErrorCode::not_found));
}

}  // namespace
}  // namespace kedge
