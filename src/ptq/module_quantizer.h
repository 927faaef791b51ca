// Quantizes the modules of a plan, a bounded window of them at a time, and hands out the bytes of their tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "io/checkpoint.h"
#include "ptq/methods.h"
#include "ptq/module_error.h"
#include "ptq/plan.h"

namespace kedge {

class ModuleQuantizer {
 public:
  /// progress is called with the number of weights quantized so far.
  /// The recipe's method; of one that needs data, round to nearest (matrices outside the layers).
  ModuleQuantizer(const Checkpoint& checkpoint, const QuantPlan& plan, const Recipe& recipe, ThreadPool& threads,
                  std::function<void(std::int64_t)> progress);

  /// The quantized modules among `entries`, in the order in which bytes() will be asked for them.
  void begin(const std::vector<SafetensorsWriter::Entry>& entries);
  /// Bytes of one tensor of a quantized module, given away. Computes a window of modules when they are not there yet.
  std::vector<std::byte> bytes(const SafetensorsWriter::Entry& entry);
  /// Quantizes all of begin()'s modules for their errors alone.
  void measure();

  std::vector<ModuleError>& errors() noexcept { return errors_; }  ///< [modules of the plan]

 private:
  struct Slice;
  void compute(std::size_t first);
  void quantize_slice(Slice& slice, std::vector<float>& scratch);

  const Checkpoint& checkpoint_;
  const QuantPlan& plan_;
  const QuantMethod& method_;
  const MethodParameters& parameters_;
  ThreadPool& threads_;
  std::function<void(std::int64_t)> progress_;
  std::vector<std::size_t> queue_;  ///< modules by the name of their tensors
  std::vector<bool> done_;          ///< [modules of the plan]
  std::map<std::string, std::vector<std::byte>, std::less<>> ready_;
  std::vector<ModuleError> errors_;
  std::int64_t weights_done_ = 0;
  bool keep_bytes_ = true;
};

}  // namespace kedge
