#include "claims/gates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <system_error>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "claims/tracks.h"
#include "claims/verify_summary.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using Failures = std::vector<std::string>;

struct Evidence {
  const Bundle& bundle;
  const BundleVerdicts& verdicts;
  const GateOptions& options;
  const std::vector<Claim>& claims() const { return bundle.protocol().claims; }
};

std::string content_of(const fs::path& file, Failures& failures) {
  try {
    return read_file(file);
  } catch (const Error& error) {
    failures.push_back(error.what());
    return {};
  }
}

// Which of its terms a claim has changed, in words.
std::string changed_terms(const Claim& bundled, const Claim& registered) {
  std::string out;
  const auto add = [&](const char* name, const std::string& a, const std::string& b) {
    if (a != b) out += fmt::format("; {} is {} in the bundle and {} where it is registered", name, a, b);
  };
  add("threshold", fmt::format("{}", bundled.threshold), fmt::format("{}", registered.threshold));
  add("refuted_at", fmt::format("{}", bundled.refuted_at), fmt::format("{}", registered.refuted_at));
  add("relation", relation_name(bundled.relation), relation_name(registered.relation));
  add("confidence", fmt::format("{}", bundled.confidence), fmt::format("{}", registered.confidence));
  add("n", std::to_string(bundled.full.n), std::to_string(registered.full.n));
  return out;
}

void compare_with_registered(const Evidence& e, Failures& failures) {
  const std::vector<Claim> registered = read_claims(e.options.claims);
  for (const Claim& claim : e.claims()) {
    const auto at = std::find_if(registered.begin(), registered.end(),
                                 [&](const Claim& other) { return other.name == claim.name; });
    if (at == registered.end()) {
      failures.push_back(
          fmt::format("claim {} is in the bundle and not registered in {}", claim.name, e.options.claims.string()));
    } else if (at->sha256 != claim.sha256) {
      failures.push_back(fmt::format("claim {} is another one than the one registered in {}{}", claim.name,
                                     e.options.claims.string(), changed_terms(claim, *at)));
    }
  }
  const auto& tracks = e.bundle.protocol().tracks;
  for (const Claim& claim : registered) {
    const bool asked = tracks.empty() || std::find(tracks.begin(), tracks.end(), claim.track) != tracks.end();
    if (asked && e.bundle.protocol().find(claim.name) == nullptr) {
      failures.push_back(
          fmt::format("claim {} is registered in {} and not in the bundle", claim.name, e.options.claims.string()));
    }
  }
}

Failures registered(const Evidence& e) {
  Failures failures;
  const Protocol& protocol = e.bundle.protocol();
  const auto& hashes = e.bundle.registered.claim_hashes;
  for (std::size_t i = 0; i < protocol.claims.size(); ++i) {
    if (protocol.claims[i].sha256 != hashes[i].second) {
      failures.push_back(fmt::format("claim {} was edited after it was registered: protocol.json has another hash",
                                     protocol.claims[i].name));
    }
  }
  const std::string sha256 = protocol.sha256();
  if (sha256 != e.bundle.registered.sha256) {
    failures.push_back("the protocol was edited after it was registered: its claims do not give the hash it names");
  }
  for (const Claim& claim : protocol.claims) {
    const ClaimRecord* record = e.bundle.record_of(claim);
    if (record == nullptr) continue;
    if (record->claim_sha256 != claim.sha256) {
      failures.push_back(fmt::format("claim {} was edited after its run: its record is of another text", claim.name));
    }
    if (record->protocol_sha256 != sha256) {
      failures.push_back(fmt::format("the record of claim {} belongs to another protocol", claim.name));
    }
  }
  if (!e.options.claims.empty()) compare_with_registered(e, failures);
  return failures;
}

bool may_miss(const Claim& claim) {
  for (const TrackRow& row : verify_tracks()) {
    const bool same = claim.track == row.track && (claim.subject.empty() || claim.subject == row.subject);
    if (same && (row.missing != nullptr || row.needs_torch)) return true;
  }
  return false;
}

Failures reached(const Evidence& e) {
  Failures failures;
  for (const Claim& claim : e.claims()) {
    const ClaimRecord* record = e.bundle.record_of(claim);
    if (record == nullptr) {
      failures.push_back(fmt::format("claim {} has no record", claim.name));
    } else if (!record->ran) {
      if (e.options.allow_not_run && record->missing_subject && may_miss(claim)) continue;
      failures.push_back(fmt::format("claim {} was not run: {}", claim.name, record->reason));
    }
  }
  for (const auto& [name, record] : e.bundle.records) {
    if (e.bundle.protocol().find(name) == nullptr || record.claim != name) {
      failures.push_back(fmt::format("records/{}.json is the record of no registered claim", name));
    }
  }
  return failures;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return text;
}

// The path of the first value that says that something was skipped, at any depth; empty: none does.
std::string find_skip(const Json& json, const std::string& path) {
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) {
      const bool empty = value.is_null() || value == false || value == 0 || value == "" ||
                         ((value.is_array() || value.is_object()) && value.empty());
      if (lower(key).find("skip") != std::string::npos && !empty) return path + "/" + key;
      if (std::string found = find_skip(value, path + "/" + key); !found.empty()) return found;
    }
  } else if (json.is_array()) {
    for (std::size_t i = 0; i < json.size(); ++i) {
      if (std::string found = find_skip(json[i], fmt::format("{}/{}", path, i)); !found.empty()) return found;
    }
  } else if (json.is_string()) {
    const std::string text = lower(json.get<std::string>());
    if (text == "skip" || text == "skipped" || text.starts_with("--- skip")) return path;
  }
  return {};
}

void check_clusters(const Claim& claim, const ClaimSize& size, const ClaimRecord& record, Failures& failures) {
  std::map<std::int64_t, std::int64_t> clusters;
  for (const ClaimSample& sample : record.samples) clusters[sample.cluster] += 1;
  if (size.windows > 0) {
    const bool full = std::all_of(clusters.begin(), clusters.end(),
                                  [&](const auto& cluster) { return cluster.second == size.n / size.windows; });
    if (static_cast<std::int64_t>(clusters.size()) != size.windows || !full) {
      failures.push_back(fmt::format("claim {} registered {} windows of {} pairs and its record has {} windows",
                                     claim.name, size.windows, size.n / size.windows, clusters.size()));
    }
    return;
  }
  for (const std::uint64_t seed : size.seeds) {
    const std::string ending = fmt::format("seed {}", seed);
    const auto count = std::count_if(record.samples.begin(), record.samples.end(),
                                     [&](const ClaimSample& sample) { return sample.label.ends_with(ending); });
    if (count == 0) {
      failures.push_back(fmt::format("claim {} registered the seed {}, of which there is no sample", claim.name, seed));
    } else if (count * static_cast<std::int64_t>(size.seeds.size()) != size.n) {
      failures.push_back(fmt::format("claim {} has {} samples of the seed {}, of {} in {} seeds", claim.name, count,
                                     seed, size.n, size.seeds.size()));
    }
  }
}

void check_samples(const Claim& claim, const ClaimSize& size, const ClaimRecord& record, Failures& failures) {
  if (static_cast<std::int64_t>(record.samples.size()) != size.n) {
    failures.push_back(
        fmt::format("claim {} registered {} samples and its record has {}", claim.name, size.n, record.samples.size()));
  }
  std::set<std::string> labels;
  for (const ClaimSample& sample : record.samples) {
    if (!labels.insert(sample.label).second) {
      failures.push_back(fmt::format("claim {} has the sample \"{}\" twice", claim.name, sample.label));
    }
    for (const std::string& name : sample_values(claim)) {
      const auto at = sample.values.find(name);
      if (at == sample.values.end() || !std::isfinite(at->second)) {
        failures.push_back(fmt::format("claim {}, sample \"{}\": there is no {}", claim.name, sample.label, name));
      }
    }
    if (lower(sample.label).find("skip") != std::string::npos) {
      failures.push_back(fmt::format("claim {}, sample \"{}\" was skipped", claim.name, sample.label));
    }
  }
}

Failures complete(const Evidence& e) {
  Failures failures;
  for (const Claim& claim : e.claims()) {
    const ClaimRecord* record = e.bundle.record_of(claim);
    if (record == nullptr || !record->ran) continue;
    const ClaimSize& size = e.bundle.protocol().size(claim);
    check_samples(claim, size, *record, failures);
    check_clusters(claim, size, *record, failures);
    if (std::string at = find_skip(Json::parse(record->details), "details"); !at.empty()) {
      failures.push_back(fmt::format("claim {} skipped something: its record says so at {}", claim.name, at));
    }
    for (const Artifact& artifact : record->artifacts) {
      if (!artifact.path.ends_with(".json") || artifact.path.find("..") != std::string::npos) continue;
      try {
        const std::string at = find_skip(read_json(e.bundle.folder / artifact.path), artifact.path);
        if (!at.empty()) failures.push_back(fmt::format("claim {} skipped something: {}", claim.name, at));
      } catch (const Error& error) {
        failures.push_back(error.what());
      }
    }
  }
  return failures;
}

bool same_number(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

bool same_estimate(const Estimate& a, const Estimate& b) {
  return same_number(a.effect, b.effect) && same_number(a.low, b.low) && same_number(a.high, b.high) &&
         same_number(a.scale_error, b.scale_error) && same_number(a.p_upheld, b.p_upheld) &&
         same_number(a.p_refuted, b.p_refuted) && a.n == b.n && a.clusters == b.clusters;
}

void compare_file(const Evidence& e, const std::string& path, const std::string& expected, Failures& failures) {
  const std::string found = content_of(e.bundle.folder / path, failures);
  if (!found.empty() && found != expected) {
    failures.push_back(fmt::format("{} is not what the records give", path));
  }
}

Failures figures(const Evidence& e) {
  Failures failures;
  for (std::size_t i = 0; i < e.claims().size(); ++i) {
    const Claim& claim = e.claims()[i];
    const ClaimRecord* record = e.bundle.record_of(claim);
    if (record == nullptr || !record->ran) continue;
    const Estimate& anew = *e.verdicts.estimates[i];
    if (!same_estimate(anew, record->estimate)) {
      failures.push_back(fmt::format("claim {}: the record says {}, its samples give {}", claim.name,
                                     measured_text(claim, record->estimate), measured_text(claim, anew)));
    }
    for (const Artifact& artifact : record->artifacts) {
      const std::string text = content_of(e.bundle.folder / artifact.path, failures);
      if (!text.empty() && sha256_hex(text) != artifact.sha256) {
        failures.push_back(fmt::format("{} is not the file that claim {} was taken from", artifact.path, claim.name));
      }
    }
  }
  for (const auto& [path, text] : derived_files(e.bundle, e.verdicts)) compare_file(e, path, text, failures);
  return failures;
}

Failures thresholds(const Evidence& e) {
  Failures failures;
  for (std::size_t i = 0; i < e.claims().size(); ++i) {
    const Claim& claim = e.claims()[i];
    const Verdict verdict = e.verdicts.judgements[i].verdict;
    if (!claim.must_be_upheld || verdict == Verdict::upheld || verdict == Verdict::not_run) continue;
    failures.push_back(fmt::format("claim {} is {}: {} was measured and {} is required", claim.name,
                                   verdict_name(verdict), measured_text(claim, *e.verdicts.estimates[i]),
                                   required_text(claim)));
  }
  return failures;
}

Failures fresh(const Evidence& e) {
  Failures failures;
  const Protocol& protocol = e.bundle.protocol();
  const Json env = e.bundle.env.empty() ? Json::object() : Json::parse(e.bundle.env);
  const std::string finished = env.value("finished", "");
  if (env.value("run_id", "") != protocol.run_id) failures.push_back("env.json is of another run");
  if (finished.empty()) failures.push_back("env.json does not say when the run ended: it was not finished");
  std::map<std::pair<std::string, std::string>, std::string> inputs;  ///< role and path -> hash
  for (const auto& [name, record] : e.bundle.records) {
    const Json provenance = Json::parse(record.provenance);
    const std::string date = provenance.value("date", "");
    if (record.run_id != protocol.run_id) {
      failures.push_back(fmt::format("records/{}.json is stale: it is of the run {}, this is {}", name, record.run_id,
                                     protocol.run_id));
    }
    if (date < protocol.started || date > finished) {
      failures.push_back(fmt::format("records/{}.json is of {}, the run went from {} to {}", name,
                                     date.empty() ? "no time" : date, protocol.started, finished));
    }
    if (provenance.value("git_hash", "") != protocol.git_hash) {
      failures.push_back(fmt::format("records/{}.json was made by git {}, the run by {}", name,
                                     provenance.value("git_hash", "?"), protocol.git_hash));
    }
    for (const Json& input : provenance.value("inputs", Json::array())) {
      const auto [at, added] =
          inputs.emplace(std::pair(input.value("role", ""), input.value("path", "")), input.value("sha256", ""));
      if (!added && at->second != input.value("sha256", "")) {
        failures.push_back(
            fmt::format("{} changed during the run: records have different hashes of it", at->first.second));
      }
    }
  }
  return failures;
}

Failures logs(const Evidence& e) {
  Failures failures;
  std::map<std::string, std::string> texts;
  for (const Claim& claim : e.claims()) {
    const ClaimRecord* record = e.bundle.record_of(claim);
    if (record == nullptr || !record->ran) continue;
    const std::string path = "logs/" + claim.track + ".log";
    if (!texts.contains(path)) {
      texts[path] = content_of(e.bundle.folder / path, failures);
      if (texts[path].empty())
        failures.push_back(fmt::format("track {} printed nothing: {} is empty", claim.track, path));
      else if (texts[path].find("track " + claim.track + ": finished\n") == std::string::npos)
        failures.push_back(fmt::format("track {} did not reach its end: {} does not say so", claim.track, path));
    }
    const std::string line = fmt::format("claim {}: {} samples\n", claim.name, record->samples.size());
    if (texts[path].find(line) == std::string::npos) {
      failures.push_back(
          fmt::format("{} does not say that claim {} gave {} samples", path, claim.name, record->samples.size()));
    }
  }
  return failures;
}

Failures manifest(const Evidence& e) {
  Failures failures = e.bundle.damaged;
  for (std::string& failure : check_manifest(e.bundle.folder)) failures.push_back(std::move(failure));
  return failures;
}

struct GateRow {
  char letter;
  const char* name;
  const char* checks;
  Failures (*check)(const Evidence& evidence);
};

constexpr GateRow kGates[] = {
    {'A', "registered", "Claims, protocol and records have the hashes that were written down before the run.",
     registered},
    {'B', "reached", "Every registered claim was measured, and every record is of a registered claim.", reached},
    {'C', "complete", "Every sample that was registered is there, and nothing was skipped, at any depth.", complete},
    {'D', "figures", "Estimates, verdicts, tables and the page are what the samples give.", figures},
    {'E', "thresholds", "Claims that must be upheld are.", thresholds},
    {'F', "fresh", "All records are of this run, of this build, and of the same inputs.", fresh},
    {'G', "logs", "Every track said what it measured, to its end.", logs},
    {'H', "manifest", "Every file is there and has the hash that it had when the bundle was closed.", manifest},
};

std::vector<VerifyGate> parse_gates(const std::string& text) {
  std::vector<VerifyGate> gates;
  try {
    const Json json = parse_json(text, "gates.json");
    for (const Json& gate : json.at("gates")) {
      gates.push_back({gate.at("letter").get<std::string>().at(0), gate.at("name").get<std::string>(),
                       gate.at("checks").get<std::string>(), gate.at("failures").get<std::vector<std::string>>()});
    }
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::bad_file, std::string("gates.json cannot be read: ") + error.what());
  }
  return gates;
}

// What a closed bundle says of its own gates, against what they are now. Gate B's outcome depends on how strictly it is
// asked, and so may differ.
void check_seal(const Evidence& e, std::vector<VerifyGate>& gates) {
  Failures failures;
  const std::string text = content_of(e.bundle.folder / "gates.json", failures);
  if (!text.empty()) {
    try {
      const std::vector<VerifyGate> recorded = parse_gates(text);
      for (const VerifyGate& gate : gates) {
        const auto at = std::find_if(recorded.begin(), recorded.end(),
                                     [&](const VerifyGate& other) { return other.letter == gate.letter; });
        if (at == recorded.end() || (at->passed() && !gate.passed() && gate.letter != 'B')) {
          failures.push_back(fmt::format("gates.json does not say that gate {} failed", gate.letter));
        }
      }
      compare_file(e, "index.html", bundle_page(e.bundle, e.verdicts, recorded), failures);
    } catch (const Error& error) {
      failures.push_back(error.what());
    }
  }
  gates[3].failures.insert(gates[3].failures.end(), failures.begin(), failures.end());
}

}  // namespace

std::vector<VerifyGate> check_gates(const Bundle& bundle, const BundleVerdicts& verdicts, const GateOptions& options) {
  const Evidence evidence{bundle, verdicts, options};
  std::vector<VerifyGate> gates;
  for (const GateRow& row : kGates) {
    gates.push_back({row.letter, row.name, row.checks, {}});
    try {
      gates.back().failures = row.check(evidence);
    } catch (const Json::exception& error) {
      gates.back().failures = {std::string("a JSON file of the bundle is of another shape: ") + error.what()};
    }
  }
  if (options.sealed) check_seal(evidence, gates);
  return gates;
}

std::string gates_json(const std::vector<VerifyGate>& gates) {
  Json rows = Json::array();
  for (const VerifyGate& gate : gates) {
    rows.push_back({{"letter", std::string(1, gate.letter)},
                    {"name", gate.name},
                    {"checks", gate.checks},
                    {"passed", gate.passed()},
                    {"failures", gate.failures}});
  }
  return Json{{"schema", "kedge.verify-gates/1"}, {"gates", std::move(rows)}}.dump(2, ' ', false,
                                                                                   Json::error_handler_t::replace) +
         "\n";
}

}  // namespace kedge
