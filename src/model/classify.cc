#include "model/classify.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/check.h"
#include "base/interrupt.h"
#include "kedge/error.h"
#include "kernels/softmax/softmax.h"
#include "kernels/vec/math.h"
#include "nn/probe.h"

namespace kedge {
namespace {

double entropy_of(std::span<const float> logits) {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0, weighted = 0;
  for (const float z : logits) {
    const double shifted = static_cast<double>(z) - static_cast<double>(most), p = math::exp(shifted);
    sum += p;
    weighted += p * shifted;
  }
  return math::log(sum) - weighted / sum;
}

class RoutingCollector : public ForwardProbe {
 public:
  explicit RoutingCollector(Answers& answers) : answers_(answers) {}
  unsigned sites() const noexcept override { return static_cast<unsigned>(Site::routing); }
  void routing(int, const RoutingDecision& d) override {
    answers_.top_k = d.top_k;
    answers_.num_experts = d.num_experts;
    answers_.experts.insert(answers_.experts.end(), d.expert_ids.begin(), d.expert_ids.end());
    answers_.gates.insert(answers_.gates.end(), d.weights.begin(), d.weights.end());
    for (std::int64_t t = 0; t < d.tokens; ++t) {
      answers_.entropy.push_back(static_cast<float>(entropy_of(
          d.logits.subspan(static_cast<std::size_t>(t * d.num_experts), static_cast<std::size_t>(d.num_experts)))));
    }
  }

 private:
  Answers& answers_;
};

}  // namespace

void check_images(const ClassifierSpec& spec, const ImageSet& images) {
  if (images.rows != spec.image_size || images.cols != spec.image_size) {
    throw Error(ErrorCode::mismatch, fmt::format("the images have {} x {} pixels", images.rows, images.cols),
                fmt::format("{0} x {0}, which the network takes", spec.image_size));
  }
  if (spec.num_classes < kMnistClasses) {
    throw Error(ErrorCode::mismatch, fmt::format("the network knows {} classes", spec.num_classes),
                fmt::format("at least {}", kMnistClasses));
  }
}

Answers classify(const ExecContext& ctx, const Classifier& classifier, const ImageSet& images, std::int64_t batch) {
  const ClassifierSpec& spec = classifier.spec();
  check_images(spec, images);
  KEDGE_CHECK(ctx.probe == nullptr && batch > 0);
  Answers answers;
  RoutingCollector collector(answers);
  const ExecContext observed{ctx.threads, ctx.scratch, spec.has_moe() ? &collector : nullptr};
  std::vector<float> x(static_cast<std::size_t>(batch * spec.num_inputs()));
  std::vector<float> logits(static_cast<std::size_t>(batch * spec.num_classes));
  std::int64_t right = 0;
  double loss = 0;
  for (std::int64_t begin = 0; begin < images.count; begin += batch) {
    throw_if_interrupted();
    const std::int64_t rows = std::min(batch, images.count - begin);
    normalize_images(spec, images.image(begin), rows, x.data());
    classifier.forward(observed, x.data(), rows, logits.data());
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* z = logits.data() + r * spec.num_classes;
      const auto best = static_cast<int>(std::max_element(z, z + spec.num_classes) - z);
      const int label = images.label(begin + r);
      answers.predicted.push_back(static_cast<std::uint8_t>(best));
      right += best == label ? 1 : 0;
      loss += log_sum_exp(z, spec.num_classes, Isa::scalar) - static_cast<double>(z[label]);
    }
  }
  answers.accuracy = static_cast<double>(right) / static_cast<double>(images.count);
  answers.loss = loss / static_cast<double>(images.count);
  return answers;
}

}  // namespace kedge
