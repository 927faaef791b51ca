// Shapes, views and owned host memory. Row-major, little-endian. No arithmetic here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace kedge {

using Shape = std::vector<std::int64_t>;

std::int64_t num_elements(const Shape& shape) noexcept;  ///< 1 for rank 0
std::string shape_string(const Shape& shape);            ///< "[2, 24, 256]"

/// Bytes owned by someone else. data may be unaligned (safetensors guarantees nothing).
struct TensorView {
  DType dtype = DType::f32;
  Shape shape;
  const std::byte* data = nullptr;

  std::int64_t size() const noexcept { return num_elements(shape); }
  std::size_t num_bytes() const noexcept { return static_cast<std::size_t>(size()) * dtype_bits(dtype) / 8; }
  /// Slice i of the first dimension.
  TensorView operator[](std::int64_t i) const;
  /// Rows [begin, end) of the first dimension.
  TensorView rows(std::int64_t begin, std::int64_t end) const;
};

/// Uninitialised memory, aligned to 64 bytes; large blocks ask for huge pages. Movable.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);
  Buffer(Buffer&&) noexcept;
  Buffer& operator=(Buffer&&) noexcept;
  ~Buffer();

  std::byte* data() noexcept { return data_; }
  const std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  template <class T> T* as() noexcept { return reinterpret_cast<T*>(data_); }
  template <class T> const T* as() const noexcept { return reinterpret_cast<const T*>(data_); }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);  ///< uninitialised

  DType dtype() const noexcept { return dtype_; }
  const Shape& shape() const noexcept { return shape_; }
  std::int64_t size() const noexcept { return num_elements(shape_); }
  std::size_t num_bytes() const noexcept { return static_cast<std::size_t>(size()) * dtype_bits(dtype_) / 8; }
  template <class T> T* data() noexcept { return buffer_.as<T>(); }
  template <class T> const T* data() const noexcept { return buffer_.as<T>(); }
  TensorView view() const { return {dtype_, shape_, buffer_.data()}; }

 private:
  DType dtype_ = DType::f32;
  Shape shape_{0};
  Buffer buffer_;
};

}  // namespace kedge
