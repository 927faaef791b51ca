// compressed-tensors, format pack-quantized: config -> groups, tensors -> QuantTensor.
//
//   <module>.weight_packed      i32 [N, W]   codes, W = packed_words(K)
//   <module>.weight_scale       bf16 | f16 | f32 [N, G]
//   <module>.weight_shape       i64 [2]      N, K
//   <module>.weight_zero_point  i32 [Wn, G]  asymmetric only; packed along N, Wn = packed_words(N)
// Source: compressed_tensors/compressors/pack_quantized, release 0.20.
#include <cmath>
#include <cstring>
#include <unordered_set>

#include "base/json.h"
#include "io/wire/bit_packing.h"
#include "io/wire/formats.h"
#include "io/wire/name_pattern.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr const char* kName = "compressed-tensors/pack-quantized";
constexpr const char* kFormat = "pack-quantized";
constexpr const char* kSuffixes[] = {".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point",
                                     ".weight_g_idx"};
constexpr std::int64_t kMaxGroupSize = 1 << 20;

[[noreturn]] void unsupported(const std::string& where, const std::string& what, const std::string& expected = {}) {
  throw Error(ErrorCode::unsupported, where + ": kedge does not support " + what + " in " + kName, expected);
}
[[noreturn]] void bad(const std::string& what, const std::string& expected = {}) {
  throw Error(ErrorCode::bad_file, what, expected, "get the checkpoint again or quantize it again");
}

/// One config group: which modules, and how their weights are stored.
struct Group {
  std::unordered_set<std::string> names;
  std::vector<NamePattern> patterns;
  bool linears = false;  ///< the class name "Linear" is among the targets
  QuantArgs args;
};

bool is_set(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && !it->is_null();
}

/// Absent, null, or an object without content.
bool is_empty_config(const Json& object, const char* key) {
  return !is_set(object, key) || (object[key].is_object() && object[key].empty());
}

QuantArgs parse_args(const Json& weights, const std::string& where) {
  if (!weights.is_object()) bad(where + ": \"weights\" of a config group is no object");
  QuantArgs args;
  const std::int64_t bits = json_get_or<std::int64_t>(weights, "num_bits", 8, where);
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
    unsupported(where, std::to_string(bits) + " bits", "2, 3, 4 or 8");
  args.num_bits = static_cast<int>(bits);
  const std::string type = json_get_or<std::string>(weights, "type", "int", where);
  if (type != "int" && type != "INT") unsupported(where, "codes of type \"" + type.substr(0, 40) + "\"", "int");
  args.symmetric = json_get_or<bool>(weights, "symmetric", true, where);
  if (is_set(weights, "dynamic") && weights["dynamic"] != Json(false)) unsupported(where, "dynamic weights");
  if (is_set(weights, "actorder") && weights["actorder"] != Json(false) && weights["actorder"] != Json("weight") &&
      weights["actorder"] != Json("static")) {
    unsupported(where, "activation ordering with a group index", "actorder null, \"weight\" or \"static\"");
  }
  const std::int64_t group = json_get_or<std::int64_t>(weights, "group_size", -1, where);
  const char* implied = group > 0 ? "group" : is_set(weights, "group_size") ? "channel" : "tensor";
  const std::string strategy = json_get_or<std::string>(weights, "strategy", implied, where);
  if (strategy == "group") {
    if (group <= 0 || group > kMaxGroupSize)
      bad(where + ": the group size " + std::to_string(group) + " makes no sense");
    args.strategy = QuantStrategy::group;
    args.group_size = group;
  } else if (strategy == "channel") {
    args.strategy = QuantStrategy::channel;
    args.group_size = -1;
  } else {
    unsupported(where, "the strategy \"" + strategy.substr(0, 40) + "\"", "group or channel");
  }
  return args;
}

void parse_targets(const Json& targets, const std::string& where, Group& group) {
  if (!targets.is_array()) bad(where + ": \"targets\" of a config group is no list");
  for (const Json& target : targets) {
    if (!target.is_string()) bad(where + ": a target of a config group is no string");
    const std::string& text = target.get_ref<const std::string&>();
    if (text.starts_with("re:")) {
      // A pattern beyond NamePattern leaves the module to the other rules and to the shapes.
      if (auto pattern = NamePattern::compile(std::string_view(text).substr(3)))
        group.patterns.push_back(std::move(*pattern));
    } else {
      group.linears = group.linears || text == "Linear";
      group.names.insert(text);
    }
  }
}

/// nullopt: the group says nothing about weights.
std::optional<Group> parse_group(const std::string& name, const Json& value, const std::string& where) {
  Group group;
  if (value.is_array()) {  // a preset's name with its targets
    try {
      group.args = parse_matrix_scheme(name).weights;
    } catch (const Error&) {
      unsupported(where, "the preset \"" + name.substr(0, 40) + "\"");
    }
    parse_targets(value, where, group);
    return group;
  }
  if (!value.is_object()) bad(where + ": a config group is no object");
  if (is_set(value, "input_activations") || is_set(value, "output_activations"))
    unsupported(where, "quantized activations");
  if (!is_set(value, "weights")) return std::nullopt;
  if (json_get_or<std::string>(value, "format", kFormat, where) != kFormat) {
    unsupported(where, "a config group of another format", kFormat);
  }
  group.args = parse_args(value["weights"], where);
  if (!value.contains("targets")) bad(where + ": a config group has no \"targets\"");
  parse_targets(value["targets"], where, group);
  return group;
}

/// A module's tensors, each of the right type and rank, and the shape that they agree on.
struct Stored {
  TensorView packed, scale;
  std::optional<TensorView> zeros;
  std::int64_t rows = 0, cols = 0;
};

TensorView require(const TensorLookup& tensors, const std::string& name, std::size_t rank) {
  const std::optional<TensorView> view = tensors.find(name);
  if (!view) bad("the checkpoint lacks the tensor \"" + name + "\"");
  if (view->shape.size() != rank) {
    bad("the tensor \"" + name + "\" has shape " + shape_string(view->shape), std::to_string(rank) + " dimensions");
  }
  return *view;
}

void require_type(const TensorView& view, const std::string& name, DType dtype) {
  if (view.dtype != dtype) bad("the tensor \"" + name + "\" has type " + dtype_name(view.dtype), dtype_name(dtype));
}

Stored look_up(const TensorLookup& tensors, std::string_view module) {
  const std::string base(module);
  Stored stored;
  stored.packed = require(tensors, base + ".weight_packed", 2);
  require_type(stored.packed, base + ".weight_packed", DType::i32);
  stored.scale = require(tensors, base + ".weight_scale", 2);
  if (stored.scale.dtype != DType::bf16 && stored.scale.dtype != DType::f16 && stored.scale.dtype != DType::f32) {
    bad("the tensor \"" + base + ".weight_scale\" has type " + dtype_name(stored.scale.dtype), "BF16, F16 or F32");
  }
  const TensorView shape = require(tensors, base + ".weight_shape", 1);
  if (shape.size() != 2 || (shape.dtype != DType::i64 && shape.dtype != DType::i32)) {
    bad("the tensor \"" + base + ".weight_shape\" has shape " + shape_string(shape.shape) + " and type " +
            dtype_name(shape.dtype),
        "two numbers of type I64");
  }
  std::int64_t dims[2];
  for (std::size_t i = 0; i < 2; ++i) {
    std::int32_t narrow = 0;
    if (shape.dtype == DType::i64) {
      std::memcpy(&dims[i], shape.data + 8 * i, 8);
    } else {
      std::memcpy(&narrow, shape.data + 4 * i, 4);
      dims[i] = narrow;
    }
  }
  stored.rows = dims[0];
  stored.cols = dims[1];
  // A word holds at most 16 codes of 2 bits: beyond that the packed tensor cannot be right, and products stay small.
  if (stored.rows <= 0 || stored.cols <= 0 || stored.rows != stored.packed.shape[0] ||
      stored.cols / 16 > stored.packed.shape[1]) {
    bad("\"" + base + ".weight_shape\" says " + shape_string({stored.rows, stored.cols}) +
        " but weight_packed has shape " + shape_string(stored.packed.shape));
  }
  if (tensors.find(base + ".weight_g_idx")) {
    throw Error(ErrorCode::unsupported, "\"" + base + "\" has a group index (weight_g_idx)",
                "groups of consecutive inputs", "quantize it again without activation ordering");
  }
  if (tensors.find(base + ".weight_zero_point")) {
    stored.zeros = require(tensors, base + ".weight_zero_point", 2);
    require_type(*stored.zeros, base + ".weight_zero_point", DType::i32);
  }
  return stored;
}

bool has_words(std::int64_t words, std::int64_t cols, int bits) {
  return words == packed_words(cols, bits, BitPacking::dense) || words == packed_words(cols, bits, BitPacking::padded);
}

/// Empty when the tensors can be what args says, else what does not fit.
std::string misfit(const Stored& stored, const QuantArgs& args) {
  const std::int64_t group = args.group_for(stored.cols);
  if (!has_words(stored.packed.shape[1], stored.cols, args.num_bits)) {
    return "weight_packed has shape " + shape_string(stored.packed.shape) + " for " + std::to_string(stored.cols) +
           " inputs of " + std::to_string(args.num_bits) + " bits";
  }
  if (stored.cols % group != 0) {
    return std::to_string(stored.cols) + " inputs are no multiple of the group size " + std::to_string(group);
  }
  const Shape scales{stored.rows, stored.cols / group};
  if (stored.scale.shape != scales) {
    return "weight_scale has shape " + shape_string(stored.scale.shape) + " instead of " + shape_string(scales);
  }
  if (args.symmetric == stored.zeros.has_value()) {
    return args.symmetric ? "weight_zero_point exists in a symmetric scheme" : "weight_zero_point is missing";
  }
  if (stored.zeros &&
      (stored.zeros->shape[1] != scales[1] || !has_words(stored.zeros->shape[0], stored.rows, args.num_bits))) {
    return "weight_zero_point has shape " + shape_string(stored.zeros->shape);
  }
  return {};
}

class PackQuantized : public WireFormat {
 public:
  explicit PackQuantized(std::vector<Group> groups) : groups_(std::move(groups)) {}

  const char* name() const noexcept override { return kName; }
  std::span<const char* const> suffixes() const noexcept override { return kSuffixes; }
  bool has(const TensorLookup& tensors, std::string_view module) const override {
    return tensors.find(std::string(module) + ".weight_packed").has_value();
  }
  QuantArgs args(const TensorLookup& tensors, std::string_view module) const override {
    return choose_args(look_up(tensors, module), module);
  }
  QuantTensor read(const TensorLookup& tensors, std::string_view module) const override;

 private:
  /// Exact names before patterns before classes, as compressed-tensors orders them (utils/match.py).
  const Group* match(std::string_view module) const {
    const std::string name(module);
    for (const Group& group : groups_) {
      if (group.names.contains(name)) return &group;
    }
    for (const Group& group : groups_) {
      for (const NamePattern& pattern : group.patterns) {
        if (pattern.matches_prefix(name)) return &group;
      }
    }
    for (const Group& group : groups_) {
      if (group.linears) return &group;
    }
    return nullptr;
  }

  QuantArgs choose_args(const Stored& stored, std::string_view module) const {
    if (const Group* group = match(module)) {
      const std::string reason = misfit(stored, group->args);
      if (reason.empty()) return group->args;
      bad("the tensors of \"" + std::string(module) + "\" do not fit its scheme " + scheme_name(group->args) + ": " +
          reason);
    }
    // Targets may be written in another naming or in a pattern that is not read here: the shapes decide, if they can.
    const QuantArgs* found = nullptr;
    bool ambiguous = false;
    for (const Group& group : groups_) {
      if (!misfit(stored, group.args).empty()) continue;
      ambiguous = ambiguous || (found != nullptr && !(*found == group.args));
      found = &group.args;
    }
    if (ambiguous) found = nullptr;
    if (found == nullptr)
      bad("no config group of the checkpoint describes the quantized module \"" + std::string(module) + "\"");
    return *found;
  }

  std::vector<Group> groups_;
};

/// 3-bit tensors come dense or padded; where both need as many words, the dense form is meant (today's writer).
BitPacking packing_of(const Stored& stored, int bits) {
  const bool dense = stored.packed.shape[1] == packed_words(stored.cols, bits, BitPacking::dense) &&
                     (!stored.zeros || stored.zeros->shape[0] == packed_words(stored.rows, bits, BitPacking::dense));
  return dense ? BitPacking::dense : BitPacking::padded;
}

std::vector<std::uint8_t> read_zeros(const TensorView& zeros, std::int64_t rows, int bits, BitPacking packing) {
  const auto words = static_cast<std::size_t>(zeros.shape[0]), groups = static_cast<std::size_t>(zeros.shape[1]);
  std::vector<std::byte> column(words * 4);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows)), out(static_cast<std::size_t>(rows) * groups);
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t w = 0; w < words; ++w) std::memcpy(column.data() + 4 * w, zeros.data + 4 * (w * groups + g), 4);
    unpack_row(column.data(), rows, bits, packing, codes.data());
    for (std::size_t n = 0; n < codes.size(); ++n) out[n * groups + g] = codes[n];
  }
  return out;
}

QuantTensor PackQuantized::read(const TensorLookup& tensors, std::string_view module) const {
  const Stored stored = look_up(tensors, module);
  QuantTensor q;
  q.args = choose_args(stored, module);
  q.rows = stored.rows;
  q.cols = stored.cols;
  q.scale_dtype = stored.scale.dtype;
  const int bits = q.args.num_bits;
  const BitPacking packing = packing_of(stored, bits);
  if (stored.packed.shape[1] != packed_words(stored.cols, bits, packing) ||
      (stored.zeros && stored.zeros->shape[0] != packed_words(stored.rows, bits, packing))) {
    bad("the tensors of \"" + std::string(module) + "\" are packed in two different ways");
  }
  q.scales.resize(static_cast<std::size_t>(stored.scale.size()));
  convert_to_float(stored.scale.dtype, stored.scale.data, stored.scale.size(), q.scales.data());
  if (!all_finite(q.scales)) bad("\"" + std::string(module) + ".weight_scale\" holds a value that is not finite");
  q.codes.resize(static_cast<std::size_t>(q.rows * q.cols));
  for (std::int64_t n = 0; n < q.rows; ++n) {
    unpack_row(stored.packed.data + 4 * n * stored.packed.shape[1], q.cols, bits, packing, q.codes.data() + n * q.cols);
  }
  if (stored.zeros) q.zeros = read_zeros(*stored.zeros, q.rows, bits, packing);
  return q;
}

}  // namespace

bool is_pack_quantized(const Json& quant) {
  const auto format = quant.find("format");
  if (format == quant.end()) return false;
  // "mixed-precision": each group names its own format; parse_group checks them.
  return *format == Json(kFormat) || *format == Json("mixed-precision");
}

std::unique_ptr<WireFormat> make_pack_quantized(const Json& quant, const std::string& where) {
  if (json_get_or<std::string>(quant, "quantization_status", "compressed", where) != "compressed") {
    unsupported(where, "weights that are not compressed yet", "quantization_status \"compressed\"");
  }
  if (is_set(quant, "kv_cache_scheme")) unsupported(where, "a quantized KV cache");
  if (!is_empty_config(quant, "transform_config")) unsupported(where, "transforms of the activations");
  if (!is_empty_config(quant, "moe_sparsity_config")) unsupported(where, "expert sparsity");
  if (!is_empty_config(quant, "sparsity_config") &&
      (!quant["sparsity_config"].is_object() || quant["sparsity_config"].value("format", Json()) != Json("dense"))) {
    unsupported(where, "sparse weights");
  }
  const auto it = quant.find("config_groups");
  if (it == quant.end() || !it->is_object()) bad(where + ": quantization_config has no config_groups");
  std::vector<Group> groups;
  for (const auto& [name, value] : it->items()) {
    if (auto group = parse_group(name, value, where)) groups.push_back(std::move(*group));
  }
  if (groups.empty()) bad(where + ": quantization_config has no config group with weights");
  return std::make_unique<PackQuantized>(std::move(groups));
}

}  // namespace kedge
