#include "tensor/tensor.h"

#include <sys/mman.h>

#include <cstdlib>
#include <limits>
#include <new>
#include <utility>

#include "base/check.h"

namespace kedge {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Bytes of one slice of the first dimension; it must be whole (types below 8 bits).
std::size_t slice_bytes(const TensorView& view) {
  KEDGE_CHECK(!view.shape.empty());
  std::int64_t elements = 1;
  for (std::size_t i = 1; i < view.shape.size(); ++i) elements *= view.shape[i];
  const std::int64_t bits = elements * dtype_bits(view.dtype);
  KEDGE_CHECK(bits % 8 == 0);
  return static_cast<std::size_t>(bits / 8);
}

std::size_t checked_bytes(DType dtype, const Shape& shape) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / 64;
  std::int64_t elements = 1;
  for (std::int64_t dimension : shape) {
    KEDGE_CHECK(dimension >= 0);
    if (dimension > 0 && elements > kMost / dimension) throw std::bad_alloc();
    elements *= dimension;
  }
  return (static_cast<std::size_t>(elements) * static_cast<std::size_t>(dtype_bits(dtype)) + 7) / 8;
}

}  // namespace

std::int64_t num_elements(const Shape& shape) noexcept {
  std::int64_t count = 1;
  for (std::int64_t dimension : shape) count *= dimension;
  return count;
}

std::string shape_string(const Shape& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

TensorView TensorView::operator[](std::int64_t i) const {
  KEDGE_CHECK(!shape.empty() && i >= 0 && i < shape[0]);
  return {dtype, Shape(shape.begin() + 1, shape.end()), data + static_cast<std::size_t>(i) * slice_bytes(*this)};
}

TensorView TensorView::rows(std::int64_t begin, std::int64_t end) const {
  KEDGE_CHECK(!shape.empty() && begin >= 0 && begin <= end && end <= shape[0]);
  TensorView part{dtype, shape, data + static_cast<std::size_t>(begin) * slice_bytes(*this)};
  part.shape[0] = end - begin;
  return part;
}

Buffer::Buffer(std::size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  if (bytes > std::numeric_limits<std::size_t>::max() - alignment) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment));
  if (data_ == nullptr) throw std::bad_alloc();
  if (alignment == kHugePage) ::madvise(data_, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // a hint: may fail
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    std::free(data_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

Buffer::~Buffer() { std::free(data_); }

Tensor::Tensor(DType dtype, Shape shape)
    : dtype_(dtype), shape_(std::move(shape)), buffer_(checked_bytes(dtype, shape_)) {}

}  // namespace kedge
