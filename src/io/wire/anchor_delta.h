// Expert matrices with a shared anchor (quant/anchor_delta.h) in safetensors files: docs/formats/anchor-delta.md.
//
//   <stack>.anchor         f16 | bf16 | i8 [N, K]     i8: signed codes
//   <stack>.anchor_scale   f16 [N, G]                 i8 anchors only, G = K / g
//   <stack>.delta_packed   i32 [E, N, W]              codes, LSB first; K of them per row, K / 2 where a mask applies
//   <stack>.delta_scale    f16 [E, N, G]
//   <stack>.row_scale      f32 [E, N]                 sphere only
//   <stack>.target_norm    f32 [E, N]                 sphere, where norms are not 1
//   <stack>.mask           u8 [M, N, K / 8]           four bits per four weights, low half first
//   <stack>.mask_id        i32 [E]
// Beside them a manifest per stack, JSON: what is needed to read them, and the SHA-256 of the anchor.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/wire/wire.h"
#include "quant/anchor_delta.h"

namespace kedge::anchor_delta {

/// The tensors of a stack, for SafetensorsWriter.
std::vector<SafetensorsWriter::Entry> entries(std::string_view stack, const StackShape& shape);
/// The bytes of one of them; suffix: ".anchor", ...
std::vector<std::byte> serialize(const AnchorDelta& w, std::string_view suffix);
nlohmann::ordered_json manifest(const AnchorDelta& w);
/// What a manifest says but for the hash. Error(bad_file); `where` names the manifest.
StackShape read_shape(const nlohmann::ordered_json& manifest, const std::string& where);
inline constexpr const char* kFormat = "kedge.anchor-delta/1";
inline constexpr const char* kSuffixes[] = {".anchor",    ".anchor_scale", ".delta_packed", ".delta_scale",
                                            ".row_scale", ".target_norm",  ".mask",         ".mask_id"};

/// Error(bad_file) for a tensor that is missing or of another type or shape, and for everything that check_anchor_delta
/// names; Error(mismatch) for an anchor of another hash than the manifest's.
AnchorDelta read(const TensorLookup& tensors, std::string_view stack, const nlohmann::ordered_json& manifest,
                 const std::string& where);

/// A file of stacks and nothing else; the manifests are in its metadata under "stacks", "format" is
/// "kedge.anchor-delta/1".
void save(const std::filesystem::path& path, const std::map<std::string, const AnchorDelta*>& stacks,
          const std::map<std::string, std::string>& metadata = {});
/// Reads all stacks of a file; tensors that belong to none are left alone.
std::map<std::string, AnchorDelta> load(const std::filesystem::path& path);

/// quantization_config of a model whose experts are such stacks: {"quant_method": "kedge", "format": kFormat, "scheme",
/// "stacks": a manifest per stack, "others": compressed-tensors' quantization_config of the other matrices, or null}.
nlohmann::ordered_json quantization_config(const std::string& scheme, nlohmann::ordered_json stacks,
                                           nlohmann::ordered_json others);

}  // namespace kedge::anchor_delta
