#include "io/idx.h"

#include <limits>
#include <utility>

#include <fmt/format.h>

#include "base/compressed_file.h"
#include "base/hash.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr unsigned char kUnsignedByte = 0x08;
constexpr std::size_t kMagicBytes = 4, kSizeBytes = 4;

[[noreturn]] void bad(const std::string& where, const std::string& what, const std::string& expected) {
  throw Error(ErrorCode::bad_file, where + ": " + what, expected, "download it again");
}

unsigned char byte_at(std::string_view file, std::size_t at) { return static_cast<unsigned char>(file[at]); }

fs::path find_file(const fs::path& folder, const std::string& name) {
  for (const std::string& candidate : {name, name + ".gz"}) {
    std::error_code ignored;
    if (fs::exists(folder / candidate, ignored)) return folder / candidate;
  }
  throw Error(ErrorCode::not_found, folder.string() + " has no " + name + " and no " + name + ".gz",
              "the four files of MNIST", "give the folder that holds them with --data");
}

struct IdxFile {
  std::string where;
  std::string bytes;
  Shape shape;
  std::size_t data_begin = 0;
};

IdxFile read_idx(const fs::path& path) {
  IdxFile file{path.string(), read_data_file(path), {}, 0};
  IdxView view = parse_idx(file.bytes, file.where);
  file.shape = std::move(view.shape);
  file.data_begin = file.bytes.size() - view.elements.size();
  return file;
}

void require_rank(const IdxFile& file, std::size_t rank, const char* content) {
  if (file.shape.size() == rank) return;
  throw Error(ErrorCode::bad_file, fmt::format("{} has the shape {}", file.where, shape_string(file.shape)),
              fmt::format("{} in {} dimension{}", content, rank, rank == 1 ? "" : "s"),
              "see whether the files of images and labels are swapped");
}

}  // namespace

IdxView parse_idx(std::string_view file, const std::string& where) {
  if (file.size() < kMagicBytes || byte_at(file, 0) != 0 || byte_at(file, 1) != 0) {
    bad(where, "this is no IDX file", "two zero bytes, a type and a rank at the start");
  }
  const unsigned char type = byte_at(file, 2);
  const std::size_t rank = byte_at(file, 3);
  if (type != kUnsignedByte) {
    throw Error(ErrorCode::unsupported, fmt::format("{}: elements of the IDX type 0x{:02x}", where, type),
                "unsigned bytes (0x08)");
  }
  if (rank == 0 || rank > kMaxIdxRank) {
    bad(where, fmt::format("{} dimensions", rank), fmt::format("1 to {}", kMaxIdxRank));
  }
  const std::size_t begin = kMagicBytes + rank * kSizeBytes;
  if (file.size() < begin) bad(where, "the file ends within its header", "the sizes of all dimensions");
  IdxView view;
  std::uint64_t elements = 1;
  for (std::size_t d = 0; d < rank; ++d) {
    std::uint64_t size = 0;
    for (std::size_t i = 0; i < kSizeBytes; ++i) size = size << 8 | byte_at(file, kMagicBytes + d * kSizeBytes + i);
    if (size == 0) bad(where, fmt::format("dimension {} is empty", d), "at least one element");
    // The file bounds the product, so that it cannot overflow.
    if (size > file.size() || elements > file.size() / size) {
      bad(where, "the file is smaller than its shape says", "a whole file");
    }
    elements *= size;
    view.shape.push_back(static_cast<std::int64_t>(size));
  }
  if (file.size() - begin != elements) {
    bad(where, fmt::format("{} bytes follow the header of shape {}", file.size() - begin, shape_string(view.shape)),
        fmt::format("{}", elements));
  }
  view.elements = file.substr(begin);
  return view;
}

ImageSet read_mnist(const fs::path& folder, MnistPart part) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(ErrorCode::not_found, "there is no folder " + folder.string(), "a folder with the four files of MNIST");
  }
  const std::string prefix = part == MnistPart::train ? "train" : "t10k";
  IdxFile images = read_idx(find_file(folder, prefix + "-images-idx3-ubyte"));
  IdxFile labels = read_idx(find_file(folder, prefix + "-labels-idx1-ubyte"));
  require_rank(images, 3, "images");
  require_rank(labels, 1, "labels");
  if (images.shape[0] != labels.shape[0]) {
    throw Error(ErrorCode::mismatch,
                fmt::format("{} has {} images and {} has {} labels", images.where, images.shape[0], labels.where,
                            labels.shape[0]),
                "as many labels as images");
  }
  ImageSet set;
  set.count = images.shape[0];
  set.rows = images.shape[1];
  set.cols = images.shape[2];
  set.images = std::move(images.bytes);
  set.images.erase(0, images.data_begin);
  set.labels = labels.bytes.substr(labels.data_begin);
  for (std::int64_t i = 0; i < set.count; ++i) {
    if (set.label(i) < kMnistClasses) continue;
    bad(labels.where, fmt::format("label {} is {}", i, set.label(i)), "digits from 0 to 9");
  }
  Sha256 hash;
  hash.update(set.images);
  hash.update(set.labels);
  set.content_hash = hash.hex();
  return set;
}

}  // namespace kedge
