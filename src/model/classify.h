// A classifier's answers to a set of images.
#pragma once

#include <cstdint>
#include <vector>

#include "io/idx.h"
#include "model/classifier.h"

namespace kedge {

/// Error(mismatch) when the images or their labels are not what the network takes.
void check_images(const ClassifierSpec& spec, const ImageSet& images);

struct Answers {
  std::vector<std::uint8_t> predicted;  ///< [count]; the lowest class of equal logits
  double accuracy = 0;
  double loss = 0;  ///< mean -ln p of the right class, nats
  // With a MoE layer:
  std::int64_t top_k = 0, num_experts = 0;
  std::vector<std::int32_t> experts;  ///< [count, k]
  std::vector<float> gates;           ///< [count, k]
  std::vector<float> entropy;         ///< [count] of the router's probabilities, nats
};

/// The images in their order, `batch` at a time (which changes no bit). Calls throw_if_interrupted() between batches.
Answers classify(const ExecContext& ctx, const Classifier& classifier, const ImageSet& images,
                 std::int64_t batch = 256);

}  // namespace kedge
