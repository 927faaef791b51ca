// Against transformers 5.23's ROPE_INIT_FUNCTIONS on torch 2.13 (CPU, fp32); rotary_dim 32. torch's power is good to
// one unit in the last place, hence the tolerance of two.
#include "nn/rope_frequencies.h"

#include <cmath>

#include <gtest/gtest.h>

namespace kedge {
namespace {

void expect_near(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const float unit = std::nextafter(expected[i], INFINITY) - expected[i];
    EXPECT_NEAR(actual[i], expected[i], 2 * unit) << i;
  }
}

RopeSpec base_spec(RopeSpec::Type type, float theta, float factor) {
  RopeSpec spec;
  spec.rotary_dim = 32;
  spec.type = type;
  spec.theta = theta;
  spec.factor = factor;
  spec.original_max_position_embeddings = 256;
  return spec;
}

TEST(RopeFrequencies, Standard) {
  const auto f = rope_frequencies(base_spec(RopeSpec::Type::standard, 10000.0f, 1.0f));
  EXPECT_EQ(f.attention_factor, 1.0f);
  expect_near(f.inv_freq,
              {0x1.0000000000000p+0f, 0x1.1feb340000000p-1f, 0x1.43d1360000000p-2f, 0x1.6c310e0000000p-3f,
               0x1.99999a0000000p-4f, 0x1.ccab840000000p-5f, 0x1.030dc60000000p-5f, 0x1.235a720000000p-6f,
               0x1.47ae140000000p-7f, 0x1.7089380000000p-8f, 0x1.9e7c700000000p-9f, 0x1.d22a500000000p-10f,
               0x1.0624de0000000p-10f, 0x1.26d42c0000000p-11f, 0x1.4b96c00000000p-12f, 0x1.74eea60000000p-13f});
}

TEST(RopeFrequencies, Linear) {
  expect_near(rope_frequencies(base_spec(RopeSpec::Type::linear, 1e6f, 4.0f)).inv_freq,
              {0x1.0000000000000p-2f, 0x1.afd1360000000p-4f, 0x1.6c310e0000000p-5f, 0x1.33281a0000000p-6f,
               0x1.030dc60000000p-7f, 0x1.b4f7e40000000p-9f, 0x1.7089380000000p-10f, 0x1.36d21a0000000p-11f,
               0x1.0624de0000000p-12f, 0x1.ba2e4a0000000p-14f, 0x1.74eea60000000p-15f, 0x1.3a87480000000p-16f,
               0x1.0945640000000p-17f, 0x1.bf749e0000000p-19f, 0x1.7961820000000p-20f, 0x1.3e47c80000000p-21f});
}

TEST(RopeFrequencies, Llama3) {
  expect_near(rope_frequencies(base_spec(RopeSpec::Type::llama3, 500000.0f, 8.0f)).inv_freq,
              {0x1.0000000000000p+0f, 0x1.c2ef780000000p-2f, 0x1.8d27600000000p-3f, 0x1.28ac660000000p-4f,
               0x1.5951160000000p-7f, 0x1.0f53860000000p-9f, 0x1.ddee9e0000000p-11f, 0x1.a4ee400000000p-12f,
               0x1.72ba420000000p-13f, 0x1.46831a0000000p-14f, 0x1.1f91f00000000p-15f, 0x1.fa8b860000000p-17f,
               0x1.be21880000000p-18f, 0x1.88ec200000000p-19f, 0x1.5a0f4e0000000p-20f, 0x1.30c94e0000000p-21f});
}

TEST(RopeFrequencies, Yarn) {
  const auto f = rope_frequencies(base_spec(RopeSpec::Type::yarn, 1e6f, 4.0f));
  EXPECT_FLOAT_EQ(f.attention_factor, 1.138629436111989f);
  expect_near(f.inv_freq,
              {0x1.0000000000000p+0f, 0x1.6f0b6e0000000p-2f, 0x1.fdde480000000p-4f, 0x1.51df4e0000000p-5f,
               0x1.9e7c700000000p-7f, 0x1.b4f7e40000000p-9f, 0x1.7089380000000p-10f, 0x1.36d21a0000000p-11f,
               0x1.0624de0000000p-12f, 0x1.ba2e4a0000000p-14f, 0x1.74eea60000000p-15f, 0x1.3a87480000000p-16f,
               0x1.0945640000000p-17f, 0x1.bf749e0000000p-19f, 0x1.7961820000000p-20f, 0x1.3e47c80000000p-21f});
}

TEST(RopeFrequencies, YarnWithMscaleAsDeepSeek) {
  Mla mla;
  mla.qk_nope_head_dim = 160;
  mla.qk_rope_head_dim = 32;
  mla.rope = base_spec(RopeSpec::Type::yarn, 1e4f, 40.0f);
  mla.rope.mscale = 0.7f;
  mla.rope.mscale_all_dim = 1.0f;
  const auto f = rope_frequencies(mla.rope);
  EXPECT_FLOAT_EQ(f.attention_factor, 0.9191559952044436f);
  expect_near(f.inv_freq,
              {0x1.0000000000000p+0f, 0x1.efa1ae0000000p-2f, 0x1.d338d60000000p-3f, 0x1.a805e80000000p-4f,
               0x1.6ac9de0000000p-5f, 0x1.17b1460000000p-6f, 0x1.5478800000000p-8f, 0x1.d22a500000000p-12f,
               0x1.0624de0000000p-12f, 0x1.26d42c0000000p-13f, 0x1.4b96c00000000p-14f, 0x1.74eea60000000p-15f,
               0x1.a36e2e0000000p-16f, 0x1.d7b9e00000000p-17f, 0x1.0945660000000p-17f, 0x1.2a58840000000p-18f});
  EXPECT_FLOAT_EQ(mla_softmax_scale(mla), 0.1352337788608801f);
  mla.rope.mscale_all_dim = 0.0f;
  EXPECT_FLOAT_EQ(mla_softmax_scale(mla), static_cast<float>(1.0 / std::sqrt(192.0)));
}

TEST(RopeFrequencies, TheTableHoldsThePositionsAskedFor) {
  const RopeTable table = make_rope_table(base_spec(RopeSpec::Type::yarn, 1e6f, 4.0f), 10);
  EXPECT_EQ(table.half_dim(), 16);
  EXPECT_FLOAT_EQ(table.cos(0)[0], 1.138629436111989f);
  EXPECT_FLOAT_EQ(table.cos(9)[0], static_cast<float>(std::cos(9.0) * 1.138629436111989));
}

}  // namespace
}  // namespace kedge
