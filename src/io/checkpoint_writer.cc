#include "io/checkpoint_writer.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "io/folder.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProgress = "progress.json";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr int kProgressVersion = 1;
constexpr std::uint64_t kMaxCopyBytes = 1ull << 30;

[[noreturn]] void throw_io(const std::string& doing, const fs::path& path, int error) {
  throw Error(ErrorCode::io, "cannot " + doing + " " + path.string() + ": " + std::strerror(error), "",
              error == ENOSPC || error == EDQUOT ? "free some space there" : "");
}

std::string shard_file_name(std::size_t shard, std::size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, count);
  return name;
}

/// "<name>.tmp-<pid>" of AtomicFile, left by a killed process.
bool is_temporary(const std::string& name) {
  const std::size_t at = name.rfind(".tmp-");
  return at != std::string::npos && name.find_first_not_of("0123456789", at + 5) == std::string::npos &&
         at + 5 < name.size();
}

/// A folder may be given with a trailing slash, to which no ".partial" can be appended.
fs::path clean(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

}  // namespace

struct CheckpointWriter::Impl {
  fs::path destination, partial;
  std::vector<ShardPlan> shards;
  std::vector<std::string> names;
  std::string plan_hash;
  std::map<std::string, std::string> hashes;      ///< of finished shards, by file name
  std::map<std::string, std::string> weight_map;  ///< tensor -> shard
  std::uint64_t total_size = 0;
  std::unique_ptr<Folder> folder_fd;
  std::chrono::milliseconds lock_wait{0};
  bool complete = false;  ///< all files are there, side files too
  bool renamed = false;  ///< killed after the rename: only progress.json is left to remove

  const fs::path& folder() const { return renamed ? destination : partial; }

  void plan();
  void open();
  void open_destination();
  void open_partial();
  bool load_progress(const fs::path& from);
  void save_progress() const;
  void check_space() const;
  void write_index() const;
};

void CheckpointWriter::Impl::plan() {
  for (std::size_t i = 0; i < shards.size(); ++i) {
    names.push_back(shard_file_name(i, shards.size()));
    for (const SafetensorsWriter::Entry& entry : shards[i].entries) {
      if (!weight_map.emplace(entry.name, names[i]).second) {
        throw Error(ErrorCode::bad_file, "the tensor \"" + entry.name + "\" would be written twice");
      }
      total_size += entry_bytes(entry);
    }
  }
}

void CheckpointWriter::Impl::open() {
  open_destination();
  if (renamed) {
    folder_fd = std::make_unique<Folder>(destination);
    return;
  }
  open_partial();
  check_space();
}

/// false: the file says another plan. Keeps the recorded shards whose bytes are still those recorded.
bool CheckpointWriter::Impl::load_progress(const fs::path& from) {
  const fs::path path = from / kProgress;
  const Json json = read_json(path);
  const std::string where = path.string();
  if (json_get<std::int64_t>(json, "version", where) != kProgressVersion ||
      json_get<std::string>(json, "plan", where) != plan_hash) {
    return false;
  }
  complete = json_get_or<bool>(json, "complete", false, where);
  const Json& recorded = json.contains("shards") ? json["shards"] : Json();
  for (const std::string& name : names) {
    if (!recorded.is_object() || !recorded.contains(name) || !fs::exists(from / name)) continue;
    const std::string hash = sha256_file(from / name);
    if (recorded[name] == Json(hash)) {
      hashes[name] = hash;
    } else {
      note((from / name).string() + " has changed since it was written and is written again");
      complete = false;
    }
  }
  return true;
}

void CheckpointWriter::Impl::save_progress() const {
  Json json = Json::object();
  json["version"] = kProgressVersion;
  json["plan"] = plan_hash;
  json["shards"] = hashes;
  if (complete) json["complete"] = true;
  write_file_atomically(partial / kProgress, json.dump(1) + "\n");
}

void CheckpointWriter::Impl::open_destination() {
  const fs::file_status status = fs::symlink_status(destination);
  if (!fs::exists(status)) return;
  const auto exists = [this](const std::string& what) {
    throw Error(ErrorCode::exists, destination.string() + what, "", "choose another destination or remove this one");
  };
  if (!fs::is_directory(status)) exists(" exists and is no folder");
  if (fs::is_empty(destination)) return;
  if (!fs::exists(destination / kProgress) || !load_progress(destination)) exists(" exists and is not empty");
  if (hashes.size() != names.size()) exists(" exists and is incomplete");
  renamed = true;
}

void CheckpointWriter::Impl::open_partial() {
  std::error_code error;
  fs::create_directories(partial, error);
  if (error) throw_io("create", partial, error.value());
  folder_fd = std::make_unique<Folder>(partial);
  if (!folder_fd->lock(lock_wait)) {
    throw Error(ErrorCode::exists, "another process is writing to " + partial.string(), "", "wait for it to end");
  }
  if (!fs::exists(partial)) throw Error(ErrorCode::exists, "another process has just finished " + destination.string());
  bool empty = true;
  for (const auto& entry : fs::directory_iterator(partial)) {
    if (is_temporary(entry.path().filename().string())) {
      fs::remove(entry.path());
    } else {
      empty = false;
    }
  }
  if (empty) return save_progress();
  if (!fs::exists(partial / kProgress) || !load_progress(partial)) {
    throw Error(ErrorCode::exists, partial.string() + " holds an unfinished result of another source or recipe", "",
                "finish that one, or remove the folder to start over");
  }
}

void CheckpointWriter::Impl::check_space() const {
  std::uint64_t left = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    if (hashes.contains(names[i])) continue;
    for (const SafetensorsWriter::Entry& entry : shards[i].entries) left += entry_bytes(entry);
  }
  std::error_code error;
  const fs::space_info space = fs::space(partial, error);
  if (!error && space.available < left) {
    throw Error(ErrorCode::io,
                "not enough space for " + destination.string() + ": " + std::to_string(left) +
                    " bytes are needed and " + std::to_string(space.available) + " are free",
                "", "free some space there or choose another destination");
  }
}

void CheckpointWriter::Impl::write_index() const {
  Json json = Json::object();
  json["metadata"] = {{"total_size", total_size}};
  json["weight_map"] = weight_map;
  write_file_atomically(folder() / kIndex, json.dump(2) + "\n");
}

CheckpointWriter::CheckpointWriter(fs::path destination, std::vector<ShardPlan> shards, std::string plan_hash,
                                   std::chrono::milliseconds lock_wait)
    : impl_(std::make_unique<Impl>()) {
  KEDGE_CHECK(!shards.empty());
  impl_->destination = clean(destination);
  impl_->partial = impl_->destination;
  impl_->partial += ".partial";
  impl_->shards = std::move(shards);
  impl_->plan_hash = std::move(plan_hash);
  impl_->lock_wait = lock_wait;
  impl_->plan();
  try {
    impl_->open();
  } catch (const fs::filesystem_error& error) {
    throw_io("use", error.path1(), error.code().value());
  }
}

CheckpointWriter::~CheckpointWriter() = default;

std::size_t CheckpointWriter::num_shards() const noexcept { return impl_->names.size(); }
const std::string& CheckpointWriter::shard_name(std::size_t shard) const { return impl_->names.at(shard); }
bool CheckpointWriter::is_done(std::size_t shard) const noexcept { return impl_->hashes.contains(impl_->names[shard]); }

void CheckpointWriter::write_shard(std::size_t shard,
                                   const std::function<void(const SafetensorsWriter::Entry&, const Sink&)>& produce,
                                   bool interruptible) {
  KEDGE_CHECK(shard < num_shards() && !is_done(shard));
  const std::string& name = impl_->names[shard];
  // Readers of the Hugging Face libraries ask for this key.
  SafetensorsWriter writer(impl_->partial / name, impl_->shards[shard].entries, {{"format", "pt"}});
  for (const SafetensorsWriter::Entry& entry : writer.order()) {
    if (interruptible) throw_if_interrupted();
    bool written = false;
    produce(entry, [&](const void* data, std::size_t bytes) {
      KEDGE_CHECK(!written);
      writer.write(entry.name, data, bytes);
      written = true;
    });
    KEDGE_CHECK(written);
  }
  writer.finish();
  impl_->hashes[name] = writer.sha256();
  impl_->save_progress();
}

void CheckpointWriter::write_file(const std::string& name, std::string_view content) {
  KEDGE_CHECK(!name.empty() && name.find('/') == std::string::npos && name != kProgress && name != kIndex);
  write_file_atomically(impl_->folder() / name, content);
}

void CheckpointWriter::copy_file(const fs::path& source) {
  write_file(source.filename().string(), read_file(source, kMaxCopyBytes));
}

const fs::path& CheckpointWriter::folder() const noexcept { return impl_->folder(); }
bool CheckpointWriter::is_complete() const noexcept { return impl_->complete; }
bool CheckpointWriter::is_unfinished(const fs::path& destination) {
  std::error_code error;
  return fs::is_regular_file(destination / kProgress, error);
}

void CheckpointWriter::mark_complete() {
  KEDGE_CHECK(impl_->hashes.size() == impl_->names.size());
  impl_->complete = true;
  if (!impl_->renamed) impl_->save_progress();
}

void CheckpointWriter::finish() {
  Impl& impl = *impl_;
  KEDGE_CHECK(impl.hashes.size() == impl.names.size());
  if (impl.names.size() > 1) impl.write_index();
  impl.folder_fd->sync();
  const fs::path parent = impl.destination.has_parent_path() ? impl.destination.parent_path() : fs::path(".");
  if (!impl.renamed) {
    if (::rename(impl.partial.c_str(), impl.destination.c_str()) != 0) {
      const int error = errno;
      if (error == EEXIST || error == ENOTEMPTY || error == ENOTDIR) {
        throw Error(ErrorCode::exists, impl.destination.string() + " has appeared in the meantime", "",
                    "remove it and run the same command again: the finished work is kept in " + impl.partial.string());
      }
      throw_io("create", impl.destination, error);
    }
    Folder(parent).sync();
    impl.renamed = true;
  }
  fs::remove(impl.destination / kProgress);
  impl.folder_fd->sync();
}

}  // namespace kedge
