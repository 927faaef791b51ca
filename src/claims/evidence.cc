#include "claims/evidence.h"

#include <cmath>
#include <limits>

#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr const char* kSchema = "kedge.verify-record/1";
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double number(const Json& value) { return value.is_null() ? kNaN : value.get<double>(); }

Json values_json(const ClaimSample& sample) {
  Json out = Json::object();
  for (const auto& [name, value] : sample.values) out[name] = value;
  return out;
}

Estimate parse_estimate(const Json& json) {
  Estimate out;
  out.effect = number(json.at("effect")), out.low = number(json.at("low")), out.high = number(json.at("high"));
  out.scale_mean = number(json.at("scale_mean")), out.scale_error = number(json.at("scale_error"));
  out.n = json.at("n").get<std::int64_t>(), out.clusters = json.at("clusters").get<std::int64_t>();
  out.p_upheld = number(json.at("p_upheld")), out.p_refuted = number(json.at("p_refuted"));
  return out;
}

void parse_results(const Json& json, ClaimRecord& out) {
  const Json& config = json.at("config");
  out.claim = config.at("claim").get<std::string>();
  out.claim_sha256 = config.at("claim_sha256").get<std::string>();
  out.protocol_sha256 = config.at("protocol_sha256").get<std::string>();
  out.run_id = config.at("run_id").get<std::string>();
  const Json& results = json.at("results");
  out.ran = results.at("status").get<std::string>() == "ran";
  out.reason = results.at("reason").get<std::string>();
  out.missing_subject = results.at("missing_subject").get<bool>();
  out.estimate = parse_estimate(results.at("estimate"));
  for (const Json& row : results.at("artifacts")) {
    out.artifacts.push_back({row.at("path").get<std::string>(), row.at("sha256").get<std::string>()});
  }
  for (const Json* object : {&results.at("details"), &json.at("provenance"), &results.at("machine")}) {
    if (!object->is_object()) throw Error(ErrorCode::bad_file, "details, provenance and machine are objects");
  }
  constexpr auto kReplace = Json::error_handler_t::replace;
  out.details = results.at("details").dump(-1, ' ', false, kReplace);
  for (const Json& row : json.at("samples")) {
    ClaimSample sample{row.at("label").get<std::string>(), row.at("cluster").get<std::int64_t>(), {}};
    for (const auto& [name, value] : row.at("values").items()) sample.values[name] = number(value);
    out.samples.push_back(std::move(sample));
  }
  out.provenance = json.at("provenance").dump(-1, ' ', false, kReplace);
  out.machine = results.at("machine").dump(-1, ' ', false, kReplace);
}

}  // namespace

Json estimate_json(const Estimate& e) {
  return {{"effect", e.effect},           {"low", e.low}, {"high", e.high},         {"scale_mean", e.scale_mean},
          {"scale_error", e.scale_error}, {"n", e.n},     {"clusters", e.clusters}, {"p_upheld", e.p_upheld},
          {"p_refuted", e.p_refuted}};
}

Json record_json(const ClaimRecord& record) {
  Json artifacts = Json::array(), samples = Json::array();
  for (const Artifact& artifact : record.artifacts) {
    artifacts.push_back({{"path", artifact.path}, {"sha256", artifact.sha256}});
  }
  for (const ClaimSample& sample : record.samples) {
    samples.push_back({{"label", sample.label}, {"cluster", sample.cluster}, {"values", values_json(sample)}});
  }
  return {{"schema", kSchema},
          {"provenance", Json::parse(record.provenance)},
          {"config",
           {{"claim", record.claim},
            {"claim_sha256", record.claim_sha256},
            {"protocol_sha256", record.protocol_sha256},
            {"run_id", record.run_id}}},
          {"results",
           {{"status", record.ran ? "ran" : "not run"},
            {"reason", record.reason},
            {"missing_subject", record.missing_subject},
            {"estimate", estimate_json(record.estimate)},
            {"artifacts", std::move(artifacts)},
            {"details", Json::parse(record.details)},
            {"machine", Json::parse(record.machine)}}},
          {"samples", std::move(samples)}};
}

ClaimRecord parse_record(const Json& json, const std::string& where) {
  try {
    if (json.at("schema").get<std::string>() != kSchema) throw Error(ErrorCode::bad_file, where + " is another file");
    ClaimRecord out;
    parse_results(json, out);
    return out;
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::bad_file, where + " is no record of kedge verify: " + error.what(), kSchema);
  }
}

}  // namespace kedge
