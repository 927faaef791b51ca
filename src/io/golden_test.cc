// tests/goldens/quantized: matrices that compressed-tensors 0.20 quantized, packed and decoded. Bit-exact.
#include <gtest/gtest.h>

#include <cstring>

#include "base/json.h"
#include "io/safetensors.h"
#include "io/wire/wire.h"

namespace kedge {
namespace {

struct Case {
  std::string name;
  QuantArgs args;
  std::int64_t rows, cols;
};

struct Goldens {
  SafetensorsFile file{std::string(KEDGE_SOURCE_DIR) +
                       "/tests/goldens/quantized/compressed_tensors_matrices.safetensors"};
  std::vector<Case> cases;

  Goldens() {
    const Json json =
        read_json(std::string(KEDGE_SOURCE_DIR) + "/tests/goldens/quantized/compressed_tensors_matrices.json");
    for (const Json& item : json["cases"]) {
      Case one;
      one.name = item["name"].get<std::string>();
      one.args.num_bits = item["num_bits"].get<int>();
      one.args.symmetric = item["symmetric"].get<bool>();
      const bool channel = item["strategy"] == "channel";
      one.args.strategy = channel ? QuantStrategy::channel : QuantStrategy::group;
      one.args.group_size = channel ? -1 : item["group_size"].get<std::int64_t>();
      one.rows = item["shape"][0].get<std::int64_t>();
      one.cols = item["shape"][1].get<std::int64_t>();
      cases.push_back(one);
    }
  }
  std::vector<float> floats(const std::string& name) const {
    const TensorView view = file.tensor(name);
    std::vector<float> out(static_cast<std::size_t>(view.size()));
    convert_to_float(view.dtype, view.data, view.size(), out.data());
    return out;
  }
};

bool same_bytes(const std::vector<std::byte>& bytes, const TensorView& view) {
  return bytes.size() == view.num_bytes() && std::memcmp(bytes.data(), view.data, bytes.size()) == 0;
}

TEST(CompressedTensorsGoldens, QuantizeAndPackGiveItsBytes) {
  const Goldens goldens;
  ASSERT_EQ(goldens.cases.size(), 24u);
  for (const Case& one : goldens.cases) {
    SCOPED_TRACE(one.name);
    // The scales were rounded to fp16, then stored in the type of the fp32 weight.
    QuantTensor q = quantize_rtn(goldens.floats(one.name + ".weight"), one.rows, one.cols, one.args, DType::f16);
    q.scale_dtype = DType::f32;
    for (const SafetensorsWriter::Entry& entry :
         compressed_tensors::entries(one.name, one.args, one.rows, one.cols, DType::f32)) {
      SCOPED_TRACE(entry.name);
      const TensorView golden = goldens.file.tensor(entry.name);
      EXPECT_EQ(entry.dtype, golden.dtype);
      EXPECT_EQ(entry.shape, golden.shape);
      EXPECT_TRUE(
          same_bytes(compressed_tensors::serialize(q, std::string_view(entry.name).substr(one.name.size())), golden));
    }
    std::vector<float> decoded(static_cast<std::size_t>(one.rows * one.cols));
    dequantize(q, decoded);
    EXPECT_EQ(decoded, goldens.floats(one.name + ".dequantized"));
  }
}

TEST(CompressedTensorsGoldens, ReadDecodesToItsValues) {
  const Goldens goldens;
  int read = 0;
  for (const Case& one : goldens.cases) {
    SCOPED_TRACE(one.name);
    if (one.args.num_bits == 5 || one.args.num_bits == 6) continue;  // kedge has no kernels for these
    Json config = Json::object();
    config["quantization_config"] = compressed_tensors::quantization_config({{{"Linear"}, one.args}}, {"lm_head"});
    const std::unique_ptr<WireFormat> format = make_wire_format(config, "config.json");
    ASSERT_NE(format, nullptr);
    const FileLookup tensors(goldens.file);
    ASSERT_TRUE(format->has(tensors, one.name));
    EXPECT_EQ(format->args(tensors, one.name), one.args);
    const QuantTensor q = format->read(tensors, one.name);
    EXPECT_EQ(q.rows, one.rows);
    EXPECT_EQ(q.cols, one.cols);
    std::vector<float> decoded(static_cast<std::size_t>(one.rows * one.cols));
    dequantize(q, decoded);
    EXPECT_EQ(decoded, goldens.floats(one.name + ".dequantized"));
    ++read;
  }
  EXPECT_EQ(read, 16);
}

}  // namespace
}  // namespace kedge
