#include "io/wire/anchor_delta.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/json.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "io/test_files.h"

namespace kedge {
namespace {

AnchorDelta encode(const AnchorDeltaArgs& args, std::int64_t masks, bool keep_norms) {
  Rng rng(5);
  std::vector<float> weights(3 * 8 * 64);
  for (float& value : weights) value = static_cast<float>(rng.normal());
  return encode_anchor_delta(weights, 3, 8, 64, args, {keep_norms, masks, {}}, "up_proj");
}

void expect_same(const AnchorDelta& a, const AnchorDelta& b) {
  EXPECT_EQ(a.args, b.args);
  ASSERT_EQ(a.experts(), b.experts());
  EXPECT_EQ(a.row_scale, b.row_scale);
  EXPECT_EQ(a.target_norm, b.target_norm);
  EXPECT_EQ(a.masks, b.masks);
  EXPECT_EQ(a.mask_of, b.mask_of);
  std::vector<float> x(static_cast<std::size_t>(a.rows * a.cols)), y(x.size());
  for (std::int64_t e = 0; e < a.experts(); ++e) {
    EXPECT_EQ(a.deltas[static_cast<std::size_t>(e)].codes, b.deltas[static_cast<std::size_t>(e)].codes);
    decode(a, e, x);
    decode(b, e, y);
    EXPECT_EQ(x, y);
  }
}

TEST(AnchorDeltaFile, WhatIsWrittenIsRead) {
  const TempFolder folder;
  for (const DType dtype : {DType::f16, DType::bf16, DType::i8}) {
    for (const int bits : {2, 4}) {
      for (const std::int64_t masks : {0, 2}) {
        const AnchorDelta a = encode({dtype, bits, 32, Manifold::sphere}, masks, bits == 2);
        const AnchorDelta b = encode({dtype, bits, 64, Manifold::stiefel_qr}, masks, false);
        anchor_delta::save(folder / "file.safetensors", {{"layer.up_proj", &a}, {"encoder", &b}});
        const auto read = anchor_delta::load(folder / "file.safetensors");
        ASSERT_EQ(read.size(), 2u);
        expect_same(read.at("layer.up_proj"), a);
        expect_same(read.at("encoder"), b);
      }
    }
  }
}

TEST(AnchorDeltaFile, HasAsManyBytesAsItsBitsSay) {
  for (const std::int64_t masks : {0, 1}) {
    const AnchorDelta w = encode({DType::i8, 4, 32, Manifold::sphere}, masks, false);
    std::uint64_t bytes = 0;
    for (const auto& entry : anchor_delta::entries("up", w.shape())) {
      bytes += entry.name.ends_with("mask_id") ? 0 : entry_bytes(entry);
    }
    EXPECT_DOUBLE_EQ(8.0 * static_cast<double>(bytes), bits_per_weight(w) * 3 * 8 * 64);
  }
}

/// A stack in memory that a test can break.
struct Broken : TensorLookup {
  explicit Broken(const AnchorDelta& w) : manifest(anchor_delta::manifest(w)) {
    for (const auto& entry : anchor_delta::entries("up", w.shape())) {
      Tensor tensor(entry.dtype, entry.shape);
      const auto bytes = anchor_delta::serialize(w, std::string_view(entry.name).substr(2));
      EXPECT_EQ(bytes.size(), tensor.num_bytes()) << entry.name;
      std::memcpy(tensor.data<std::byte>(), bytes.data(), bytes.size());
      tensors.emplace(entry.name, std::move(tensor));
    }
  }
  std::optional<TensorView> find(std::string_view name) const override {
    const auto it = tensors.find(std::string(name));
    return it == tensors.end() ? std::nullopt : std::optional(it->second.view());
  }
  void expect(ErrorCode code, std::string_view part) const {
    expect_error(code, part, [&] { anchor_delta::read(*this, "up", manifest, "model"); });
  }
  std::map<std::string, Tensor> tensors;
  Json manifest;
};

TEST(AnchorDeltaFile, BrokenOnesSaySo) {
  const AnchorDelta w = encode({DType::f16, 4, 32, Manifold::sphere}, 1, true);
  const auto broken = [&](auto&& change) {
    Broken b(w);
    change(b);
    return b;
  };
  expect_same(anchor_delta::read(Broken(w), "up", Broken(w).manifest, "model"), w);
  broken([](Broken& b) {
    b.tensors.at("up.anchor").data<std::uint16_t>()[3] ^= 1;
  }).expect(ErrorCode::mismatch, "the anchor's SHA-256");
  broken([](Broken& b) { b.manifest["anchor_sha256"] = "0123"; }).expect(ErrorCode::mismatch, "0123, as its manifest");
  broken([](Broken& b) {
    b.tensors.at("up.row_scale").data<float>()[9] *= 1.01f;
  }).expect(ErrorCode::mismatch, "expert 1: the scale of row 1");
  broken([](Broken& b) {
    b.tensors.at("up.target_norm").data<float>()[2] = -1;
  }).expect(ErrorCode::bad_file, "target norm is not positive");
  broken([](Broken& b) {
    b.tensors.at("up.delta_scale").data<std::uint16_t>()[2] = 0x7c00;
  }).expect(ErrorCode::bad_file, "a scale is NaN or infinite");
  broken([](Broken& b) {
    b.tensors.at("up.mask").data<std::uint8_t>()[2] = 0x37;
  }).expect(ErrorCode::bad_file, "does not keep two of each four");
  broken([](Broken& b) {
    b.tensors.at("up.mask_id").data<std::int32_t>()[2] = 1;
  }).expect(ErrorCode::bad_file, "has mask 1");
  broken([](Broken& b) { b.tensors.erase("up.delta_packed"); }).expect(ErrorCode::bad_file, "lacks the tensor");
  broken([](Broken& b) { b.manifest["rows"] = 9; }).expect(ErrorCode::bad_file, "[9, 64]");
  broken([](Broken& b) { b.manifest["group_size"] = 128; }).expect(ErrorCode::bad_file, "do not divide");
  broken([](Broken& b) { b.manifest["num_bits"] = 3; }).expect(ErrorCode::bad_file, "bits");
  broken([](Broken& b) { b.manifest["experts"] = 0; }).expect(ErrorCode::bad_file, "0 experts");
  broken([](Broken& b) { b.manifest["manifold"] = "torus"; }).expect(ErrorCode::bad_file, "no manifold");
  broken([](Broken& b) { b.manifest["rows"] = std::int64_t{1} << 40; }).expect(ErrorCode::bad_file, "below 2^31");

  AnchorDelta nan = encode({DType::f16, 4, 32, Manifold::sphere}, 0, false);
  nan.anchor.data<std::uint16_t>()[0] = 0x7e00;
  Broken(nan).expect(ErrorCode::bad_file, "the anchor holds a NaN");
}

TEST(AnchorDeltaFile, AnotherFormatIsRefused) {
  const TempFolder folder;
  write_safetensors(folder / "plain.safetensors", {});
  expect_error(ErrorCode::bad_file, "is not in the format", [&] { anchor_delta::load(folder / "plain.safetensors"); });
}

// A checkpoint whose config.json names stacks.
TEST(AnchoredCheckpoint, ReadsItsStacksAndRefusesBrokenConfigs) {
  const TempFolder folder;
  const std::string name = "model.layers.0.mlp.experts.up_proj";
  const AnchorDelta w = encode({DType::i8, 2, 32, Manifold::sphere}, 0, true);
  anchor_delta::save(folder / "model.safetensors", {{name, &w}});
  const Json good =
      anchor_delta::quantization_config("anchor-int2-g32-int8", {{name, anchor_delta::manifest(w)}}, nullptr);
  const auto open = [&](const Json& quant) {
    folder.write("config.json", Json{{"quantization_config", quant}}.dump());
    return Checkpoint::open(folder.path());
  };
  const Checkpoint checkpoint = open(good);
  EXPECT_EQ(checkpoint.quant_format(), "kedge/anchor-delta");
  ASSERT_TRUE(checkpoint.stack_shape(name).has_value());
  EXPECT_EQ(checkpoint.stack_shape(name)->experts, 3);
  EXPECT_EQ(bits_per_weight(*checkpoint.stack_shape(name)), bits_per_weight(w));
  EXPECT_FALSE(checkpoint.stack_shape("model.layers.0.mlp.experts.gate_proj").has_value());
  EXPECT_FALSE(checkpoint.has_weight("model.layers.0.mlp.experts.0.up_proj"));
  expect_same(checkpoint.stack(name), w);

  const auto refused = [&](const std::string& key, const Json& value, const std::string& words) {
    Json quant = good;
    quant[key] = value;
    expect_error(ErrorCode::bad_file, words, [&] { open(quant); });
  };
  refused("stacks", nullptr, "has no \"stacks\"");
  refused("stacks", {{name, 3}}, "is no object");
  refused("stacks", {{name, {{"experts", 3}}}}, "masks");
  refused("others", "w4a16", "pack-quantized");
  refused("others", good, "pack-quantized");
  Json other = good;
  other["format"] = "kedge.anchor-delta/2";
  expect_error(ErrorCode::unsupported, "kedge/kedge.anchor-delta/2", [&] { open(other); });
}

}  // namespace
}  // namespace kedge
