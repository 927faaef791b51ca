// The writing side of compressed_tensors.cc.
#include <cstring>

#include "base/check.h"
#include "base/json.h"
#include "io/wire/bit_packing.h"
#include "io/wire/wire.h"

namespace kedge::compressed_tensors {
namespace {

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<std::byte> packed_bytes(std::span<const std::uint8_t> values, std::int64_t rows, std::int64_t cols,
                                    int bits) {
  KEDGE_CHECK(rows > 0 && cols > 0 && static_cast<std::int64_t>(values.size()) == rows * cols && bits >= 2 &&
              bits <= 8);
  const std::int64_t stride = 4 * packed_words(cols, bits, BitPacking::dense);
  std::vector<std::byte> bytes(static_cast<std::size_t>(rows * stride));
  for (std::int64_t n = 0; n < rows; ++n) pack_row(values.data() + n * cols, cols, bits, bytes.data() + n * stride);
  return bytes;
}

/// [N, G] codes packed along N: words [packed_words(N), G].
std::vector<std::byte> packed_zeros(const QuantTensor& q) {
  const std::int64_t groups = q.groups(), words = packed_words(q.rows, q.args.num_bits, BitPacking::dense);
  std::vector<std::byte> out(static_cast<std::size_t>(4 * words * groups)), column(static_cast<std::size_t>(4 * words));
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(q.rows));
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t n = 0; n < q.rows; ++n)
      codes[static_cast<std::size_t>(n)] = q.zeros[static_cast<std::size_t>(n * groups + g)];
    pack_row(codes.data(), q.rows, q.args.num_bits, column.data());
    for (std::int64_t w = 0; w < words; ++w) std::memcpy(out.data() + 4 * (w * groups + g), column.data() + 4 * w, 4);
  }
  return out;
}

}  // namespace

std::vector<std::int32_t> pack_codes(std::span<const std::uint8_t> values, std::int64_t rows, std::int64_t cols,
                                     int bits) {
  const std::vector<std::byte> bytes = packed_bytes(values, rows, cols, bits);
  std::vector<std::int32_t> words(bytes.size() / 4);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

std::vector<SafetensorsWriter::Entry> entries(std::string_view module, const QuantArgs& args, std::int64_t rows,
                                              std::int64_t cols, DType scale_dtype) {
  KEDGE_CHECK(rows > 0 && cols > 0 && cols % args.group_for(cols) == 0);
  const std::string base(module);
  const std::int64_t groups = cols / args.group_for(cols);
  std::vector<SafetensorsWriter::Entry> list{
      {base + ".weight_packed", DType::i32, {rows, packed_words(cols, args.num_bits, BitPacking::dense)}},
      {base + ".weight_scale", scale_dtype, {rows, groups}},
      {base + ".weight_shape", DType::i64, {2}}};
  if (!args.symmetric) {
    list.push_back(
        {base + ".weight_zero_point", DType::i32, {packed_words(rows, args.num_bits, BitPacking::dense), groups}});
  }
  return list;
}

std::vector<std::byte> serialize(const QuantTensor& q, std::string_view suffix) {
  if (suffix == ".weight_packed") return packed_bytes(q.codes, q.rows, q.cols, q.args.num_bits);
  if (suffix == ".weight_shape") return bytes_of(std::vector<std::int64_t>{q.rows, q.cols});
  if (suffix == ".weight_scale") {
    KEDGE_CHECK(static_cast<std::int64_t>(q.scales.size()) == q.rows * q.groups());
    std::vector<std::byte> bytes(q.scales.size() * static_cast<std::size_t>(dtype_bits(q.scale_dtype) / 8));
    convert_from_float(q.scale_dtype, q.scales.data(), static_cast<std::int64_t>(q.scales.size()), bytes.data());
    return bytes;
  }
  KEDGE_CHECK(suffix == ".weight_zero_point" && !q.zeros.empty());
  return packed_zeros(q);
}

Json quantization_config(const std::vector<std::pair<std::vector<std::string>, QuantArgs>>& groups,
                         const std::vector<std::string>& ignore) {
  Json config_groups = Json::object();
  for (const auto& [targets, args] : groups) {
    Json weights = Json::object();
    weights["num_bits"] = args.num_bits;
    weights["type"] = "int";
    weights["symmetric"] = args.symmetric;
    weights["strategy"] = strategy_name(args.strategy);
    weights["group_size"] = args.strategy == QuantStrategy::group ? Json(args.group_size) : Json();
    weights["dynamic"] = false;
    Json group = Json::object();
    group["targets"] = targets;
    group["weights"] = std::move(weights);
    group["input_activations"] = nullptr;
    group["output_activations"] = nullptr;
    group["format"] = "pack-quantized";
    config_groups["group_" + std::to_string(config_groups.size())] = std::move(group);
  }
  Json config = Json::object();
  config["quant_method"] = "compressed-tensors";
  config["format"] = "pack-quantized";
  config["quantization_status"] = "compressed";
  config["config_groups"] = std::move(config_groups);
  config["ignore"] = ignore;
  config["kv_cache_scheme"] = nullptr;
  config["global_compression_ratio"] = nullptr;
  return config;
}

}  // namespace kedge::compressed_tensors
