#include "ptq/module_quantizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/interrupt.h"
#include "io/wire/wire.h"

namespace kedge {
namespace {

// Packed results of at most this many weights wait in memory (half a byte each at 4 bits).
constexpr std::int64_t kWindowWeights = std::int64_t{1} << 25;
// A task's share; each thread needs about 6 bytes of scratch per weight of it.
constexpr std::int64_t kSliceWeights = std::int64_t{1} << 20;
// Zero points are packed along rows: 32 rows fill whole words at every bit width.
constexpr std::int64_t kRowStep = 32;

constexpr std::string_view kPackedSuffix = ".weight_packed";
constexpr std::string_view kShapeSuffix = ".weight_shape";

std::vector<std::byte> shape_bytes(const LinearRef& linear) {
  const std::int64_t shape[2] = {linear.rows, linear.cols};
  std::vector<std::byte> bytes(sizeof shape);
  std::memcpy(bytes.data(), shape, sizeof shape);
  return bytes;
}

const QuantMethod& data_free_method(const Recipe& recipe) {
  const QuantMethod& method = find_quant_method(recipe.method);
  return method.needs == MethodNeeds::nothing ? method : find_quant_method("rtn");
}

}  // namespace

// Rows [begin, end) of one module.
struct ModuleQuantizer::Slice {
  std::size_t module = 0;
  TensorView weight;
  std::int64_t begin = 0, end = 0;
  bool last = false;
  std::vector<std::pair<std::string_view, std::span<std::byte>>> targets;  ///< suffix, whole tensor
  ModuleError error;
};

ModuleQuantizer::ModuleQuantizer(const Checkpoint& checkpoint, const QuantPlan& plan, const Recipe& recipe,
                                 ThreadPool& threads, std::function<void(std::int64_t)> progress)
    : checkpoint_(checkpoint),
      plan_(plan),
      method_(data_free_method(recipe)),
      parameters_(recipe.parameters),
      threads_(threads),
      progress_(std::move(progress)),
      done_(plan.modules.size(), false),
      errors_(plan.modules.size()) {}

void ModuleQuantizer::begin(const std::vector<SafetensorsWriter::Entry>& entries) {
  KEDGE_CHECK(ready_.empty());
  queue_.clear();
  for (const auto& entry : entries) {
    if (!entry.name.ends_with(kPackedSuffix)) continue;
    const auto at = plan_.module_of.find(entry.name);
    if (at != plan_.module_of.end()) queue_.push_back(at->second);
  }
  // The writer's order among tensors of one element size is by name.
  std::sort(queue_.begin(), queue_.end(), [&](std::size_t a, std::size_t b) {
    return plan_.modules[a].linear.module + std::string(kPackedSuffix) <
           plan_.modules[b].linear.module + std::string(kPackedSuffix);
  });
}

std::vector<std::byte> ModuleQuantizer::bytes(const SafetensorsWriter::Entry& entry) {
  const std::size_t module = plan_.module_of.at(entry.name);
  if (entry.name.ends_with(kShapeSuffix)) return shape_bytes(plan_.modules[module].linear);
  if (!done_[module]) {
    const auto at = std::find(queue_.begin(), queue_.end(), module);
    KEDGE_CHECK(at != queue_.end());
    compute(static_cast<std::size_t>(at - queue_.begin()));
  }
  auto node = ready_.extract(entry.name);
  KEDGE_CHECK(!node.empty());
  return std::move(node.mapped());
}

void ModuleQuantizer::measure() {
  keep_bytes_ = false;
  for (std::size_t i = 0; i < queue_.size(); ++i) {
    if (!done_[queue_[i]]) compute(i);
  }
  keep_bytes_ = true;
}

// Quantizes the window of modules that starts at queue_[first].
void ModuleQuantizer::compute(std::size_t first) {
  throw_if_interrupted();
  std::vector<Slice> slices;
  std::vector<std::size_t> window;
  std::int64_t weights = 0;
  for (std::size_t i = first; i < queue_.size(); ++i) {
    const std::size_t index = queue_[i];
    if (done_[index]) continue;
    const PlannedModule& module = plan_.modules[index];
    const std::int64_t rows = module.linear.rows, cols = module.linear.cols;
    if (!window.empty() && weights + rows * cols > kWindowWeights) break;
    weights += rows * cols;
    window.push_back(index);

    std::vector<std::pair<std::string_view, std::span<std::byte>>> targets;
    for (const auto& entry :
         compressed_tensors::entries(module.linear.module, *module.args, rows, cols, module.scale_dtype())) {
      if (!keep_bytes_ || entry.name.ends_with(kShapeSuffix)) continue;
      std::vector<std::byte>& bytes = ready_[entry.name];
      bytes.resize(static_cast<std::size_t>(num_elements(entry.shape)) * dtype_bits(entry.dtype) / 8);
      const std::string_view stored = ready_.find(entry.name)->first;
      targets.emplace_back(stored.substr(module.linear.module.size()), bytes);
    }
    const TensorView weight = std::get<TensorView>(load_linear(checkpoint_, module.linear));
    const std::int64_t step =
        method_.rows_independent
            ? std::max(kRowStep, kSliceWeights / std::max<std::int64_t>(cols, 1) / kRowStep * kRowStep)
            : std::max<std::int64_t>(rows, 1);
    for (std::int64_t begin = 0; begin < rows; begin += step) {
      const std::int64_t end = std::min(rows, begin + step);
      slices.push_back({index, weight, begin, end, end == rows, targets, {}});
    }
  }

  std::vector<std::vector<float>> scratch(static_cast<std::size_t>(threads_.size()));
  threads_.parallel_for(static_cast<std::int64_t>(slices.size()), 1, [&](std::int64_t a, std::int64_t b, int thread) {
    for (std::int64_t i = a; i < b; ++i) {
      quantize_slice(slices[static_cast<std::size_t>(i)], scratch[static_cast<std::size_t>(thread)]);
    }
  });
  for (const Slice& slice : slices) {
    errors_[slice.module].squared_error += slice.error.squared_error;
    errors_[slice.module].squared_weight += slice.error.squared_weight;
  }
  for (const std::size_t index : window) {
    done_[index] = true;
    checkpoint_.drop(plan_.modules[index].linear.module);
  }
  weights_done_ += weights;
  progress_(weights_done_);
}

void ModuleQuantizer::quantize_slice(Slice& slice, std::vector<float>& scratch) {
  const PlannedModule& module = plan_.modules[slice.module];
  const std::int64_t rows = slice.end - slice.begin, cols = module.linear.cols;
  const auto count = static_cast<std::size_t>(rows * cols);
  scratch.resize(count);
  const TensorView view = slice.weight.rows(slice.begin, slice.end);
  convert_to_float(view.dtype, view.data, rows * cols, scratch.data());
  const std::span<const float> weights(scratch.data(), count);
  check_finite(weights, module.linear.module);

  const QuantTensor quantized = method_.quantize({weights, rows, cols, *module.args, module.scale_dtype(), nullptr, &parameters_});
  for (auto& [suffix, whole] : slice.targets) {
    const std::vector<std::byte> part = compressed_tensors::serialize(quantized, suffix);
    // All slices but the last have the same number of rows.
    const std::size_t offset =
        slice.last ? whole.size() - part.size() : static_cast<std::size_t>(slice.begin / rows) * part.size();
    KEDGE_CHECK(part.size() <= whole.size() && offset <= whole.size() - part.size());
    std::copy(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  slice.error = module_error(weights, quantized);
}

}  // namespace kedge
