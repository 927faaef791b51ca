#include "record/envelope.h"

#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"

namespace kedge {

Json make_envelope(std::string_view schema, const Provenance& provenance, Json config, Json results, Json samples) {
  KEDGE_CHECK(schema.starts_with("kedge.") && schema.find('/') != std::string_view::npos);
  KEDGE_CHECK(config.is_object() && results.is_object() && samples.is_array());
  Json envelope = Json::object();
  envelope["schema"] = schema;
  envelope["provenance"] = to_json(provenance);
  envelope["config"] = std::move(config);
  envelope["results"] = std::move(results);
  envelope["samples"] = std::move(samples);
  return envelope;
}

std::string envelope_text(const Json& envelope) {
  return envelope.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
}

void write_envelope(const std::filesystem::path& path, const Json& envelope) {
  write_file_atomically(path, envelope_text(envelope));
}

}  // namespace kedge
