// Two bundles: what moved between them, by the claims they share.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <set>

#include "base/json.h"
#include "claims/bundle.h"
#include "claims/verify_summary.h"
#include "kedge/verify.h"
#include "report/table.h"
#include "report/text.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// Degrees of freedom that stand for a normal distribution: of a bootstrap's error.
constexpr double kMany = 1e7;

double degrees(const Claim& claim, const Estimate& e) {
  return claim.test == ClaimTest::student_t ? static_cast<double>(e.clusters - 1) : kMany;
}

// Welch's interval of the difference of two means, in the scale on which errors are symmetric.
void difference(const Claim& claim, const Estimate& a, const Estimate& b, VerifyChange& out) {
  out.relative = claim.effect == Effect::ratio || claim.effect == Effect::relative_change;
  const double d = b.scale_mean - a.scale_mean;
  const auto effect = [&](double value) { return out.relative ? std::expm1(value) : value; };
  out.change = effect(d);
  const double va = a.scale_error * a.scale_error, vb = b.scale_error * b.scale_error;
  const double da = degrees(claim, a), db = degrees(claim, b);
  if (!(va + vb > 0) || !(da >= 1) || !(db >= 1)) return;
  const double df = (va + vb) * (va + vb) / (va * va / da + vb * vb / db);
  const double half = student_t_quantile(0.975, df) * std::sqrt(va + vb);
  out.low = effect(d - half), out.high = effect(d + half);
}

struct Side {
  explicit Side(const std::filesystem::path& folder) : bundle(read_bundle(folder)), verdicts(judge_bundle(bundle)) {}
  std::size_t index(const std::string& name) const {
    const auto& claims = bundle.protocol().claims;
    for (std::size_t i = 0; i < claims.size(); ++i) {
      if (claims[i].name == name) return i;
    }
    return claims.size();
  }
  Bundle bundle;
  BundleVerdicts verdicts;
};

void describe(const Side& side, std::size_t i, std::string& verdict, std::string& effect) {
  const auto& claims = side.bundle.protocol().claims;
  if (i == claims.size()) return;
  verdict = verdict_name(side.verdicts.judgements[i].verdict);
  if (side.verdicts.estimates[i]) effect = measured_text(claims[i], *side.verdicts.estimates[i]);
}

std::string change_text(const VerifyChange& c) {
  if (std::isnan(c.change)) return "";
  const auto text = [&](double v) {
    return c.relative ? fmt::format("{:+.1f} %", 100 * v) : fmt::format("{:+.3g}", v);
  };
  if (std::isnan(c.low)) return text(c.change);
  return fmt::format("{} [{}, {}]{}", text(c.change), text(c.low), text(c.high), c.moved() ? ", moved" : "");
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

}  // namespace

std::vector<VerifyChange> compare_bundles(const std::filesystem::path& a, const std::filesystem::path& b) {
  const Side left(a), right(b);
  std::set<std::string> names;
  for (const Side* side : {&left, &right}) {
    for (const Claim& claim : side->bundle.protocol().claims) names.insert(claim.name);
  }
  std::vector<VerifyChange> out;
  for (const std::string& name : names) {
    VerifyChange change;
    change.name = name;
    change.change = change.low = change.high = kNaN;
    const std::size_t i = left.index(name), j = right.index(name);
    describe(left, i, change.verdict_a, change.effect_a);
    describe(right, j, change.verdict_b, change.effect_b);
    const Claim* one = left.bundle.protocol().find(name);
    const Claim* two = right.bundle.protocol().find(name);
    if (one != nullptr && two != nullptr) {
      // Another threshold changes the verdict, another effect or metric what is compared.
      change.same_claim = one->sha256 == two->sha256;
      const bool comparable = one->effect == two->effect && one->metric == two->metric && one->test == two->test;
      if (comparable && left.verdicts.estimates[i] && right.verdicts.estimates[j]) {
        difference(*one, *left.verdicts.estimates[i], *right.verdicts.estimates[j], change);
      }
    }
    out.push_back(std::move(change));
  }
  return out;
}

std::string compare_text(const std::vector<VerifyChange>& changes) {
  TextTable table({"claim", "verdict", "before", "after", "change"},
                  {Align::left, Align::left, Align::left, Align::left, Align::left});
  for (const VerifyChange& c : changes) {
    const auto word = [](const std::string& verdict) { return verdict.empty() ? std::string("absent") : verdict; };
    std::string verdict = word(c.verdict_a);
    if (c.verdict_a != c.verdict_b) verdict += " -> " + word(c.verdict_b);
    if (!c.same_claim) verdict += " (the claim was edited)";
    table.add_row({c.name, verdict, c.effect_a, c.effect_b, change_text(c)});
  }
  return table.str();
}

std::string compare_json(const std::vector<VerifyChange>& changes) {
  Json out = Json::array();
  for (const VerifyChange& c : changes) {
    out.push_back({{"claim", c.name},
                   {"same_claim", c.same_claim},
                   {"verdict_a", c.verdict_a},
                   {"verdict_b", c.verdict_b},
                   {"effect_a", c.effect_a},
                   {"effect_b", c.effect_b},
                   {"relative", c.relative},
                   {"change", number(c.change)},
                   {"low", number(c.low)},
                   {"high", number(c.high)},
                   {"moved", c.moved()}});
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string verify_text(const VerifyReport& report) {
  TextTable table({"verdict", "claim", "track", "measured", "required", "n"},
                  {Align::left, Align::left, Align::left, Align::left, Align::left, Align::right});
  for (const VerifyClaim& claim : report.claims) {
    table.add_row({claim.verdict, claim.name, claim.track, claim.measured, claim.required,
                   claim.n == 0 ? "" : format_count(claim.n)});
  }
  std::string out = table.str() + "\n";
  for (const VerifyGate& gate : report.gates) {
    out += fmt::format("gate {} {}: {}\n", gate.letter, gate.name, gate.passed() ? "passed" : "failed");
    for (const std::string& failure : gate.failures) out += "  " + failure + "\n";
  }
  return out;
}

}  // namespace kedge
