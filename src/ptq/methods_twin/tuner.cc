#include "ptq/methods_twin/tuner.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include "kedge/error.h"
#include "ptq/methods_twin/layer_tuning.h"

namespace kedge {
namespace {

class TwinTuner : public LayerTuner {
 public:
  explicit TwinTuner(const twin::Options& options) : options_(options) {}

  LayerOutput tune(const LayerInput& input, const HiddenStates& original, const HiddenStates& quantized) override {
    at::set_num_threads(input.threads.size());
    try {
      return LayerTuning(input, original, quantized, options_).run();
    } catch (const c10::OutOfMemoryError&) {
      throw Error(ErrorCode::unsupported, "the GPU has too little memory to tune a layer of this model", "",
                  "choose a smaller --batch-size or --seqlen, or --device cpu");
    }
  }

 private:
  twin::Options options_;
};

class TwinTuners : public LayerTunerFactory {
 public:
  std::unique_ptr<LayerTuner> make(const Recipe& recipe, const CalibrationData&) override {
    twin::Options options;
    options.device = twin::parse_device(recipe.tune.device);
    options.compute_dtype = recipe.tune.compute_dtype == DType::bf16 ? at::kBFloat16 : at::kFloat;
    twin::prefer_repeatable_kernels(options.device);
    return std::make_unique<TwinTuner>(options);
  }
};

}  // namespace

std::unique_ptr<LayerTunerFactory> make_twin_tuners() { return std::make_unique<TwinTuners>(); }

}  // namespace kedge
