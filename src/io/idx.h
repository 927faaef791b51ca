// IDX files, in which MNIST comes: bytes in a box of numbers.
//
//   0 0 type rank | rank big-endian u32: the shape | elements, row-major
// Of the types only 0x08, unsigned bytes, is read. A file that is accepted has no missing and no further bytes.
// Source: http://yann.lecun.com/exdb/mnist/ ("the IDX file format").
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "tensor/tensor.h"

namespace kedge {

inline constexpr std::size_t kMaxIdxRank = 8;

struct IdxView {
  Shape shape;                ///< 1 to kMaxIdxRank dimensions, none empty
  std::string_view elements;  ///< unsigned bytes, as many as the shape says
};

/// The elements stay in `file`; `where` names it in errors. Error(bad_file); Error(unsupported) for other types.
IdxView parse_idx(std::string_view file, const std::string& where);

/// The pictures of one part of MNIST with what they show.
struct ImageSet {
  std::int64_t count = 0, rows = 0, cols = 0;
  std::string images;        ///< [count, rows, cols] grey levels, unsigned bytes
  std::string labels;        ///< [count] digits, unsigned bytes 0 .. 9
  std::string content_hash;  ///< SHA-256 over the unpacked images, then the labels

  const unsigned char* image(std::int64_t i) const noexcept {
    return reinterpret_cast<const unsigned char*>(images.data()) + i * rows * cols;
  }
  int label(std::int64_t i) const noexcept { return static_cast<unsigned char>(labels[static_cast<std::size_t>(i)]); }
};

inline constexpr int kMnistClasses = 10;
enum class MnistPart { train, test };

/// FOLDER/{train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz. Error(not_found) names what is missing;
/// Error(bad_file): damaged, images where labels should be or the other way round, a label above 9;
/// Error(mismatch): other numbers of images and labels.
ImageSet read_mnist(const std::filesystem::path& folder, MnistPart part);

}  // namespace kedge
