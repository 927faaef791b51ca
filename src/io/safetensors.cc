#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <tuple>
#include <unordered_map>

#include "base/check.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr const char* kMetadata = "__metadata__";

[[noreturn]] void bad(const std::string& where, const std::string& what, const std::string& expected = {}) {
  throw Error(ErrorCode::bad_file, where + ": " + what, expected,
              "get the file again, it is damaged or not safetensors");
}

/// A name out of a file, safe to print.
std::string quote(std::string_view name) {
  constexpr std::size_t kLongest = 120;
  std::string text = "\"";
  for (const char c : name.substr(0, kLongest)) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return text + (name.size() > kLongest ? "...\"" : "\"");
}

std::optional<std::uint64_t> multiply(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

std::uint64_t unsigned_number(const Json& value, const std::string& where, const char* field, const std::string& name) {
  if (!value.is_number_unsigned()) {
    bad(where, std::string(field) + " of " + quote(name) + " holds something else than whole numbers >= 0");
  }
  return value.get<std::uint64_t>();
}

/// Dimensions are positive or zero and their product, zeros left out, fits 63 bits: no slice of it can overflow.
Shape parse_shape(const Json& value, const std::string& where, const std::string& name) {
  if (!value.is_array()) bad(where, "the shape of " + quote(name) + " is no list");
  if (value.size() > kMaxRank) {
    bad(where, "tensor " + quote(name) + " has " + std::to_string(value.size()) + " dimensions",
        "at most " + std::to_string(kMaxRank));
  }
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  Shape shape;
  std::uint64_t product = 1;
  for (const Json& item : value) {
    const std::uint64_t dimension = unsigned_number(item, where, "the shape", name);
    const std::optional<std::uint64_t> next = multiply(product, dimension == 0 ? 1 : dimension);
    if (!next || *next > kMost) bad(where, "the shape of " + quote(name) + " is too large");
    product = *next;
    shape.push_back(static_cast<std::int64_t>(dimension));
  }
  return shape;
}

void check_bytes(const TensorInfo& tensor, const std::string& where) {
  const auto elements = static_cast<std::uint64_t>(num_elements(tensor.shape));
  const std::optional<std::uint64_t> bits = multiply(elements, static_cast<std::uint64_t>(dtype_bits(tensor.dtype)));
  if (!bits) bad(where, "the shape of " + quote(tensor.name) + " is too large");
  if (*bits % 8 != 0) bad(where, "tensor " + quote(tensor.name) + " does not fill whole bytes");
  if (tensor.end < tensor.begin) bad(where, "the data of " + quote(tensor.name) + " ends before it begins");
  if (tensor.end - tensor.begin != *bits / 8) {
    bad(where,
        "tensor " + quote(tensor.name) + " of shape " + shape_string(tensor.shape) + " and type " +
            dtype_name(tensor.dtype) + " has " + std::to_string(tensor.end - tensor.begin) + " bytes",
        std::to_string(*bits / 8));
  }
}

TensorInfo parse_tensor(const std::string& name, const Json& value, const std::string& where) {
  if (name.size() > kMaxTensorName) bad(where, "the tensor name " + quote(name) + " is too long");
  if (!value.is_object()) bad(where, "the entry of tensor " + quote(name) + " is no object");
  const Json *dtype = nullptr, *shape = nullptr, *offsets = nullptr;
  for (const auto& [field, item] : value.items()) {
    if (field == "dtype") {
      dtype = &item;
    } else if (field == "shape") {
      shape = &item;
    } else if (field == "data_offsets") {
      offsets = &item;
    } else {
      bad(where, "tensor " + quote(name) + " has an unknown field " + quote(field));
    }
  }
  if (dtype == nullptr || shape == nullptr || offsets == nullptr) {
    bad(where, "the entry of tensor " + quote(name) + " is incomplete", "dtype, shape and data_offsets");
  }
  TensorInfo tensor;
  tensor.name = name;
  if (!dtype->is_string()) bad(where, "the dtype of " + quote(name) + " is no string");
  const std::optional<DType> type = parse_dtype(dtype->get_ref<const std::string&>());
  if (!type)
    bad(where, "tensor " + quote(name) + " has the unknown dtype " + quote(dtype->get_ref<const std::string&>()));
  tensor.dtype = *type;
  tensor.shape = parse_shape(*shape, where, name);
  if (!offsets->is_array() || offsets->size() != 2)
    bad(where, "data_offsets of " + quote(name) + " is no pair of numbers");
  tensor.begin = unsigned_number((*offsets)[0], where, "data_offsets", name);
  tensor.end = unsigned_number((*offsets)[1], where, "data_offsets", name);
  check_bytes(tensor, where);
  return tensor;
}

std::map<std::string, std::string> parse_metadata(const Json& value, const std::string& where) {
  if (!value.is_object()) bad(where, "__metadata__ is no object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, item] : value.items()) {
    if (!item.is_string()) bad(where, "__metadata__ holds something else than strings at " + quote(key));
    metadata.emplace(key, item.get<std::string>());
  }
  return metadata;
}

/// Sorts by offset; every byte of the data section must belong to exactly one tensor.
void check_layout(std::vector<TensorInfo>& tensors, std::uint64_t data_bytes, const std::string& where) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin < end) bad(where, "the data of tensor " + quote(tensor.name) + " overlaps that of another tensor");
    if (tensor.begin > end) bad(where, "there is a hole before the data of tensor " + quote(tensor.name));
    end = tensor.end;
  }
  if (end > data_bytes) {
    bad(where, "the file is cut off: it has " + std::to_string(data_bytes) + " bytes of data", std::to_string(end));
  }
  if (end < data_bytes) bad(where, std::to_string(data_bytes - end) + " bytes follow the last tensor");
}

}  // namespace

SafetensorsHeader parse_safetensors(std::string_view file, const std::string& where) {
  if (file.size() < kLengthBytes) bad(where, "the file has only " + std::to_string(file.size()) + " bytes");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxHeaderBytes) {
    bad(where, "the header claims " + std::to_string(length) + " bytes", "at most " + std::to_string(kMaxHeaderBytes));
  }
  if (length > file.size() - kLengthBytes) {
    bad(where, "the header claims " + std::to_string(length) + " bytes, more than the file has");
  }
  const std::string_view text = file.substr(kLengthBytes, length);
  if (text.empty() || text.front() != '{') bad(where, "the header does not begin with '{'");
  // A JSON lexer may take NUL for the end of the text.
  if (text.find('\0') != std::string_view::npos) bad(where, "the header contains a zero byte");

  // Three levels: the header, a tensor's entry, its shape.
  const Json json = parse_json(text, "the header of " + where, 3);
  if (json.size() > kMaxTensors) bad(where, "the header names more than " + std::to_string(kMaxTensors) + " tensors");
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  header.tensors.reserve(json.size());
  for (const auto& [key, value] : json.items()) {
    if (key == kMetadata) {
      header.metadata = parse_metadata(value, where);
    } else {
      header.tensors.push_back(parse_tensor(key, value, where));
    }
  }
  check_layout(header.tensors, file.size() - header.data_begin, where);
  return header;
}

struct SafetensorsFile::Impl {
  MappedFile file;
  SafetensorsHeader header;
  std::unordered_map<std::string_view, std::size_t> index;  // views into header.tensors

  std::span<const std::byte> bytes(const TensorInfo& tensor) const {
    return file.bytes().subspan(header.data_begin + tensor.begin, tensor.end - tensor.begin);
  }
};

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : impl_(std::make_unique<Impl>(Impl{MappedFile(path), {}, {}})) {
  const std::span<const std::byte> bytes = impl_->file.bytes();
  impl_->header = parse_safetensors({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
  impl_->index.reserve(impl_->header.tensors.size());
  for (std::size_t i = 0; i < impl_->header.tensors.size(); ++i) impl_->index.emplace(impl_->header.tensors[i].name, i);
}

SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const SafetensorsHeader& SafetensorsFile::header() const noexcept { return impl_->header; }
bool SafetensorsFile::has(std::string_view name) const noexcept { return impl_->index.contains(name); }

TensorView SafetensorsFile::tensor(std::string_view name) const {
  const auto it = impl_->index.find(name);
  if (it == impl_->index.end()) {
    throw Error(ErrorCode::not_found, impl_->file.path().string() + " has no tensor " + quote(name));
  }
  const TensorInfo& tensor = impl_->header.tensors[it->second];
  return {tensor.dtype, tensor.shape, impl_->bytes(tensor).data()};
}

void SafetensorsFile::drop(std::string_view name) const noexcept {
  const auto it = impl_->index.find(name);
  if (it != impl_->index.end()) impl_->file.drop(impl_->bytes(impl_->header.tensors[it->second]));
}

}  // namespace kedge
