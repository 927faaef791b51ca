#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::size_t kAlignment = 8;  // of the data section, as the reference writer has it

std::string json_string(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    throw Error(ErrorCode::bad_file, "a name or text for a safetensors header is not valid UTF-8");
  }
}

std::string header_text(const std::vector<SafetensorsWriter::Entry>& entries,
                        const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  const auto separate = [&text] { text += text.size() > 1 ? "," : ""; };
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    const char* comma = "";
    for (const auto& [key, value] : metadata) {
      text += comma + json_string(key) + ":" + json_string(value);
      comma = ",";
    }
    text += "}";
  }
  std::uint64_t begin = 0;
  for (const SafetensorsWriter::Entry& entry : entries) {
    const std::uint64_t bytes = entry_bytes(entry);
    KEDGE_CHECK(bytes <= std::numeric_limits<std::uint64_t>::max() / 2 - begin);
    separate();
    text += json_string(entry.name) + ":{\"dtype\":\"" + dtype_name(entry.dtype) + "\",\"shape\":[";
    for (std::size_t i = 0; i < entry.shape.size(); ++i) text += (i ? "," : "") + std::to_string(entry.shape[i]);
    text += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(begin + bytes) + "]}";
    begin += bytes;
  }
  text += "}";
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  return text;
}

void check_entries(const std::vector<SafetensorsWriter::Entry>& sorted_by_name) {
  for (std::size_t i = 0; i < sorted_by_name.size(); ++i) {
    const SafetensorsWriter::Entry& entry = sorted_by_name[i];
    if (i > 0 && entry.name == sorted_by_name[i - 1].name) {
      throw Error(ErrorCode::bad_file, "the tensor \"" + entry.name + "\" would be written twice");
    }
    if (entry.name == "__metadata__" || entry.name.size() > kMaxTensorName) {
      throw Error(ErrorCode::bad_file,
                  "a tensor cannot be named \"" + entry.name.substr(0, 80) + "\" in a safetensors file");
    }
  }
}

}  // namespace

std::uint64_t entry_bytes(const SafetensorsWriter::Entry& entry) {
  std::uint64_t bits = static_cast<std::uint64_t>(dtype_bits(entry.dtype));
  KEDGE_CHECK(entry.shape.size() <= kMaxRank);
  for (const std::int64_t dimension : entry.shape) {
    KEDGE_CHECK(dimension >= 0 && !__builtin_mul_overflow(bits, static_cast<std::uint64_t>(dimension), &bits));
  }
  KEDGE_CHECK(bits % 8 == 0);
  return bits / 8;
}

struct SafetensorsWriter::Impl {
  AtomicFile file;
  std::vector<Entry> entries;
  Sha256 hash;
  std::size_t next = 0;
  bool finished = false;

  explicit Impl(const std::filesystem::path& path) : file(path) {}
  void write(std::span<const std::byte> bytes) {
    file.write(bytes);
    hash.update(bytes);
  }
};

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<Entry> entries,
                                     const std::map<std::string, std::string>& metadata) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
  check_entries(entries);
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    const int wide = dtype_bits(a.dtype), other = dtype_bits(b.dtype);
    return wide != other ? wide > other : a.name < b.name;
  });
  const std::string header = header_text(entries, metadata);
  if (header.size() > kMaxHeaderBytes) {
    throw Error(ErrorCode::unsupported,
                path.string() + " would need a header of " + std::to_string(header.size()) + " bytes",
                "at most " + std::to_string(kMaxHeaderBytes), "use smaller shards");
  }
  impl_ = std::make_unique<Impl>(path);
  impl_->entries = std::move(entries);
  const std::uint64_t length = header.size();
  impl_->write(std::as_bytes(std::span(&length, 1)));
  impl_->write(std::as_bytes(std::span(header)));
}

SafetensorsWriter::~SafetensorsWriter() = default;

const std::vector<SafetensorsWriter::Entry>& SafetensorsWriter::order() const noexcept { return impl_->entries; }

void SafetensorsWriter::write(std::string_view name, const void* data, std::size_t bytes) {
  KEDGE_CHECK(impl_->next < impl_->entries.size());
  const Entry& entry = impl_->entries[impl_->next];
  KEDGE_CHECK(entry.name == name && entry_bytes(entry) == bytes);
  impl_->write({static_cast<const std::byte*>(data), bytes});
  ++impl_->next;
}

void SafetensorsWriter::finish() {
  KEDGE_CHECK(impl_->next == impl_->entries.size() && !impl_->finished);
  impl_->file.commit();
  impl_->finished = true;
}

std::string SafetensorsWriter::sha256() {
  KEDGE_CHECK(impl_->finished);
  return impl_->hash.hex();
}

void write_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (const auto& [name, tensor] : tensors) entries.push_back({name, tensor.dtype(), tensor.shape()});
  SafetensorsWriter writer(path, std::move(entries), metadata);
  for (const SafetensorsWriter::Entry& entry : writer.order()) {
    const Tensor& tensor = tensors.find(entry.name)->second;
    writer.write(entry.name, tensor.data<std::byte>(), tensor.num_bytes());
  }
  writer.finish();
}

}  // namespace kedge
