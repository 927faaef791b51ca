// The formats' constructors, for the table in formats.cc.
#pragma once

#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "io/wire/wire.h"

namespace kedge {

/// quant: the quantization_config. One such pair per format.
bool is_pack_quantized(const nlohmann::ordered_json& quant);
std::unique_ptr<WireFormat> make_pack_quantized(const nlohmann::ordered_json& quant, const std::string& where);
bool is_anchored(const nlohmann::ordered_json& quant);
std::unique_ptr<WireFormat> make_anchored(const nlohmann::ordered_json& quant, const std::string& where);
bool is_int_quantized(const nlohmann::ordered_json& quant);
std::unique_ptr<WireFormat> make_int_quantized(const nlohmann::ordered_json& quant, const std::string& where);

}  // namespace kedge
