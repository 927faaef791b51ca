// A checkpoint as a source of weights: canonical names in, the file's names and layouts behind.
#pragma once

#include <string>

#include "model/family.h"
#include "nn/weight_source.h"

namespace kedge {

class CheckpointSource : public WeightSource {
 public:
  /// Both must outlive the source. Error(bad_file) when the checkpoint holds more experts than the spec says.
  CheckpointSource(const Checkpoint& checkpoint, const ModelSpec& spec);

  WeightData weight(const std::string& module, std::int64_t rows, std::int64_t cols) const override;
  std::shared_ptr<const AnchorDelta> stack(const std::string& name) const override;
  std::vector<float> vector(const std::string& name, std::int64_t size) const override;
  void done(const std::string& module) const noexcept override;

 private:
  std::string tensor_name(const std::string& canonical) const;
  const Checkpoint& checkpoint_;
  const ModelFamily& family_;
};

}  // namespace kedge
