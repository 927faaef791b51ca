#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/json.h"
#include "io/test_files.h"
#include "io/wire/wire.h"

namespace kedge {
namespace {

Tensor floats(Shape shape) {
  Tensor tensor(DType::f32, std::move(shape));
  for (std::int64_t i = 0; i < tensor.size(); ++i) tensor.data<float>()[i] = static_cast<float>(i);
  return tensor;
}

void write_shard(const TempFolder& folder, const std::string& file, const std::vector<std::string>& names) {
  std::map<std::string, Tensor> tensors;
  for (const std::string& name : names) tensors.emplace(name, floats({2, 3}));
  write_safetensors(folder / file, tensors);
}

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kTwoShards =
    R"({"metadata":{"total_size":48},"weight_map":{"a.weight":"one.safetensors","b.weight":"two.safetensors"}})";

TEST(Checkpoint, OpensASingleFile) {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type":"x"})");
  write_shard(folder, "model.safetensors", {"a.weight"});
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  EXPECT_EQ(checkpoint.config()["model_type"], "x");
  EXPECT_TRUE(checkpoint.generation_config().is_null());
  EXPECT_EQ(checkpoint.quant_format(), "");
  EXPECT_TRUE(checkpoint.has_weight("a"));
  EXPECT_FALSE(checkpoint.has_weight("b"));
  EXPECT_FALSE(checkpoint.quant_args("a"));
  const WeightData weight = checkpoint.weight("a", 2, 3);
  EXPECT_EQ(reinterpret_cast<const float*>(std::get<TensorView>(weight).data)[5], 5);
  checkpoint.drop("a");
  EXPECT_EQ(checkpoint.files().size(), 1u);
  EXPECT_EQ(checkpoint.file_bytes(), std::filesystem::file_size(folder / "model.safetensors"));
  expect_error(ErrorCode::bad_file, "[2, 3]: expected [3, 2]", [&] { checkpoint.weight("a", 3, 2); });
  expect_error(ErrorCode::not_found, "b.weight", [&] { checkpoint.weight("b", 3, 2); });
}

TEST(Checkpoint, OpensShards) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("generation_config.json", R"({"eos_token_id":[1,2]})");
  folder.write(kIndex, kTwoShards);
  write_shard(folder, "one.safetensors", {"a.weight"});
  write_shard(folder, "two.safetensors", {"b.weight"});
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  EXPECT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.files().size(), 2u);
  EXPECT_EQ(checkpoint.tensor("b.weight").shape, (Shape{2, 3}));
  EXPECT_EQ(checkpoint.generation_config()["eos_token_id"].size(), 2u);
}

TEST(Checkpoint, ContentHashFollowsTheContent) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  write_shard(folder, "model.safetensors", {"a.weight"});
  const std::string before = Checkpoint::open(folder.path()).content_hash();
  EXPECT_EQ(before.size(), 64u);
  folder.write("README.md", "not part of it");
  EXPECT_EQ(Checkpoint::open(folder.path()).content_hash(), before);
  folder.write("config.json", "{ }");
  EXPECT_NE(Checkpoint::open(folder.path()).content_hash(), before);
}

TEST(Checkpoint, NamesWhatIsMissing) {
  const TempFolder folder;
  expect_error(ErrorCode::not_found, "no folder", [&] { Checkpoint::open(folder / "nowhere"); });
  expect_error(ErrorCode::not_found, "config.json", [&] { Checkpoint::open(folder.path()); });
  folder.write("config.json", "{}");
  expect_error(ErrorCode::not_found, "is no folder", [&] { Checkpoint::open(folder / "config.json"); });
  expect_error(ErrorCode::not_found, "no model.safetensors", [&] { Checkpoint::open(folder.path()); });
  folder.write("model.gguf", "");
  expect_error(ErrorCode::not_found, "model.gguf", [&] { Checkpoint::open(folder.path()); });
  folder.write(kIndex, kTwoShards);
  write_shard(folder, "one.safetensors", {"a.weight"});
  expect_error(ErrorCode::not_found, "lacks the shard two.safetensors", [&] { Checkpoint::open(folder.path()); });
  folder.write("config.json", "[]");
  expect_error(ErrorCode::bad_file, "no JSON object", [&] { Checkpoint::open(folder.path()); });
}

TEST(Checkpoint, RejectsBrokenIndexes) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  write_shard(folder, "one.safetensors", {"a.weight"});
  write_shard(folder, "two.safetensors", {"a.weight", "b.weight"});
  const auto open_with = [&](const std::string& index) {
    folder.write(kIndex, index);
    Checkpoint::open(folder.path());
  };
  const auto expect_bad = [&](const char* part, const std::string& index) {
    expect_error(ErrorCode::bad_file, part, [&] { open_with(index); });
  };
  expect_bad("in both one.safetensors and two.safetensors", kTwoShards);
  expect_bad("but it is not there", R"({"weight_map":{"c.weight":"one.safetensors"}})");
  expect_bad("no weight_map", "{}");
  expect_bad("no weight_map", "[]");
  expect_bad("names no shard", R"({"weight_map":{}})");
  expect_bad("is no string", R"({"weight_map":{"a.weight":1}})");
  expect_bad("the key", R"({"weight_map":{"a.weight":"one.safetensors","a.weight":"one.safetensors"}})");
  for (const char* name : {"../one.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "", "one.bin",
                           "a\\\\b.safetensors", "a\\u0000.safetensors", ".hidden.safetensors"}) {
    expect_bad("unsafe shard", R"({"weight_map":{"a.weight":")" + std::string(name) + "\"}}");
  }
}

// One quantized module "m" of [rows, cols] beside a plain one, and the config that describes it.
struct QuantizedFolder {
  TempFolder folder;
  std::map<std::string, Tensor> tensors;
  Json config = Json::object();
  QuantTensor q;

  explicit QuantizedFolder(const QuantArgs& args, std::int64_t rows = 40, std::int64_t cols = 64) {
    std::vector<float> weights;
    for (std::int64_t i = 0; i < rows * cols; ++i) weights.push_back(static_cast<float>((i * 37) % 101 - 40) / 64);
    q = quantize_rtn(weights, rows, cols, args, DType::bf16);
    put("m", q);
    tensors.emplace("plain.weight", floats({2, 3}));
    config["quantization_config"] = compressed_tensors::quantization_config({{{"Linear"}, args}}, {"plain"});
  }
  void put(const std::string& module, const QuantTensor& value) {
    for (const auto& entry :
         compressed_tensors::entries(module, value.args, value.rows, value.cols, value.scale_dtype)) {
      Tensor tensor(entry.dtype, entry.shape);
      const auto bytes = compressed_tensors::serialize(value, std::string_view(entry.name).substr(module.size()));
      ASSERT_EQ(bytes.size(), tensor.num_bytes());
      std::memcpy(tensor.data<std::byte>(), bytes.data(), bytes.size());
      tensors.insert_or_assign(entry.name, std::move(tensor));
    }
  }
  Json& weights() { return config["quantization_config"]["config_groups"]["group_0"]["weights"]; }
  Checkpoint open() {
    folder.write("config.json", config.dump());
    write_safetensors(folder / "model.safetensors", tensors);
    return Checkpoint::open(folder.path());
  }
  void expect_bad(ErrorCode code, const char* part) {
    SCOPED_TRACE(part);
    expect_error(code, part, [&] { open().weight("m", q.rows, q.cols); });
  }
};

constexpr QuantArgs kSym{4, true, QuantStrategy::group, 32};
constexpr QuantArgs kAsym{3, false, QuantStrategy::group, 32};

TEST(QuantizedCheckpoint, RoundTripsEveryScheme) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) {
      for (const std::int64_t group : {-1, 32, 64}) {
        QuantizedFolder source({bits, symmetric, group < 0 ? QuantStrategy::channel : QuantStrategy::group, group});
        const Checkpoint checkpoint = source.open();
        EXPECT_EQ(checkpoint.quant_format(), "compressed-tensors/pack-quantized");
        EXPECT_TRUE(checkpoint.has_weight("m"));
        EXPECT_EQ(checkpoint.quant_args("m"), source.q.args);
        EXPECT_FALSE(checkpoint.quant_args("plain"));
        const WeightData data = checkpoint.weight("m", 40, 64);
        const QuantTensor& q = std::get<QuantTensor>(data);
        EXPECT_EQ(q.codes, source.q.codes);
        EXPECT_EQ(q.scales, source.q.scales);
        EXPECT_EQ(q.zeros, source.q.zeros);
        EXPECT_EQ(q.scale_dtype, DType::bf16);
        EXPECT_TRUE(std::holds_alternative<TensorView>(checkpoint.weight("plain", 2, 3)));
        checkpoint.drop("m");
        expect_error(ErrorCode::bad_file, "expected [64, 40]", [&] { checkpoint.weight("m", 64, 40); });
      }
    }
  }
}

TEST(QuantizedCheckpoint, ExactNamesWinOverPatternsOverClasses) {
  QuantizedFolder source(kSym);
  const QuantArgs by_pattern{8, true, QuantStrategy::group, 32}, by_name{4, true, QuantStrategy::channel, -1};
  const std::vector<float> weights(40 * 64, 0.5f);
  source.put("x.1.up", quantize_rtn(weights, 40, 64, by_pattern, DType::bf16));
  source.put("x.2.up", quantize_rtn(weights, 40, 64, by_name, DType::bf16));
  source.config["quantization_config"] = compressed_tensors::quantization_config(
      {{{"Linear"}, kSym}, {{"re:x\\.\\d+\\.up$"}, by_pattern}, {{"x.2.up"}, by_name}}, {});
  const Checkpoint checkpoint = source.open();
  EXPECT_EQ(checkpoint.quant_args("m"), kSym);
  EXPECT_EQ(checkpoint.quant_args("x.1.up"), by_pattern);
  EXPECT_EQ(checkpoint.quant_args("x.2.up"), by_name);
}

TEST(QuantizedCheckpoint, ShapesDecideWhereNoTargetMatches) {
  QuantizedFolder source(kSym);
  const QuantArgs other{8, true, QuantStrategy::group, 32};
  source.config["quantization_config"] =
      compressed_tensors::quantization_config({{{"re:(?!y).*"}, other}, {{"z"}, kSym}}, {});
  EXPECT_EQ(source.open().quant_args("m"), kSym);
  source.config["quantization_config"] = compressed_tensors::quantization_config({{{"z"}, other}}, {});
  source.expect_bad(ErrorCode::bad_file, "no config group");
}

TEST(QuantizedCheckpoint, ReadsNegativeAndWiderScales) {
  for (const DType dtype : {DType::f16, DType::f32}) {
    QuantizedFolder source(kSym);
    source.q.scale_dtype = dtype;
    for (float& scale : source.q.scales) scale = -0.25f;
    source.put("m", source.q);
    const WeightData data = source.open().weight("m", 40, 64);
    EXPECT_EQ(std::get<QuantTensor>(data).scales, source.q.scales);
    EXPECT_EQ(std::get<QuantTensor>(data).scale_dtype, dtype);
  }
}

TEST(QuantizedCheckpoint, ReadsPaddedThreeBitWords) {
  QuantizedFolder source({3, false, QuantStrategy::group, 32});
  const auto pad = [](const std::vector<std::uint8_t>& codes, std::int64_t rows, std::int64_t cols) {
    Tensor words(DType::i32, {rows, (cols + 9) / 10});
    std::memset(words.data<std::byte>(), 0, words.num_bytes());
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const std::int64_t k = i % cols;
      words.data<std::uint32_t>()[i / cols * words.shape()[1] + k / 10] |=
          static_cast<std::uint32_t>(codes[static_cast<std::size_t>(i)]) << (3 * (k % 10));
    }
    return words;
  };
  // 40 rows: 4 words padded and dense alike, so the zero points follow the weight's own packing.
  source.tensors.insert_or_assign("m.weight_packed", pad(source.q.codes, 40, 64));
  Tensor zeros(DType::i32, {4, 2});
  for (int g = 0; g < 2; ++g) {
    std::vector<std::uint8_t> column;
    for (int n = 0; n < 40; ++n) column.push_back(source.q.zeros[static_cast<std::size_t>(2 * n + g)]);
    const Tensor packed = pad(column, 1, 40);
    for (int w = 0; w < 4; ++w) zeros.data<std::uint32_t>()[2 * w + g] = packed.data<std::uint32_t>()[w];
  }
  source.tensors.insert_or_assign("m.weight_zero_point", std::move(zeros));
  const WeightData data = source.open().weight("m", 40, 64);
  EXPECT_EQ(std::get<QuantTensor>(data).codes, source.q.codes);
  EXPECT_EQ(std::get<QuantTensor>(data).zeros, source.q.zeros);
}

TEST(QuantizedCheckpoint, RejectsBrokenTensors) {
  const auto broken = [](const QuantArgs& args, const char* part, const auto& change,
                         ErrorCode code = ErrorCode::bad_file) {
    QuantizedFolder source(args);
    change(source);
    source.expect_bad(code, part);
  };
  const auto replace = [](const char* name, DType dtype, Shape shape) {
    return [=](QuantizedFolder& source) {
      Tensor tensor(dtype, shape);
      std::memset(tensor.data<std::byte>(), 0, tensor.num_bytes());
      source.tensors.insert_or_assign(name, std::move(tensor));
    };
  };
  const auto remove = [](const char* name) { return [=](QuantizedFolder& source) { source.tensors.erase(name); }; };
  const auto shape_says = [](std::int64_t rows, std::int64_t cols) {
    return [=](QuantizedFolder& source) {
      source.tensors.at("m.weight_shape").data<std::int64_t>()[0] = rows;
      source.tensors.at("m.weight_shape").data<std::int64_t>()[1] = cols;
    };
  };
  broken(kSym, "lacks the tensor \"m.weight_scale\"", remove("m.weight_scale"));
  broken(kSym, "lacks the tensor \"m.weight_shape\"", remove("m.weight_shape"));
  broken(kSym, "has type I64", replace("m.weight_packed", DType::i64, {40, 8}));
  broken(kSym, "2 dimensions", replace("m.weight_packed", DType::i32, {40, 8, 1}));
  broken(kSym, "weight_packed has shape [40, 9]", replace("m.weight_packed", DType::i32, {40, 9}));
  broken(kSym, "weight_packed has shape [39, 8]", replace("m.weight_packed", DType::i32, {39, 8}));
  broken(kSym, "weight_scale has shape [40, 3]", replace("m.weight_scale", DType::bf16, {40, 3}));
  broken(kSym, "weight_scale\" has type U8", replace("m.weight_scale", DType::u8, {40, 2}));
  broken(kSym, "two numbers", replace("m.weight_shape", DType::i64, {3}));
  for (const std::int64_t cols : {std::int64_t{0}, std::int64_t{-64}, std::int64_t{1} << 62, std::int64_t{96}}) {
    broken(kSym, "m", shape_says(40, cols));
  }
  broken(kSym, "weight_shape\" says [41, 64]", shape_says(41, 64));
  broken(kSym, "exists in a symmetric scheme", replace("m.weight_zero_point", DType::i32, {5, 2}));
  broken(kSym, "group index", replace("m.weight_g_idx", DType::i32, {64}), ErrorCode::unsupported);
  broken(kSym, "exists twice", replace("m.weight", DType::f32, {40, 64}));
  broken(kAsym, "weight_zero_point is missing", remove("m.weight_zero_point"));
  broken(kAsym, "weight_zero_point has shape [3, 2]", replace("m.weight_zero_point", DType::i32, {3, 2}));
  broken(kAsym, "weight_zero_point\" has type I8", replace("m.weight_zero_point", DType::i8, {4, 2}));
  broken(kSym, "not finite",
         [](QuantizedFolder& source) { source.tensors.at("m.weight_scale").data<std::uint16_t>()[0] = 0x7f80; });
  broken(kSym, "no multiple of the group size 48",
         [](QuantizedFolder& source) { source.weights()["group_size"] = 48; });
}

TEST(QuantizedCheckpoint, RejectsConfigsItCannotHonour) {
  const auto check = [](ErrorCode code, const char* part, const auto& change) {
    QuantizedFolder source(kSym);
    change(source.config["quantization_config"], source.weights());
    source.expect_bad(code, part);
  };
  constexpr ErrorCode unsupported = ErrorCode::unsupported, bad = ErrorCode::bad_file;
  check(unsupported, "\"gptq/pack-quantized\"", [](Json& quant, Json&) { quant["quant_method"] = "gptq"; });
  check(unsupported, "float-quantized", [](Json& quant, Json&) { quant["format"] = "float-quantized"; });
  check(unsupported, "expected compressed-tensors/pack-quantized",
        [](Json& quant, Json&) { quant.erase("quant_method"); });
  check(unsupported, "not compressed yet", [](Json& quant, Json&) { quant["quantization_status"] = "frozen"; });
  check(unsupported, "KV cache", [](Json& quant, Json&) { quant["kv_cache_scheme"] = {{"num_bits", 8}}; });
  check(unsupported, "transforms", [](Json& quant, Json&) { quant["transform_config"] = {{"config_groups", 1}}; });
  check(unsupported, "sparse", [](Json& quant, Json&) { quant["sparsity_config"] = {{"format", "sparse-24"}}; });
  check(unsupported, "5 bits", [](Json&, Json& weights) { weights["num_bits"] = 5; });
  check(unsupported, "type \"float\"", [](Json&, Json& weights) { weights["type"] = "float"; });
  check(unsupported, "strategy \"block\"", [](Json&, Json& weights) { weights["strategy"] = "block"; });
  check(unsupported, "activation ordering", [](Json&, Json& weights) { weights["actorder"] = "group"; });
  check(unsupported, "dynamic", [](Json&, Json& weights) { weights["dynamic"] = true; });
  check(unsupported, "quantized activations",
        [](Json& quant, Json&) { quant["config_groups"]["group_0"]["input_activations"] = {{"num_bits", 8}}; });
  check(bad, "group size 0", [](Json&, Json& weights) { weights["group_size"] = 0; });
  check(bad, "num_bits", [](Json&, Json& weights) { weights["num_bits"] = "four"; });
  check(bad, "config_groups", [](Json& quant, Json&) { quant.erase("config_groups"); });
  check(bad, "no config group with weights", [](Json& quant, Json&) { quant["config_groups"] = Json::object(); });
  check(bad, "is no list", [](Json& quant, Json&) { quant["config_groups"]["group_0"]["targets"] = 1; });
  check(bad, "is no string", [](Json& quant, Json&) { quant["config_groups"]["group_0"]["targets"] = {1}; });
  check(bad, "is no object", [](Json& quant, Json&) { quant = 3; });
}

}  // namespace
}  // namespace kedge
