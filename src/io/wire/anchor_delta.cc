#include "io/wire/anchor_delta.h"

#include <cstring>

#include "base/check.h"
#include "base/hash.h"
#include "base/json.h"
#include "io/wire/bit_packing.h"
#include "kedge/error.h"

namespace kedge::anchor_delta {
namespace {

constexpr std::int64_t kMostExperts = 4096;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

[[noreturn]] void bad(const std::string& what, const std::string& expected = {}) {
  throw Error(ErrorCode::bad_file, what, expected, "write the file again from its source");
}

template <class T>
void append(std::vector<std::byte>& bytes, const T* values, std::size_t count) {
  const auto* from = reinterpret_cast<const std::byte*>(values);
  bytes.insert(bytes.end(), from, from + count * sizeof(T));
}

void append_scales(std::vector<std::byte>& bytes, const std::vector<float>& scales) {
  std::vector<std::byte> half(scales.size() * 2);
  convert_from_float(DType::f16, scales.data(), static_cast<std::int64_t>(scales.size()), half.data());
  append(bytes, half.data(), half.size());
}

/// Codes of a row that are stored: all, or the two of each four that the mask keeps.
std::int64_t stored_codes(std::int64_t cols, bool masked) { return masked ? cols / 2 : cols; }

template <class F>
void for_kept(const TwoFourMask& mask, std::int64_t row, std::int64_t cols, const F& body) {
  std::int64_t at = 0;
  for (std::int64_t k = 0; k < cols; ++k) {
    if ((mask[index(row * cols + k) / 4] >> (k % 4) & 1) != 0) body(k, at++);
  }
}

std::vector<std::byte> packed_deltas(const AnchorDelta& w) {
  const bool masked = !w.masks.empty();
  const std::int64_t count = stored_codes(w.cols, masked);
  std::vector<std::byte> bytes, row(index(4 * packed_words(count, w.args.num_bits, BitPacking::dense)));
  std::vector<std::uint8_t> codes(index(count));
  for (std::int64_t e = 0; e < w.experts(); ++e) {
    for (std::int64_t n = 0; n < w.rows; ++n) {
      const std::uint8_t* all = w.deltas[index(e)].codes.data() + n * w.cols;
      if (masked) {
        for_kept(w.masks[index(w.mask_of[index(e)])], n, w.cols,
                 [&](std::int64_t k, std::int64_t at) { codes[index(at)] = all[k]; });
      } else {
        std::copy(all, all + w.cols, codes.begin());
      }
      pack_row(codes.data(), count, w.args.num_bits, row.data());
      append(bytes, row.data(), row.size());
    }
  }
  return bytes;
}

std::vector<std::byte> packed_masks(const AnchorDelta& w) {
  std::vector<std::byte> bytes;
  for (const TwoFourMask& mask : w.masks) {
    for (std::size_t i = 0; i < mask.size(); i += 2)
      bytes.push_back(static_cast<std::byte>(mask[i] | mask[i + 1] << 4));
  }
  return bytes;
}

std::vector<std::byte> anchor_bytes(const AnchorDelta& w) {
  std::vector<std::byte> bytes;
  if (w.args.anchor_dtype != DType::i8) {
    append(bytes, w.anchor.data<std::byte>(), w.anchor.num_bytes());
    return bytes;
  }
  for (const std::uint8_t code : w.anchor_codes.codes) bytes.push_back(static_cast<std::byte>(code ^ 0x80));
  return bytes;
}

std::string anchor_hash(std::span<const std::byte> anchor, std::span<const std::byte> scales) {
  Sha256 hash;
  hash.update(anchor);
  hash.update(scales);
  return hash.hex();
}

/// The tensors of one stack, each of the type and shape that it must have.
class Reader {
 public:
  Reader(const TensorLookup& tensors, std::string_view stack, const std::string& where)
      : tensors_(tensors), stack_(stack), where_(where) {}

  TensorView get(const char* suffix, DType dtype, const Shape& shape) const {
    const std::string name = stack_ + suffix;
    const std::optional<TensorView> view = tensors_.find(name);
    if (!view) bad(where_ + " lacks the tensor \"" + name + "\"");
    if (view->dtype != dtype || view->shape != shape) {
      bad(where_ + ": \"" + name + "\" is " + dtype_name(view->dtype) + " " + shape_string(view->shape),
          std::string(dtype_name(dtype)) + " " + shape_string(shape));
    }
    return *view;
  }
  std::vector<float> floats(const char* suffix, DType dtype, const Shape& shape) const {
    const TensorView view = get(suffix, dtype, shape);
    std::vector<float> out(index(view.size()));
    convert_to_float(dtype, view.data, view.size(), out.data());
    return out;
  }
  std::string name() const { return where_ + ", " + stack_; }

 private:
  const TensorLookup& tensors_;
  std::string stack_;
  const std::string& where_;
};

QuantTensor make_quant(const QuantArgs& args, std::int64_t rows, std::int64_t cols) {
  QuantTensor q;
  q.args = args;
  q.rows = rows;
  q.cols = cols;
  q.scale_dtype = DType::f16;
  q.codes.resize(index(rows * cols));
  return q;
}

void read_anchor(const Reader& reader, AnchorDelta& w, const std::string& expected_hash) {
  const Shape shape{w.rows, w.cols};
  const TensorView view = reader.get(".anchor", w.args.anchor_dtype, shape);
  std::span<const std::byte> scale_bytes;
  if (w.args.anchor_dtype == DType::i8) {
    const Shape scales{w.rows, w.cols / w.args.group_size};
    const TensorView scale = reader.get(".anchor_scale", DType::f16, scales);
    scale_bytes = {scale.data, scale.num_bytes()};
    w.anchor_codes = make_quant(w.args.anchor_args(), w.rows, w.cols);
    for (std::size_t i = 0; i < w.anchor_codes.codes.size(); ++i) {
      w.anchor_codes.codes[i] = static_cast<std::uint8_t>(view.data[i]) ^ 0x80;
    }
    w.anchor_codes.scales = reader.floats(".anchor_scale", DType::f16, scales);
  } else {
    w.anchor = Tensor(w.args.anchor_dtype, shape);
    std::memcpy(w.anchor.data<std::byte>(), view.data, view.num_bytes());
  }
  const std::string hash = anchor_hash({view.data, view.num_bytes()}, scale_bytes);
  if (hash != expected_hash) {
    throw Error(ErrorCode::mismatch, reader.name() + ": the anchor's SHA-256 is " + hash,
                expected_hash.substr(0, 80) + ", as its manifest says", "get the file again or write it anew");
  }
}

void read_masks(const Reader& reader, AnchorDelta& w, std::int64_t experts, std::int64_t count) {
  if (count == 0) return;
  const TensorView packed = reader.get(".mask", DType::u8, {count, w.rows, w.cols / 8});
  const std::int64_t size = w.rows * w.cols / 8;
  for (std::int64_t m = 0; m < count; ++m) {
    TwoFourMask mask(index(2 * size));
    for (std::int64_t i = 0; i < size; ++i) {
      const auto byte = static_cast<std::uint8_t>(packed.data[m * size + i]);
      mask[index(2 * i)] = byte & 15;
      mask[index(2 * i + 1)] = byte >> 4;
    }
    w.masks.push_back(std::move(mask));
  }
  const TensorView ids = reader.get(".mask_id", DType::i32, {experts});
  w.mask_of.resize(index(experts));
  std::memcpy(w.mask_of.data(), ids.data, ids.num_bytes());
  for (const TwoFourMask& mask : w.masks) {
    for (const std::uint8_t four : mask) {
      if (__builtin_popcount(four) != 2) bad(reader.name() + ": a 2:4 mask does not keep two of each four weights");
    }
  }
  for (const std::int32_t id : w.mask_of) {
    if (id < 0 || id >= count) {
      bad(reader.name() + ": an expert has mask " + std::to_string(id),
          "a mask from 0 to " + std::to_string(count - 1));
    }
  }
}

void read_deltas(const Reader& reader, AnchorDelta& w, std::int64_t experts) {
  const bool masked = !w.masks.empty();
  const std::int64_t count = stored_codes(w.cols, masked), groups = w.cols / w.args.group_size;
  const std::int64_t words = packed_words(count, w.args.num_bits, BitPacking::dense);
  const TensorView packed = reader.get(".delta_packed", DType::i32, {experts, w.rows, words});
  const std::vector<float> scales = reader.floats(".delta_scale", DType::f16, {experts, w.rows, groups});
  std::vector<std::uint8_t> codes(index(count));
  for (std::int64_t e = 0; e < experts; ++e) {
    QuantTensor q = make_quant(w.args.delta_args(), w.rows, w.cols);
    q.scales.assign(scales.begin() + e * w.rows * groups, scales.begin() + (e + 1) * w.rows * groups);
    if (masked) std::fill(q.codes.begin(), q.codes.end(), static_cast<std::uint8_t>(q.args.mid_code()));
    for (std::int64_t n = 0; n < w.rows; ++n) {
      std::uint8_t* row = q.codes.data() + n * w.cols;
      const std::byte* from = packed.data + 4 * words * (e * w.rows + n);
      if (!masked) {
        unpack_row(from, count, w.args.num_bits, BitPacking::dense, row);
        continue;
      }
      unpack_row(from, count, w.args.num_bits, BitPacking::dense, codes.data());
      for_kept(w.masks[index(w.mask_of[index(e)])], n, w.cols,
               [&](std::int64_t k, std::int64_t at) { row[k] = codes[index(at)]; });
    }
    w.deltas.push_back(std::move(q));
  }
}

}  // namespace

std::vector<SafetensorsWriter::Entry> entries(std::string_view stack, const StackShape& w) {
  const std::string base(stack);
  const std::int64_t experts = w.experts, groups = w.cols / w.args.group_size, masks = w.masks;
  const std::int64_t words = packed_words(stored_codes(w.cols, masks > 0), w.args.num_bits, BitPacking::dense);
  std::vector<SafetensorsWriter::Entry> list{{base + ".anchor", w.args.anchor_dtype, {w.rows, w.cols}},
                                             {base + ".delta_packed", DType::i32, {experts, w.rows, words}},
                                             {base + ".delta_scale", DType::f16, {experts, w.rows, groups}}};
  if (w.args.anchor_dtype == DType::i8) list.push_back({base + ".anchor_scale", DType::f16, {w.rows, groups}});
  if (w.args.manifold == Manifold::sphere) list.push_back({base + ".row_scale", DType::f32, {experts, w.rows}});
  if (w.target_norms) list.push_back({base + ".target_norm", DType::f32, {experts, w.rows}});
  if (masks > 0) {
    list.push_back({base + ".mask", DType::u8, {masks, w.rows, w.cols / 8}});
    list.push_back({base + ".mask_id", DType::i32, {experts}});
  }
  return list;
}

std::vector<std::byte> serialize(const AnchorDelta& w, std::string_view suffix) {
  std::vector<std::byte> bytes;
  if (suffix == ".anchor") return anchor_bytes(w);
  if (suffix == ".delta_packed") return packed_deltas(w);
  if (suffix == ".mask") return packed_masks(w);
  if (suffix == ".anchor_scale") {
    append_scales(bytes, w.anchor_codes.scales);
  } else if (suffix == ".delta_scale") {
    for (const QuantTensor& delta : w.deltas) append_scales(bytes, delta.scales);
  } else if (suffix == ".row_scale") {
    append(bytes, w.row_scale.data(), w.row_scale.size());
  } else if (suffix == ".target_norm") {
    append(bytes, w.target_norm.data(), w.target_norm.size());
  } else {
    KEDGE_CHECK(suffix == ".mask_id");
    append(bytes, w.mask_of.data(), w.mask_of.size());
  }
  return bytes;
}

Json manifest(const AnchorDelta& w) {
  const std::vector<std::byte> scales =
      w.args.anchor_dtype == DType::i8 ? serialize(w, ".anchor_scale") : std::vector<std::byte>();
  return Json{{"experts", w.experts()},
              {"rows", w.rows},
              {"cols", w.cols},
              {"anchor_dtype", dtype_name(w.args.anchor_dtype)},
              {"num_bits", w.args.num_bits},
              {"group_size", w.args.group_size},
              {"manifold", manifold_name(w.args.manifold)},
              {"target_norms", !w.target_norm.empty()},
              {"masks", w.masks.size()},
              {"anchor_sha256", anchor_hash(anchor_bytes(w), scales)}};
}

StackShape read_shape(const Json& manifest, const std::string& in) {
  if (!manifest.is_object()) bad(in + " is no object");
  StackShape w;
  w.experts = json_get<std::int64_t>(manifest, "experts", in);
  w.masks = json_get<std::int64_t>(manifest, "masks", in);
  w.rows = json_get<std::int64_t>(manifest, "rows", in);
  w.cols = json_get<std::int64_t>(manifest, "cols", in);
  const auto bits = json_get<std::int64_t>(manifest, "num_bits", in);
  w.args.num_bits = bits == 4 || bits == 2 ? static_cast<int>(bits) : 0;
  w.args.group_size = json_get<std::int64_t>(manifest, "group_size", in);
  const auto dtype = json_get<std::string>(manifest, "anchor_dtype", in);
  w.args.anchor_dtype = parse_dtype(dtype).value_or(DType::f64);
  const auto manifold = json_get<std::string>(manifest, "manifold", in);
  try {
    w.args.manifold = parse_manifold(manifold);
  } catch (const Error&) {
    bad(in + ": \"" + manifold.substr(0, 80) + "\" is no manifold", "none, sphere, stiefel-polar or stiefel-qr");
  }
  check_args(w.args, w.rows, w.cols, in, ErrorCode::bad_file);
  if (w.experts < 1 || w.experts > kMostExperts || w.masks < 0 || w.masks > w.experts) {
    bad(in + " has " + std::to_string(w.experts) + " experts and " + std::to_string(w.masks) + " masks",
        "1 to " + std::to_string(kMostExperts) + " experts, at most as many masks");
  }
  w.target_norms = json_get<bool>(manifest, "target_norms", in);
  return w;
}

AnchorDelta read(const TensorLookup& tensors, std::string_view stack, const Json& manifest, const std::string& where) {
  const Reader reader(tensors, stack, where);
  const std::string in = "the manifest of " + reader.name();
  const StackShape shape = read_shape(manifest, in);
  AnchorDelta w;
  w.args = shape.args;
  w.rows = shape.rows;
  w.cols = shape.cols;
  read_anchor(reader, w, json_get<std::string>(manifest, "anchor_sha256", in));
  read_masks(reader, w, shape.experts, shape.masks);
  read_deltas(reader, w, shape.experts);
  const Shape per_row{shape.experts, w.rows};
  if (w.args.manifold == Manifold::sphere) w.row_scale = reader.floats(".row_scale", DType::f32, per_row);
  if (shape.target_norms) w.target_norm = reader.floats(".target_norm", DType::f32, per_row);
  check_anchor_delta(w, reader.name());
  return w;
}

void save(const std::filesystem::path& path, const std::map<std::string, const AnchorDelta*>& stacks,
          const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsWriter::Entry> all;
  Json manifests = Json::object();
  for (const auto& [name, stack] : stacks) {
    const auto list = entries(name, stack->shape());
    all.insert(all.end(), list.begin(), list.end());
    manifests[name] = manifest(*stack);
  }
  auto texts = metadata;
  texts["format"] = kFormat;
  texts["stacks"] = manifests.dump();
  SafetensorsWriter writer(path, std::move(all), texts);
  for (const SafetensorsWriter::Entry& entry : writer.order()) {
    const std::size_t dot = entry.name.rfind('.');
    const std::vector<std::byte> bytes =
        serialize(*stacks.at(entry.name.substr(0, dot)), std::string_view(entry.name).substr(dot));
    writer.write(entry.name, bytes.data(), bytes.size());
  }
  writer.finish();
}

std::map<std::string, AnchorDelta> load(const std::filesystem::path& path) {
  const std::string where = path.string();
  const SafetensorsFile file(path);
  const auto& metadata = file.header().metadata;
  const auto format = metadata.find("format"), stacks = metadata.find("stacks");
  if (format == metadata.end() || format->second != kFormat || stacks == metadata.end()) {
    bad(where + " is not in the format " + kFormat, "its metadata to have \"format\" and \"stacks\"");
  }
  const Json manifests = parse_json(stacks->second, "\"stacks\" of " + where);
  if (!manifests.is_object()) bad("\"stacks\" of " + where + " is no object", "a manifest per stack");
  std::map<std::string, AnchorDelta> out;
  const FileLookup lookup(file);
  for (const auto& [name, value] : manifests.items()) out.emplace(name, read(lookup, name, value, where));
  return out;
}

}  // namespace kedge::anchor_delta
