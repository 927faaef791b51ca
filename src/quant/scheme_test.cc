#include "quant/scheme.h"

#include <gtest/gtest.h>

#include "kedge/error.h"

namespace kedge {
namespace {

TEST(Scheme, ReadsTheGrammar) {
  const QuantScheme scheme = parse_scheme("w3a16-g64-asym");
  EXPECT_EQ(scheme.name, "w3a16-g64-asym");
  EXPECT_EQ(scheme.weights, (QuantArgs{3, false, QuantStrategy::group, 64}));
  EXPECT_EQ(parse_scheme("w8a16-channel").weights, (QuantArgs{8, true, QuantStrategy::channel, -1}));
  EXPECT_EQ(parse_scheme("W2A16_G32").weights, (QuantArgs{2, true, QuantStrategy::group, 32}));
}

TEST(Scheme, PresetsMeanWhatCompressedTensorsMeans) {
  for (const SchemePreset& preset : scheme_presets()) {
    const QuantScheme scheme = parse_scheme(preset.name);
    EXPECT_EQ(scheme.name, preset.canonical);
    const bool inputs = scheme.input_activations != InputActivations::none;
    EXPECT_EQ(scheme.weights.group_size, inputs ? -1 : 128) << preset.name;
    EXPECT_EQ(parse_scheme(preset.canonical).weights, scheme.weights);
  }
  EXPECT_FALSE(parse_scheme("W4A16_ASYM").weights.symmetric);
  EXPECT_EQ(parse_scheme("w4a16").name, "w4a16-g128");
}

TEST(Scheme, NamesRoundTrip) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) {
      for (const std::int64_t group : {-1, 32, 64, 128}) {
        const QuantArgs args{bits, symmetric, group < 0 ? QuantStrategy::channel : QuantStrategy::group, group};
        EXPECT_EQ(parse_scheme(scheme_name(args)).weights, args) << scheme_name(args);
      }
    }
  }
}

TEST(Scheme, NamesOfSharedAnchorsRoundTrip) {
  for (const int bits : {2, 4}) {
    for (const std::int64_t group : {32, 64, 128}) {
      for (const DType dtype : {DType::f16, DType::bf16, DType::i8}) {
        for (const Manifold manifold : {Manifold::none, Manifold::sphere}) {
          const QuantArgs args{bits, true, QuantStrategy::group, group};
          const QuantScheme scheme = parse_scheme(scheme_name(args, {dtype, manifold}));
          EXPECT_EQ(scheme.weights, args);
          EXPECT_EQ(scheme.anchor, (SharedAnchor{dtype, manifold})) << scheme.name;
        }
      }
    }
  }
  EXPECT_EQ(parse_scheme("ANCHOR_INT4").name, "anchor-int4-g64");
  EXPECT_EQ(parse_scheme("anchor-int2-g32-fp16").name, "anchor-int2-g32");
  EXPECT_FALSE(parse_scheme("w4a16").anchor.has_value());
  EXPECT_EQ(parse_weight_scheme("anchor-int4").name, "anchor-int4-g64");
  EXPECT_THROW(parse_matrix_scheme("anchor-int4"), Error);
  EXPECT_THROW(parse_matrix_scheme("w8a8-static"), Error);
}

TEST(Scheme, RejectsOtherNames) {
  for (const char* name : {"", "w", "w4", "w4a8", "w5a16", "w4a16-g", "w4a16-g48", "w4a16-g-32", "w4a16-g128-",
                           "w4a16-asym-g128", "w4a16-g128-asym ", "w-4a16", "w4a8-dynamic", "w8a8-g128",
                           "w8a8-static-asym", "w99999999999999a16", "q4_k_m", "w4a16-g128-channel", "anchor-int3", "anchor-int4-g48",
                           "anchor-int4-g64-sphere-int8", "anchor-int4-fp32", "anchor", "anchor-int"}) {
    try {
      parse_scheme(name);
      ADD_FAILURE() << name << " was read";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage);
      EXPECT_NE(std::string(error.what()).find("w4a16-g128"), std::string::npos);
    }
  }
}

TEST(Scheme, KnowsInputActivations) {
  const QuantArgs channel{8, true, QuantStrategy::channel, -1};
  for (const char* name : {"W8A8", "w8a8-dynamic", "w8a8_static"}) EXPECT_EQ(parse_scheme(name).weights, channel);
  EXPECT_EQ(parse_scheme("W8A8").name, "w8a8-dynamic");
  EXPECT_EQ(parse_scheme("W8A8").input_activations, InputActivations::dynamic_token);
  EXPECT_EQ(parse_scheme("w8a8-static").input_activations, InputActivations::static_tensor);
  EXPECT_EQ(parse_scheme("w8a16").input_activations, InputActivations::none);
  EXPECT_EQ(parse_weight_scheme("w8a16").name, "w8a16-g128");
  EXPECT_THROW(parse_weight_scheme("w8a8-static"), Error);
}

TEST(Scheme, FallsBackToChannelWhereTheGroupDoesNotDivide) {
  const QuantArgs group{4, true, QuantStrategy::group, 128};
  EXPECT_EQ(args_for_cols(group, 256), group);
  EXPECT_EQ(args_for_cols(group, 96), (QuantArgs{4, true, QuantStrategy::channel, -1}));
}

TEST(Scheme, CountsStoredBits) {
  EXPECT_DOUBLE_EQ(bits_per_weight({4, true, QuantStrategy::group, 128}, 10, 256), 4 + 16.0 / 128);
  EXPECT_DOUBLE_EQ(bits_per_weight({4, false, QuantStrategy::group, 32}, 10, 64), 4 + 20.0 / 32);
  EXPECT_DOUBLE_EQ(bits_per_weight({8, true, QuantStrategy::channel, -1}, 10, 100), 8 + 0.16);
}

}  // namespace
}  // namespace kedge
