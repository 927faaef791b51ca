#include "claims/claim.h"

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/toml_section.h"
#include "claims/verdict.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxBytes = 1 << 18;
constexpr std::array kEffects = {"value", "difference", "ratio", "relative-change"};
constexpr std::array kTests = {"student-t", "bootstrap", "every"};
constexpr std::array kRelations = {"<=", ">="};
constexpr std::array kGates = {"upheld", "verdict"};

template <std::size_t N>
std::size_t choose(TomlSection& section, const char* key, const std::array<const char*, N>& names) {
  std::string expected;
  for (const char* name : names) expected += (expected.empty() ? "\"" : "\", \"") + std::string(name);
  expected += "\"";
  const TomlValue& value = section.require(key, expected.c_str());
  const std::string given = section.as<std::string>(key, value, "a text");
  const auto at = std::find(names.begin(), names.end(), given);
  if (at == names.end()) section.fail(value.line, fmt::format("\"{}\" is \"{}\"", key, given), "one of " + expected);
  return static_cast<std::size_t>(at - names.begin());
}

std::string required_text(TomlSection& section, const char* key, const char* what) {
  const TomlValue& value = section.require(key, what);
  std::string text = section.as<std::string>(key, value, "a text");
  if (text.empty()) section.fail(value.line, fmt::format("\"{}\" is empty", key), what);
  return text;
}

double required_number(TomlSection& section, const char* key, const char* what) {
  return section.as<double>(key, section.require(key, what), "a number");
}

// n, seeds and windows, at the top or in [quick]; what is not given there is that of the full profile.
ClaimSize read_size(TomlSection& section, const ClaimSize& fallback, bool required) {
  ClaimSize size = fallback;
  if (required) section.require("n", "the number of samples that the run must reach");
  size.n = section.integer("n", fallback.n, 1);
  size.windows = section.integer("windows", fallback.windows, 0);
  if (const TomlValue* seeds = section.find("seeds")) {
    size.seeds.clear();
    for (const TomlValue& item : section.as<TomlArray>("seeds", *seeds, "a list of integers")) {
      const auto seed = section.as<std::int64_t>("seeds", item, "a list of integers");
      if (seed < 0) section.fail(item.line, fmt::format("a seed is {}", seed), "0 or more");
      if (std::find(size.seeds.begin(), size.seeds.end(), static_cast<std::uint64_t>(seed)) != size.seeds.end()) {
        section.fail(item.line, fmt::format("the seed {} stands there twice", seed), "each one once");
      }
      size.seeds.push_back(static_cast<std::uint64_t>(seed));
    }
  }
  if (size.windows > 0 && size.n % size.windows != 0) {
    section.fail(section.line(), fmt::format("n is {} in {} windows", size.n, size.windows), "a multiple of windows");
  }
  return size;
}

void read_threshold(TomlSection& top, Claim& claim) {
  claim.relation = choose(top, "relation", kRelations) == 0 ? Relation::at_most : Relation::at_least;
  claim.threshold = required_number(top, "threshold", "the effect that the claim states");
  claim.refuted_at = required_number(top, "refuted_at", "the effect that would refute the claim");
  const bool opposite =
      claim.relation == Relation::at_most ? claim.refuted_at >= claim.threshold : claim.refuted_at <= claim.threshold;
  if (!opposite) {
    top.fail(top.line(),
             fmt::format("an effect of {} {} upholds the claim and one of {} refutes it", relation_name(claim.relation),
                         claim.threshold, claim.refuted_at),
             "refuted_at equal to threshold, or on the other side of it");
  }
  const bool logarithmic = claim.effect == Effect::ratio || claim.effect == Effect::relative_change;
  const double least = claim.effect == Effect::ratio ? 0 : -1;
  if (logarithmic && (claim.threshold <= least || claim.refuted_at <= least)) {
    top.fail(top.line(), fmt::format("threshold is {} and refuted_at {}", claim.threshold, claim.refuted_at),
             fmt::format("above {} for effect = \"{}\"", least, effect_name(claim.effect)));
  }
  if (const TomlValue* confidence = top.find("confidence")) {
    claim.confidence = top.as<double>("confidence", *confidence, "a number");
    if (!(claim.confidence >= 0.5 && claim.confidence < 1)) {
      top.fail(confidence->line, fmt::format("\"confidence\" is {}", claim.confidence), "0.5 or more, below 1");
    }
  }
}

bool is_file_name(const std::string& name) {
  return !name.empty() && name[0] != '.' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
             std::string::npos;
}

}  // namespace

const char* effect_name(Effect effect) noexcept { return kEffects[static_cast<std::size_t>(effect)]; }
const char* test_name(ClaimTest test) noexcept { return kTests[static_cast<std::size_t>(test)]; }
const char* relation_name(Relation relation) noexcept { return kRelations[static_cast<std::size_t>(relation)]; }

Claim parse_claim(const std::string& text, const fs::path& file) {
  Claim claim;
  claim.name = file.stem().string();
  claim.text = text;
  claim.sha256 = sha256_hex(text);
  claim.file = file;
  const TomlValue root = parse_toml(text, file);
  TomlSection top(claim.file, "the claim", root);
  if (!is_file_name(claim.name)) top.fail(1, "a claim's file has another name", "letters, digits, '-', '_' and '.'");

  claim.statement = required_text(top, "statement", "a sentence that can be false");
  claim.claimed_by = required_text(top, "claimed_by", "whose claim it is");
  claim.source = required_text(top, "source", "where it is claimed");
  claim.track = required_text(top, "track", "a track, such as \"R\"");
  claim.subject = top.text("subject", {});
  claim.metric = required_text(top, "metric", "a metric of the track");
  claim.effect = static_cast<Effect>(choose(top, "effect", kEffects));
  const TomlValue* baseline = top.find("baseline");
  if (baseline != nullptr) claim.baseline = top.as<std::string>("baseline", *baseline, "a text");
  if ((claim.effect == Effect::value) != claim.baseline.empty()) {
    top.fail(top.line(), fmt::format("effect is \"{}\" and baseline \"{}\"", effect_name(claim.effect), claim.baseline),
             "a baseline with every effect but \"value\"");
  }
  claim.test = static_cast<ClaimTest>(choose(top, "test", kTests));
  if (is_confidence_metric(claim.metric) && (claim.test != ClaimTest::bootstrap || claim.effect != Effect::value)) {
    top.fail(top.line(), fmt::format("\"{}\" is a figure of all records together", claim.metric),
             "effect = \"value\" and test = \"bootstrap\"");
  }
  read_threshold(top, claim);
  claim.family = top.text("family", {});
  claim.must_be_upheld = choose(top, "gate", kGates) == 0;
  claim.full = read_size(top, {}, true);
  claim.quick = claim.full;
  if (const TomlValue* quick = top.find("quick")) {
    TomlSection section(claim.file, "[quick]", *quick);
    claim.quick = read_size(section, claim.full, false);
    section.refuse_others();
  }
  const TomlValue* setup = top.find("setup");
  claim.setup = setup == nullptr ? TomlValue{TomlTable{}, 1} : *setup;
  if (!std::holds_alternative<TomlTable>(claim.setup.value)) {
    top.fail(claim.setup.line, fmt::format("\"setup\" is {}", claim.setup.type_name()), "a table, [setup]");
  }
  top.refuse_others();
  return claim;
}

std::vector<Claim> read_claims(const fs::path& file_or_folder) {
  std::vector<fs::path> files;
  std::error_code error;
  if (!fs::is_directory(file_or_folder, error)) {
    files.push_back(file_or_folder);
  } else {
    for (fs::directory_iterator at(file_or_folder, error), end; !error && at != end; at.increment(error)) {
      if (at->path().extension() == ".toml") files.push_back(at->path());
    }
    if (error) throw Error(ErrorCode::io, "cannot read " + file_or_folder.string() + ": " + error.message());
  }
  if (files.empty()) {
    throw Error(ErrorCode::not_found, file_or_folder.string() + " holds no claim", "*.toml, docs/formats/claim.md");
  }
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) { return a.stem() < b.stem(); });
  std::vector<Claim> claims;
  for (const fs::path& file : files) claims.push_back(parse_claim(read_file(file, kMaxBytes), file));
  return claims;
}

}  // namespace kedge
