// Results of finished layers in the partial folder, so that a killed run loses one layer at most.
//
// "kedge.layer-00003.safetensors" holds the layer's tensors as the checkpoint will have them (names and bytes of the
// file) and, as metadata, "log", LayerOutput::log, and "stacks", the manifests of its stacks with anchors. They are scratch files: gone when the checkpoint is complete.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "io/wire/wire.h"
#include "model/family.h"
#include "ptq/layers/layer.h"

namespace kedge {

class LayerStore {
 public:
  /// folder: where the checkpoint is being written. config: its config.json, by which the tensors are read back (stacks
  /// by the layers' own manifests).
  LayerStore(const Checkpoint& checkpoint, const QuantPlan& plan, std::filesystem::path folder,
             const nlohmann::ordered_json& config);
  ~LayerStore();

  static std::string file_name(int layer);
  bool has(int layer) const;
  void write(int layer, const LayerOutput& output);
  LayerOutput read(int layer) const;
  std::string log(int layer) const;
  /// The manifests of the layer's stacks; an empty object where there are none.
  nlohmann::ordered_json stacks(int layer) const;

  /// A tensor of any finished layer by its name in the file; a view that lives until close().
  std::optional<TensorView> find(std::string_view tensor) const;

 private:
  const SafetensorsFile& file(int layer) const;
  /// Of a tensor that is replaced: in the source, which may have it under its canonical name, and in the checkpoint,
  /// where modules have the family's names.
  struct Names {
    std::string source, written;
  };
  Names names_of(const std::string& canonical) const;

  const Checkpoint& checkpoint_;
  const QuantPlan& plan_;
  const ModelFamily& family_;
  std::filesystem::path folder_;
  std::unique_ptr<WireFormat> format_;
  mutable std::map<int, SafetensorsFile> files_;
};

}  // namespace kedge
