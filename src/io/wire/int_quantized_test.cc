// int-quantized: what the writer writes the reader reads; broken tensors and configs are told apart.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <map>

#include "base/json.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "io/test_files.h"
#include "io/wire/wire.h"

namespace kedge {
namespace {

namespace ct = compressed_tensors;

constexpr std::int64_t kRows = 3, kCols = 8;

QuantTensor random_tensor(float input_scale) {
  Rng rng(1);
  QuantTensor q;
  q.args = {8, true, QuantStrategy::channel, -1};
  q.rows = kRows;
  q.cols = kCols;
  q.scale_dtype = DType::f16;
  for (std::int64_t i = 0; i < kRows * kCols; ++i) q.codes.push_back(static_cast<std::uint8_t>(rng.below(256)));
  q.scales = {0.5f, 0.25f, 0.125f};
  q.input_scale = input_scale;
  return q;
}

class IntQuantized : public ::testing::TestWithParam<InputActivations> {
 protected:
  bool is_static() const { return GetParam() == InputActivations::static_tensor; }
  QuantTensor tensor() const { return random_tensor(is_static() ? 0.0371f : 0.0f); }

  void write(const std::function<void(Json& config)>& change_config = {},
             const std::function<void(std::map<std::string, Tensor>&)>& change_tensors = {}) {
    const QuantTensor q = tensor();
    std::map<std::string, Tensor> tensors;
    for (const auto& entry : ct::int_entries("m", kRows, kCols, q.scale_dtype, GetParam())) {
      Tensor t(entry.dtype, entry.shape);
      const std::vector<std::byte> bytes = ct::int_serialize(q, entry.name.substr(1));
      ASSERT_EQ(bytes.size(), t.num_bytes()) << entry.name;
      std::memcpy(t.data<std::byte>(), bytes.data(), bytes.size());
      tensors.emplace(entry.name, std::move(t));
    }
    if (change_tensors) change_tensors(tensors);
    write_safetensors(folder_ / "model.safetensors", tensors);
    Json config = {{"model_type", "x"},
                   {"quantization_config", ct::int_quantization_config(GetParam(), "min-max", {})}};
    if (change_config) change_config(config["quantization_config"]);
    folder_.write("config.json", config.dump());
  }
  void expect(ErrorCode code, std::string_view part) {
    expect_error(code, part, [&] { Checkpoint::open(folder_.path()).weight("m", kRows, kCols); });
  }
  TempFolder folder_;
};

TEST_P(IntQuantized, RoundTrips) {
  write();
  const Checkpoint checkpoint = Checkpoint::open(folder_.path());
  EXPECT_EQ(checkpoint.quant_format(), "compressed-tensors/int-quantized");
  EXPECT_EQ(checkpoint.input_activations(), GetParam());
  const WeightData data = checkpoint.weight("m", kRows, kCols);
  const QuantTensor &q = std::get<QuantTensor>(data), expected = tensor();
  EXPECT_EQ(q.args, expected.args);
  EXPECT_EQ(q.codes, expected.codes);
  EXPECT_EQ(q.scales, expected.scales);
  EXPECT_EQ(q.input_scale, expected.input_scale);
}

TEST_P(IntQuantized, SaysWhatIsBroken) {
  const auto put = [](const char* name, DType dtype, const Shape& shape, float value) {
    return [=](std::map<std::string, Tensor>& tensors) {
      Tensor t(dtype, shape);
      std::memset(t.data<std::byte>(), 0, t.num_bytes());
      if (dtype == DType::f32) std::fill_n(t.data<float>(), t.size(), value);
      tensors[name] = std::move(t);
    };
  };
  write({}, put("m.weight", DType::i32, {kRows, kCols}, 0));
  expect(ErrorCode::bad_file, "I8");
  write({}, put("m.weight_scale", DType::f32, {kRows}, 1));
  expect(ErrorCode::bad_file, "m.weight_scale");
  write({}, put("m.weight_scale", DType::f32, {kRows, 1}, std::numeric_limits<float>::infinity()));
  expect(ErrorCode::bad_file, "not finite");
  write({}, put("m.weight_zero_point", DType::f32, {kRows, 1}, 0));
  expect(ErrorCode::bad_file, "symmetric");
  write({}, [](auto& tensors) { tensors.erase("m.weight"); });
  expect(ErrorCode::bad_file, "m.weight");
  if (is_static()) {
    write({}, put("m.input_scale", DType::f32, {1}, -1));
    expect(ErrorCode::bad_file, "m.input_scale");
    write({}, [](auto& tensors) { tensors.erase("m.input_scale"); });
    expect(ErrorCode::bad_file, "m.input_scale");
  } else {
    write({}, put("m.input_scale", DType::f32, {1}, 1));
    expect(ErrorCode::bad_file, "dynamic");
  }
}

TEST_P(IntQuantized, RefusesOtherConfigs) {
  const auto group = [](const char* key, const Json& value) {
    return [=](Json& config) { config["config_groups"]["group_0"][key] = value; };
  };
  const auto args = [](const char* side, const char* key, const Json& value) {
    return [=](Json& config) { config["config_groups"]["group_0"][side][key] = value; };
  };
  write(args("weights", "num_bits", 4));
  expect(ErrorCode::unsupported, "8 bits");
  write(args("weights", "strategy", "tensor"));
  expect(ErrorCode::unsupported, "channel");
  write(args("input_activations", "symmetric", false));
  expect(ErrorCode::unsupported, "zero points");
  write(args("input_activations", "strategy", "group"));
  expect(ErrorCode::unsupported, "inputs of this kind");
  write(group("input_activations", nullptr));
  expect(ErrorCode::unsupported, "input_activations");
  write(group("weights", "int8"));
  expect(ErrorCode::bad_file, "no object");
  write([](Json& config) { config["config_groups"] = Json::object(); });
  expect(ErrorCode::bad_file, "config_groups");
}

INSTANTIATE_TEST_SUITE_P(Inputs, IntQuantized,
                         ::testing::Values(InputActivations::dynamic_token, InputActivations::static_tensor));

}  // namespace
}  // namespace kedge
