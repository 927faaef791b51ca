#include "io/wire/formats.h"

#include <array>

#include "base/json.h"
#include "io/wire/anchor_delta.h"
#include "kedge/error.h"

namespace kedge {
namespace {

struct FormatRow {
  const char* quant_method;
  const char* name;
  bool (*accepts)(const Json& quant);
  std::unique_ptr<WireFormat> (*make)(const Json& quant, const std::string& where);
};

constexpr std::array<FormatRow, 3> kFormats{{
    {"compressed-tensors", "compressed-tensors/pack-quantized", is_pack_quantized, make_pack_quantized},
    {"compressed-tensors", "compressed-tensors/int-quantized", is_int_quantized, make_int_quantized},
    {"kedge", "kedge/anchor-delta", is_anchored, make_anchored},
}};

std::string text_of(const Json& quant, const char* key) {
  const auto it = quant.find(key);
  if (it == quant.end() || !it->is_string()) return "?";
  return it->get<std::string>().substr(0, 60);
}

}  // namespace

std::unique_ptr<WireFormat> make_wire_format(const Json& config, const std::string& where) {
  const auto it = config.find("quantization_config");
  if (it == config.end() || it->is_null()) return nullptr;
  if (!it->is_object()) throw Error(ErrorCode::bad_file, where + ": quantization_config is no object");
  const std::string method = text_of(*it, "quant_method");
  std::string names;
  for (const FormatRow& row : kFormats) {
    if (method == row.quant_method && row.accepts(*it)) return row.make(*it, where);
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  const std::string format = it->contains("format") ? "/" + text_of(*it, "format") : "";
  throw Error(ErrorCode::unsupported, where + ": kedge cannot read the quantization \"" + method + format + "\"", names,
              "use the unquantized model and quantize it with kedge");
}

}  // namespace kedge
