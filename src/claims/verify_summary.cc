#include "claims/verify_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "kedge/error.h"
#include "report/text.h"

namespace kedge {
namespace {

constexpr Verdict kOrder[] = {Verdict::not_run, Verdict::refuted, Verdict::inconclusive, Verdict::upheld};

std::string signed_percent(double share) {
  if (share == 0) return "0";
  return fmt::format("{}{:.1f}", share < 0 ? "−" : "+", std::fabs(100 * share));
}

std::string bare(const Claim& claim, double effect) {
  if (std::isnan(effect)) return "n/a";
  if (claim.effect == Effect::relative_change) return signed_percent(effect);
  return effect < 0 ? "−" + format_number(-effect) : format_number(effect);
}

std::string unit(const Claim& claim) {
  if (claim.effect == Effect::relative_change) return " %";
  return claim.effect == Effect::ratio ? " times" : "";
}

// RFC 4180.
std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string csv_row(const std::vector<std::string>& cells) {
  std::string out;
  for (const std::string& cell : cells) out += (out.empty() ? "" : ",") + csv_cell(cell);
  return out + "\n";
}

// Enough digits that the same double comes back; empty for NaN.
std::string csv_number(double value) { return std::isfinite(value) ? fmt::format("{}", value) : std::string(); }

std::string samples_csv(const Claim& claim, const ClaimRecord& record) {
  const std::vector<std::string> names = sample_values(claim);
  std::vector<std::string> header{"label", "cluster"};
  header.insert(header.end(), names.begin(), names.end());
  std::string out = csv_row(header);
  for (const ClaimSample& sample : record.samples) {
    std::vector<std::string> row{sample.label, std::to_string(sample.cluster)};
    for (const std::string& name : names) {
      const auto at = sample.values.find(name);
      row.push_back(at == sample.values.end() ? "" : csv_number(at->second));
    }
    out += csv_row(row);
  }
  return out;
}

std::string reason_of(const Bundle& bundle, const Claim& claim) {
  const ClaimRecord* record = bundle.record_of(claim);
  if (record == nullptr) return "there is no record of it";
  return record->ran ? std::string() : record->reason;
}

Json claim_json(const Bundle& bundle, const BundleVerdicts& verdicts, std::size_t i) {
  const Claim& claim = bundle.protocol().claims[i];
  const ClaimSize& size = bundle.protocol().size(claim);
  const Judgement& judgement = verdicts.judgements[i];
  const std::optional<Estimate>& e = verdicts.estimates[i];
  return {{"name", claim.name},
          {"verdict", verdict_name(judgement.verdict)},
          {"reason", reason_of(bundle, claim)},
          {"statement", claim.statement},
          {"claimed_by", claim.claimed_by},
          {"source", claim.source},
          {"track", claim.track},
          {"metric", claim.metric},
          {"effect", effect_name(claim.effect)},
          {"baseline", claim.baseline},
          {"test", test_name(claim.test)},
          {"relation", relation_name(claim.relation)},
          {"threshold", claim.threshold},
          {"refuted_at", claim.refuted_at},
          {"confidence", claim.confidence},
          {"family", claim.family},
          {"gate", claim.must_be_upheld ? "upheld" : "verdict"},
          {"n", size.n},
          {"seeds", size.seeds},
          {"windows", size.windows},
          {"sha256", claim.sha256},
          {"record", "records/" + claim.name + ".json"},
          {"estimate", e ? estimate_json(*e) : Json(nullptr)},
          {"p_upheld", judgement.p_upheld},
          {"p_refuted", judgement.p_refuted},
          {"measured", e ? measured_text(claim, *e) : ""},
          {"required", required_text(claim)}};
}

Json summary_json(const Bundle& bundle, const BundleVerdicts& verdicts) {
  const Protocol& protocol = bundle.protocol();
  Json counts = Json::object(), claims = Json::array();
  for (const Verdict verdict : kOrder) {
    counts[verdict_name(verdict)] = std::count_if(verdicts.judgements.begin(), verdicts.judgements.end(),
                                                  [&](const Judgement& j) { return j.verdict == verdict; });
  }
  for (const std::size_t i : reading_order(bundle, verdicts)) claims.push_back(claim_json(bundle, verdicts, i));
  Json env = bundle.env.empty() ? Json::object() : Json::parse(bundle.env);
  env.erase("command_line");  // env.json has it; a summary is for others' eyes, and paths are nobody's figures
  return {{"schema", "kedge.verify/1"},
          {"provenance", std::move(env)},
          {"config",
           {{"profile", protocol.profile},
            {"tracks", protocol.tracks},
            {"run_id", protocol.run_id},
            {"started", protocol.started},
            {"protocol_sha256", protocol.sha256()}}},
          {"results", {{"verdicts", std::move(counts)}, {"claims", std::move(claims)}}},
          {"samples", Json::array()}};
}

std::string claims_csv(const Json& summary) {
  std::string out = csv_row({"claim", "track", "claimed_by", "record", "sha256", "verdict", "effect", "low", "high",
                             "n", "relation", "threshold", "refuted_at", "p_upheld", "p_refuted", "gate"});
  const auto number = [](const Json& value) {
    return value.is_number() ? csv_number(value.get<double>()) : std::string();
  };
  for (const Json& claim : summary.at("results").at("claims")) {
    const Json& e = claim.at("estimate");
    const auto of = [&](const char* key) { return e.is_null() ? std::string() : number(e.at(key)); };
    const auto text = [&](const char* key) { return claim.at(key).get<std::string>(); };
    out += csv_row({text("name"), text("track"), text("claimed_by"), text("record"), text("sha256"), text("verdict"),
                    of("effect"), of("low"), of("high"), of("n"), text("relation"), number(claim.at("threshold")),
                    number(claim.at("refuted_at")), number(claim.at("p_upheld")), number(claim.at("p_refuted")),
                    text("gate")});
  }
  return out;
}

std::string markdown_cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c == '\n' ? ' ' : c);
  return out;
}

std::string text_of(const Json& object, const char* key) { return object.at(key).get<std::string>(); }

std::string verdict_table(const Json& summary) {
  std::string out = "| verdict | claim | of | measured | required | n |\n|---|---|---|---|---|---:|\n";
  for (const Json& claim : summary.at("results").at("claims")) {
    const bool ran = !claim.at("estimate").is_null();
    const std::int64_t n = ran ? claim.at("estimate").at("n").get<std::int64_t>() : 0;
    const std::string label = text_of(claim, "verdict");
    out += fmt::format("| {} | {} (`{}`, {}) | {} | {} | {} | {} |\n", label == "upheld" ? label : "**" + label + "**",
                       markdown_cell(text_of(claim, "statement")), text_of(claim, "name"), text_of(claim, "track"),
                       markdown_cell(text_of(claim, "claimed_by")),
                       markdown_cell(ran ? text_of(claim, "measured") : text_of(claim, "reason")),
                       markdown_cell(text_of(claim, "required")), ran ? std::to_string(n) : "");
  }
  return out;
}

std::string list_of(const Json& summary, bool proven) {
  std::string out;
  for (const Json& claim : summary.at("results").at("claims")) {
    const std::string verdict = text_of(claim, "verdict");
    if ((verdict == "upheld") != proven) continue;
    const std::string why = claim.at("estimate").is_null() ? text_of(claim, "reason") : text_of(claim, "measured");
    out += fmt::format("- {}{}: {}\n", proven ? "" : verdict + ": ", text_of(claim, "statement"), why);
  }
  return out.empty() ? "- nothing\n" : out;
}

// What a reader asks before a figure is published, answered by the run itself.
std::string checklist(const Bundle& bundle, const Json& summary) {
  const Json env = summary.at("provenance");
  const std::string git = env.value("git_hash", "unknown");
  bool timed_often = true, load_known = false;
  double load = 0;
  for (const Claim& claim : bundle.protocol().claims) {
    const ClaimSize& size = bundle.protocol().size(claim);
    if (size.windows > 0 && (size.n < 10 || size.windows < 3)) timed_often = false;
  }
  const Json machine = env.value("machine", Json::object());
  if (machine.contains("before") && machine["before"].value("load_average", Json()).is_array()) {
    load_known = true;
    load = machine["before"]["load_average"][0].get<double>();
  }
  const std::pair<const char*, bool> rows[] = {
      {"every registered claim was measured", summary.at("results").at("verdicts").at("not run") == 0},
      {"the program was built from a commit without local changes",
       git != "unknown" && git.find("dirty") == std::string::npos},
      {"the program is a release build", env.value("build_type", "") == "Release"},
      {"timings have ten pairs or more, in three windows or more", timed_often},
      {"the machine was idle when the run began (load below 0.5)", load_known && load < 0.5},
      {"all tracks were run", bundle.protocol().tracks.empty()},
      {"the full profile was run", bundle.protocol().profile == "full"}};
  std::string out;
  for (const auto& [what, yes] : rows) out += fmt::format("- [{}] {}\n", yes ? "x" : " ", what);
  return out;
}

std::string summary_markdown(const Bundle& bundle, const Json& summary) {
  return "# Evidence\n\n" + run_sentence(summary) + " " + counts_sentence(summary) + ".\n\n" + verdict_table(summary) +
         "\n## Proven\n\n" + list_of(summary, true) + "\n## Not proven\n\n" + list_of(summary, false) +
         "\n## Before publishing\n\n" + checklist(bundle, summary) +
         "\nThe gates' outcome is in gates.json; `kedge verify --check` computes all of this again.\n";
}

}  // namespace

std::string counts_sentence(const Json& summary) {
  std::string out;
  for (const auto& [verdict, count] : summary.at("results").at("verdicts").items()) {
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", count.get<std::int64_t>(), verdict);
  }
  return out;
}

std::string run_sentence(const Json& summary) {
  const Json& config = summary.at("config");
  const Json& env = summary.at("provenance");
  std::string tracks;
  for (const Json& track : config.at("tracks")) tracks += (tracks.empty() ? "" : ", ") + track.get<std::string>();
  return fmt::format("Profile {}, {}; kedge {} (git {}), {}; {}, {}, {} threads.", text_of(config, "profile"),
                     tracks.empty() ? "all tracks" : "tracks " + tracks + " only", env.value("kedge_version", "?"),
                     env.value("git_hash", "?"), text_of(config, "started"), env.value("cpu", "?"),
                     env.value("isa", "?"), env.value("threads", std::int64_t{0}));
}

Json parse_summary(const std::string& text) {
  Json summary = parse_json(text, "the summary");
  if (!summary.is_object() || summary.value("schema", Json()) != "kedge.verify/1") {
    throw Error(ErrorCode::bad_file, "the summary is none of kedge verify", "kedge.verify/1");
  }
  return summary;
}

std::string effect_text(const Claim& claim, double effect) {
  return std::isnan(effect) ? "n/a" : bare(claim, effect) + unit(claim);
}

std::string measured_text(const Claim& claim, const Estimate& e) {
  if (claim.test == ClaimTest::every) {
    return (claim.relation == Relation::at_most ? "at most " : "at least ") + effect_text(claim, e.effect);
  }
  if (std::isnan(e.low)) return effect_text(claim, e.effect);
  return fmt::format("{} [{}, {}]", effect_text(claim, e.effect), bare(claim, e.low), bare(claim, e.high));
}

std::string required_text(const Claim& claim) {
  const bool most = claim.relation == Relation::at_most;
  std::string out = (most ? "≤ " : "≥ ") + effect_text(claim, claim.threshold);
  if (claim.refuted_at != claim.threshold) {
    out += fmt::format(", refuted {} {}", most ? "above" : "below", effect_text(claim, claim.refuted_at));
  }
  return out;
}

std::vector<std::size_t> reading_order(const Bundle& bundle, const BundleVerdicts& verdicts) {
  std::vector<std::size_t> order(verdicts.judgements.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const Verdict va = verdicts.judgements[a].verdict, vb = verdicts.judgements[b].verdict;
    const auto& claims = bundle.protocol().claims;
    return va != vb ? va < vb : claims[a].name < claims[b].name;
  });
  return order;
}

std::vector<VerifyClaim> claim_rows(const Bundle& bundle, const BundleVerdicts& verdicts) {
  std::vector<VerifyClaim> rows;
  for (const std::size_t i : reading_order(bundle, verdicts)) {
    const Claim& claim = bundle.protocol().claims[i];
    const std::optional<Estimate>& e = verdicts.estimates[i];
    rows.push_back({claim.name, claim.track, claim.statement, claim.claimed_by,
                    verdict_name(verdicts.judgements[i].verdict),
                    e ? measured_text(claim, *e) : reason_of(bundle, claim), required_text(claim), e ? e->n : 0});
  }
  return rows;
}

std::map<std::string, std::string> derived_files(const Bundle& bundle, const BundleVerdicts& verdicts) {
  std::map<std::string, std::string> out;
  const Json summary = summary_json(bundle, verdicts);
  const std::string text = summary.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  // Read back, so that the texts say what the file says (NaN is null there).
  const Json read = Json::parse(text);
  out["summary.json"] = text;
  out["summary.md"] = summary_markdown(bundle, read);
  out["claims.csv"] = claims_csv(read);
  out["claims.md"] = claims_document(text);
  for (const Claim& claim : bundle.protocol().claims) {
    const ClaimRecord* record = bundle.record_of(claim);
    if (record != nullptr && record->ran) out["csv/" + claim.name + ".csv"] = samples_csv(claim, *record);
  }
  return out;
}

std::string claims_document(const std::string& summary_text) {
  const Json summary = parse_summary(summary_text);
  try {
    std::string out =
        "# Claims and their verdicts\n\n"
        "<!-- Printed by kedge verify from the records of one run; a test compares it with the summary beside it. "
        "-->\n\n";
    out +=
        "What we and others say about this kind of system, each registered in [claims/](../claims) before the run, and "
        "what came of it. How to read and repeat it: [verify.md](verify.md).\n\n";
    out += run_sentence(summary) + " " + counts_sentence(summary) + ".\n\n";
    return out + verdict_table(summary);
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::bad_file, std::string("the summary is none of kedge verify: ") + error.what(),
                "kedge.verify/1");
  }
}

}  // namespace kedge
