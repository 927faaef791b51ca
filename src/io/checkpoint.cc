#include "io/checkpoint.h"

#include <algorithm>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "io/wire/wire.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr std::uint64_t kMaxIndexBytes = 1ull << 28;
constexpr std::size_t kMaxShards = 100'000;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// A file of the same folder and nothing else: an index must not reach other places.
bool is_safe_shard_name(const std::string& name) {
  return name.ends_with(".safetensors") && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos &&
         name.front() != '.' && name.size() <= 255;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 120;
  std::string out;
  for (const char c : text.substr(0, kLongest)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return out;
}

struct Index {
  std::vector<std::pair<std::string, std::string>> weight_map;  ///< tensor, shard
  std::vector<std::string> shards;                              ///< sorted
  std::optional<std::int64_t> total_size;
};

Index read_index(const fs::path& path) {
  const std::string where = path.string();
  const Json json = parse_json(read_file(path, kMaxIndexBytes), where);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    throw Error(ErrorCode::bad_file, where + " has no weight_map", "{\"weight_map\": {tensor: shard}}");
  }
  Index index;
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    if (!shard.is_string())
      throw Error(ErrorCode::bad_file, where + ": the shard of \"" + printable(tensor) + "\" is no string");
    const std::string& name = shard.get_ref<const std::string&>();
    if (!is_safe_shard_name(name)) {
      throw Error(ErrorCode::bad_file, where + " names the unsafe shard \"" + printable(name) + "\"",
                  "a plain file name that ends in .safetensors");
    }
    index.weight_map.emplace_back(tensor, name);
    index.shards.push_back(name);
  }
  std::sort(index.shards.begin(), index.shards.end());
  index.shards.erase(std::unique(index.shards.begin(), index.shards.end()), index.shards.end());
  if (index.shards.empty()) throw Error(ErrorCode::bad_file, where + " names no shard");
  if (index.shards.size() > kMaxShards) throw Error(ErrorCode::bad_file, where + " names too many shards");
  if (json.contains("metadata") && json["metadata"].is_object() && json["metadata"].contains("total_size") &&
      json["metadata"]["total_size"].is_number_integer()) {
    index.total_size = json["metadata"]["total_size"].get<std::int64_t>();
  }
  return index;
}

[[noreturn]] void no_weights(const fs::path& directory) {
  std::string other;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".gguf" || extension == ".bin" || extension == ".pt" || extension == ".pth") {
      other = entry.path().filename().string();
    }
  }
  throw Error(
      ErrorCode::not_found,
      directory.string() + " has no " + kSingle + " and no " + kIndex + (other.empty() ? "" : " (but " + other + ")"),
      "weights in safetensors form", other.empty() ? "" : "convert the model to safetensors first");
}

Json read_object(const fs::path& path) {
  Json json = read_json(path);
  if (!json.is_object()) throw Error(ErrorCode::bad_file, path.string() + " is no JSON object");
  return json;
}

}  // namespace

struct Checkpoint::Impl : TensorLookup {
  fs::path directory;
  Json config, generation_config;
  std::vector<std::string> shard_names;
  std::vector<SafetensorsFile> shards;
  std::vector<TensorInfo> tensors;
  std::unordered_map<std::string_view, std::size_t> shard_of;  // views into `tensors`
  std::unique_ptr<WireFormat> format;
  std::string format_name;

  std::optional<TensorView> find(std::string_view name) const override {
    const auto it = shard_of.find(name);
    if (it == shard_of.end()) return std::nullopt;
    return shards[it->second].tensor(name);
  }

  void open_weights();
  void index_tensors();
  void check_index(const Index& index) const;
};

void Checkpoint::Impl::open_weights() {
  std::optional<Index> index;
  if (is_there(directory / kSingle)) {
    shard_names = {kSingle};
  } else if (is_there(directory / kIndex)) {
    index = read_index(directory / kIndex);
    shard_names = index->shards;
  } else {
    no_weights(directory);
  }
  for (const std::string& name : shard_names) {
    if (!is_there(directory / name)) {
      throw Error(ErrorCode::not_found, directory.string() + " lacks the shard " + name + " that its index names", "",
                  "download the missing file");
    }
    shards.emplace_back(directory / name);
  }
  index_tensors();
  if (index) check_index(*index);
}

void Checkpoint::Impl::index_tensors() {
  std::size_t count = 0;
  for (const SafetensorsFile& shard : shards) count += shard.header().tensors.size();
  tensors.reserve(count);  // never grows afterwards: shard_of views its names
  shard_of.reserve(count);
  for (std::size_t s = 0; s < shards.size(); ++s) {
    for (const TensorInfo& tensor : shards[s].header().tensors) {
      tensors.push_back(tensor);
      const auto [it, inserted] = shard_of.emplace(tensors.back().name, s);
      if (!inserted) {
        throw Error(ErrorCode::bad_file, directory.string() + ": the tensor \"" + printable(tensor.name) +
                                             "\" is in both " + shard_names[it->second] + " and " + shard_names[s]);
      }
    }
  }
}

void Checkpoint::Impl::check_index(const Index& index) const {
  for (const auto& [tensor, shard] : index.weight_map) {
    const auto it = shard_of.find(tensor);
    if (it == shard_of.end() || shard_names[it->second] != shard) {
      throw Error(ErrorCode::bad_file, directory.string() + ": the index says that the tensor \"" + printable(tensor) +
                                           "\" is in " + shard + ", but it is not there");
    }
  }
  std::int64_t bytes = 0;
  for (const TensorInfo& tensor : tensors) bytes += static_cast<std::int64_t>(tensor.end - tensor.begin);
  if (index.total_size && *index.total_size != bytes) {
    warn((directory / kIndex).string() + " states a total_size of " + std::to_string(*index.total_size) +
         " bytes, but the tensors have " + std::to_string(bytes));
  }
}

Checkpoint::Checkpoint() : impl_(std::make_unique<Impl>()) {}
Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;

Checkpoint Checkpoint::open(const fs::path& directory) {
  std::error_code error;
  const fs::file_status status = fs::status(directory, error);
  if (!fs::exists(status)) throw Error(ErrorCode::not_found, "there is no folder " + directory.string());
  if (!fs::is_directory(status)) {
    throw Error(ErrorCode::not_found, directory.string() + " is no folder",
                "a Hugging Face model folder with config.json");
  }
  if (!is_there(directory / "config.json")) {
    throw Error(ErrorCode::not_found, directory.string() + " has no config.json", "a Hugging Face model folder");
  }
  Checkpoint checkpoint;
  Impl& impl = *checkpoint.impl_;
  impl.directory = directory;
  impl.config = read_object(directory / "config.json");
  if (is_there(directory / "generation_config.json")) {
    impl.generation_config = read_object(directory / "generation_config.json");
  }
  impl.format = make_wire_format(impl.config, (directory / "config.json").string());
  if (impl.format) impl.format_name = impl.format->name();
  impl.open_weights();
  return checkpoint;
}

const fs::path& Checkpoint::directory() const noexcept { return impl_->directory; }
const Json& Checkpoint::config() const noexcept { return impl_->config; }
const Json& Checkpoint::generation_config() const noexcept { return impl_->generation_config; }
const std::string& Checkpoint::quant_format() const noexcept { return impl_->format_name; }
InputActivations Checkpoint::input_activations() const noexcept {
  return impl_->format ? impl_->format->input_activations() : InputActivations::none;
}
const std::vector<TensorInfo>& Checkpoint::tensors() const noexcept { return impl_->tensors; }

std::vector<fs::path> Checkpoint::files() const {
  std::vector<fs::path> paths;
  for (const std::string& name : impl_->shard_names) paths.push_back(impl_->directory / name);
  return paths;
}

bool Checkpoint::has(std::string_view tensor) const noexcept { return impl_->shard_of.contains(tensor); }

TensorView Checkpoint::tensor(std::string_view name) const {
  if (const std::optional<TensorView> view = impl_->find(name)) return *view;
  throw Error(ErrorCode::not_found, impl_->directory.string() + " has no tensor \"" + printable(name) + "\"", "",
              "check that config.json belongs to these weights");
}

TensorView Checkpoint::tensor(std::string_view name, const Shape& shape) const {
  TensorView view = tensor(name);
  if (view.shape != shape) {
    throw Error(
        ErrorCode::bad_file,
        impl_->directory.string() + ": the tensor \"" + printable(name) + "\" has shape " + shape_string(view.shape),
        shape_string(shape) + " by config.json");
  }
  return view;
}

bool Checkpoint::has_weight(std::string_view module) const noexcept {
  return has(std::string(module) + ".weight") || (impl_->format && impl_->format->has(*impl_, module));
}

WeightData Checkpoint::weight(std::string_view module, std::int64_t rows, std::int64_t cols) const {
  const std::string plain = std::string(module) + ".weight";
  if (impl_->format && impl_->format->has(*impl_, module)) {
    const auto suffixes = impl_->format->suffixes();
    const bool own = std::find(suffixes.begin(), suffixes.end(), std::string_view(".weight")) != suffixes.end();
    if (has(plain) && !own) {
      throw Error(ErrorCode::bad_file, impl_->directory.string() + ": the weight of \"" + printable(module) +
                                           "\" exists twice, plain and quantized");
    }
    QuantTensor quantized = impl_->format->read(*impl_, module);
    if (quantized.rows != rows || quantized.cols != cols) {
      throw Error(ErrorCode::bad_file,
                  impl_->directory.string() + ": the weight of \"" + printable(module) + "\" has shape " +
                      shape_string({quantized.rows, quantized.cols}),
                  shape_string({rows, cols}) + " by config.json");
    }
    return quantized;
  }
  TensorView view = tensor(plain, {rows, cols});
  if (view.dtype != DType::f32 && view.dtype != DType::bf16 && view.dtype != DType::f16) {
    throw Error(
        ErrorCode::unsupported,
        impl_->directory.string() + ": the tensor \"" + printable(plain) + "\" has type " + dtype_name(view.dtype),
        "F32, BF16 or F16");
  }
  return view;
}

std::optional<QuantArgs> Checkpoint::quant_args(std::string_view module) const {
  if (!impl_->format || !impl_->format->has(*impl_, module)) return std::nullopt;
  return impl_->format->args(*impl_, module);
}

std::optional<StackShape> Checkpoint::stack_shape(std::string_view stack) const {
  return impl_->format ? impl_->format->stack_shape(stack) : std::nullopt;
}

AnchorDelta Checkpoint::stack(std::string_view stack) const {
  KEDGE_CHECK(stack_shape(stack).has_value());
  return impl_->format->read_stack(*impl_, stack);
}

void Checkpoint::drop(std::string_view module) const noexcept {
  const auto drop_tensor = [this](const std::string& name) {
    const auto it = impl_->shard_of.find(name);
    if (it != impl_->shard_of.end()) impl_->shards[it->second].drop(name);
  };
  const std::string base(module);
  drop_tensor(base);
  drop_tensor(base + ".weight");
  if (!impl_->format) return;
  for (const char* suffix : impl_->format->suffixes()) drop_tensor(base + suffix);
}

std::uint64_t Checkpoint::file_bytes() const noexcept {
  std::uint64_t bytes = 0;
  for (const SafetensorsFile& shard : impl_->shards) {
    const SafetensorsHeader& header = shard.header();
    bytes += header.data_begin + (header.tensors.empty() ? 0 : header.tensors.back().end);
  }
  return bytes;
}

std::string Checkpoint::content_hash() const {
  std::vector<std::string> names = impl_->shard_names;
  names.push_back("config.json");
  std::sort(names.begin(), names.end());
  Sha256 hash;  // of lines "<file hash>  <file name>"
  for (const std::string& name : names) hash.update(sha256_file(impl_->directory / name) + "  " + name + "\n");
  return hash.hex();
}

}  // namespace kedge
