// Mixed precision end to end: the budget holds, what it gains, what wins over it, what it refuses.
#include <chrono>
#include <map>
#include <set>
#include <string_view>

#include "base/json.h"
#include "base/log.h"
#include "kedge/audit.h"
#include "kedge/error.h"
#include "kedge/quantize.h"
#include "process.h"
#include "quant/scheme.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::folder_content;
using trips::TemporaryFolder;

QuantizeOptions options_for(const fs::path& source, const fs::path& destination, double target_bits) {
  set_quiet(true);
  QuantizeOptions options;
  options.source = source;
  options.destination = destination;
  options.scheme = "w3a16-g64";
  options.method = "rtn";
  options.router_refit = false;
  options.calibration.nsamples = 32;
  options.calibration.seqlen = 128;
  options.target_bits = target_bits;
  options.threads = 2;
  return options;
}

AuditMetrics audited(const fs::path& quantized, const fs::path& text, std::int64_t seqlen, std::int64_t limit) {
  AuditOptions options;
  options.original = trips::kDemo;
  options.quantized = quantized;
  options.texts = {text};
  options.seqlen = seqlen;
  options.limit = limit;
  options.runtime.threads = 2;
  return audit(options).comparisons.front().mean;
}

AuditMetrics audited(const fs::path& quantized) {
  return audited(quantized, fs::path(KEDGE_SOURCE_DIR) / "models/demo-text.txt", 128, 16);
}

struct Stored {
  std::map<std::string, std::string> schemes;  ///< by module
  double bits_per_weight = 0;
};

// The demo's matrices: all have 128 inputs and 128 rows but k and v with 64.
Stored stored_in(const fs::path& folder) {
  Stored out;
  double bits = 0, weights = 0;
  const Json manifest = read_json(folder / "kedge.manifest.json");
  for (const Json& module : manifest["modules"]) {
    const auto name = module["name"].get<std::string>(), scheme = module["scheme"].get<std::string>();
    out.schemes[name] = scheme;
    if (scheme == "none") continue;
    const bool narrow = name.ends_with("k_proj") || name.ends_with("v_proj");
    const bool query = name.ends_with("q_proj") || name.ends_with("o_proj");
    EXPECT_TRUE(narrow || query || name.find(".experts.") != std::string::npos);
    const double size = narrow ? 64.0 * 128 : 128.0 * 128;
    weights += size;
    bits += size * (parse_scheme(scheme).weights.num_bits + 16.0 / 64);
  }
  out.bits_per_weight = bits / weights;
  return out;
}

TEST(MixedPrecision, LosesLessThanOneSchemeOfTheSameSize) {
  const TemporaryFolder folder;
  const auto outcome = [&](const std::string& name, double target, const std::string& per) {
    QuantizeOptions options = options_for(trips::kDemo, folder / name, target);
    options.bits_per = per;
    quantize(options);
    EXPECT_LE(stored_in(folder / name).bits_per_weight, 3.25 + 1e-9);
    EXPECT_GE(stored_in(folder / name).bits_per_weight, 3.2);
    const AuditMetrics mean = audited(folder / name);
    return std::pair(1 - metric(mean, "jaccard").mean, metric(mean, "kld").mean);
  };
  const auto uniform = outcome("uniform", 0, "layer"), layer = outcome("layer", 3.25, "layer");
  const auto expert = outcome("expert", 3.25, "expert");
  EXPECT_LT(layer.first, 0.8 * uniform.first);
  EXPECT_LT(layer.second, uniform.second);
  EXPECT_LT(expert.first, 0.8 * layer.first);
  EXPECT_LT(expert.second, 0.5 * layer.second);
}

TEST(MixedPrecision, ExpertsOfALayerShareTheirBitsUnlessAskedOtherwise) {
  const TemporaryFolder folder;
  for (const std::string per : {"model", "layer", "expert"}) {
    QuantizeOptions options = options_for(trips::kDemo, folder / per, 3.25);
    options.bits_per = per;
    const QuantizeReport report = quantize(options);
    const Stored stored = stored_in(folder / per);
    std::map<int, std::map<int, std::int64_t>> counted;
    for (const auto& [name, scheme] : stored.schemes) {
      if (!name.ends_with(".gate_proj")) continue;
      ++counted[name[std::string_view("model.layers.").size()] - '0'][parse_scheme(scheme).weights.num_bits];
      const std::string expert = name.substr(0, name.rfind('.'));
      EXPECT_EQ(stored.schemes.at(expert + ".up_proj"), scheme);
      EXPECT_EQ(stored.schemes.at(expert + ".down_proj"), scheme);
    }
    int rows = 0;
    bool mixed = false;
    for (const QuantizeAllocation& row : report.allocation) {
      if (row.role != "expert") continue;
      EXPECT_EQ(row.units, counted[row.layer]);
      mixed |= row.units.size() > 1;
      ++rows;
    }
    EXPECT_EQ(rows, 4);
    std::set<int> widths;
    for (const auto& [layer, counts] : counted) {
      for (const auto& [bits, count] : counts) widths.insert(bits);
    }
    EXPECT_EQ(widths.size() == 1, per == "model");
    EXPECT_EQ(mixed, per == "expert");
  }
}

TEST(MixedPrecision, OverridesWinAndTheirBitsCount) {
  const TemporaryFolder folder;
  QuantizeOptions options = options_for(trips::kDemo, folder / "q", 3.25);
  options.overrides = {{"model.layers.3.mlp.experts.*", "w4a16-g64"}, {"model.layers.0.self_attn.*", "none"}};
  quantize(options);
  const Stored stored = stored_in(folder / "q");
  EXPECT_LE(stored.bits_per_weight, 3.25 + 1e-9);
  EXPECT_EQ(stored.schemes.at("model.layers.3.mlp.experts.7.up_proj"), "w4a16-g64");
  EXPECT_EQ(stored.schemes.at("model.layers.0.self_attn.q_proj"), "none");
}

// The effect of one block as the allocation measured it is what the audit finds in a checkpoint with that block alone
// quantized.
TEST(MixedPrecision, MeasuresTheEffectThatTheAuditFinds) {
  const TemporaryFolder folder;
  const std::string text = trips::slurp(fs::path(KEDGE_SOURCE_DIR) / "models/demo-text.txt").substr(0, 4000);
  trips::spit(folder / "text.txt", text);
  QuantizeOptions options = options_for(trips::kDemo, folder / "mixed", 3.25);
  options.calibration.files = {folder / "text.txt"};
  options.calibration.nsamples = 0;
  options.calibration.seqlen = 64;
  const QuantizeReport report = quantize(options);
  int compared = 0;
  for (const QuantizeAllocation& row : report.allocation) {
    if (row.layer != 1) continue;
    const std::string part = row.role == "expert" ? "mlp.experts" : "self_attn";
    QuantizeOptions alone = options_for(trips::kDemo, folder / part, 0);
    alone.overrides = {{"*", "none"}, {"model.layers.1." + part + ".*", "w3a16-g64"}};
    quantize(alone);
    const AuditMetrics mean = audited(folder / part, folder / "text.txt", 64, 0);
    EXPECT_NEAR(row.kld, metric(mean, "kld").mean, 1e-6 * row.kld) << part;
    EXPECT_NEAR(row.routing, 1 - metric(mean, "jaccard").mean, 1e-9) << part;
    EXPECT_GT(row.kld, 0);
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

class MixedFamilies : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(MixedFamilies, SameBytesWithAnyThreadsAndFromAPartialFolder) {
  const auto [family, per] = GetParam();
  const TemporaryFolder folder;
  fs::copy(trips::kGoldens + std::string(family), folder / "source");
  fs::copy_file(fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/bytes/tokenizer.json",
                folder / "source" / "tokenizer.json");
  for (const int threads : {1, 3}) {
    QuantizeOptions options = options_for(folder / "source", folder / std::to_string(threads), 4.6);
    options.scheme = "w4a16-g32";
    options.method = "gptq";
    options.calibration.nsamples = 8;
    options.calibration.seqlen = 32;
    options.bits_per = per;
    options.threads = threads;
    options.cache_dir = threads == 1 ? fs::path() : folder.path();
    const QuantizeReport report = quantize(options);
    EXPECT_FALSE(report.allocation.empty());
  }
  EXPECT_TRUE(folder_content(folder / "1") == folder_content(folder / "3"));
}
INSTANTIATE_TEST_SUITE_P(All, MixedFamilies,
                         testing::Combine(testing::Values("olmoe", "qwen3_moe", "mixtral", "deepseek_v3"),
                                          testing::Values("model", "layer", "expert")));

TEST(MixedPrecision, AnInterruptedRunIsResumed) {
  const TemporaryFolder folder;
  const auto call = [&](const std::string& name) {
    trips::Call call;
    call.arguments = {"quantize",
                      trips::kDemo,
                      (folder / name).string(),
                      "--scheme",
                      "w3a16-g64",
                      "--target-bits",
                      "3.25",
                      "--method",
                      "gptq",
                      "--router-refit",
                      "off",
                      "--nsamples",
                      "16",
                      "--seqlen",
                      "128",
                      "--threads",
                      "2",
                      "--quiet"};
    return call;
  };
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(trips::run(call("whole")).exit_code, 0);
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  const auto expected = folder_content(folder / "whole");
  int partial = 0;
  double span = double(took.count());
  for (int round = 0; round < 4 || (partial < 1 && round < 24); ++round) {
    const std::string name = "killed-" + std::to_string(round);
    trips::Call first = call(name);
    first.kill_after = std::chrono::microseconds(static_cast<std::int64_t>(span * (2 * (round % 4) + 1) / 8));
    const bool in_time = trips::run(first).exit_code == 128 + SIGKILL;
    partial += fs::exists((folder / name).string() + ".partial") ? 1 : 0;
    if (!in_time) span *= 0.8;  // the first run was slower, as on a busy machine
    // Killed after the rename but before the last file went, the folder is there and a run removes that file.
    if (!fs::exists(folder / name) || folder_content(folder / name) != expected) {
      const trips::Result second = trips::run(call(name));
      ASSERT_EQ(second.exit_code, 0) << second.err;
    }
    EXPECT_TRUE(folder_content(folder / name) == expected) << "round " << round;
  }
  EXPECT_GE(partial, 1);
}

TEST(MixedPrecision, RefusesABudgetBelowTheNarrowestWidth) {
  const TemporaryFolder folder;
  try {
    quantize(options_for(trips::kDemo, folder / "q", 2.1));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    EXPECT_NE(std::string(error.what()).find("2.25"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(fs::exists(folder / "q"));
  QuantizeOptions options = options_for(trips::kDemo, folder / "q", 3);
  options.sensitivity = "guess";
  EXPECT_THROW(quantize(options), Error);
}

}  // namespace
}  // namespace kedge
