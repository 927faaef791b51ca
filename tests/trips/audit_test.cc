// The audit trip: a model against itself, against its quantized forms, against what transformers measured.
#include "kedge/audit.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/cpu.h"
#include "base/json.h"
#include "base/log.h"
#include "io/safetensors.h"
#include "kedge/error.h"
#include "kedge/quantize.h"
#include "process.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::TemporaryFolder;

const fs::path root = KEDGE_SOURCE_DIR;
const fs::path demo = root / "models/demo-4m";
const fs::path text = root / "models/demo-text.txt";

AuditOptions options_for(const fs::path& original, const fs::path& quantized, std::int64_t limit) {
  set_quiet(true);
  AuditOptions options;
  options.original = original;
  options.quantized = quantized;
  options.texts = {text};
  options.limit = limit;
  options.runtime.threads = 2;
  return options;
}

void quantize_demo(const fs::path& destination, const std::string& scheme) {
  set_quiet(true);
  QuantizeOptions options;
  options.source = demo;
  options.destination = destination;
  options.scheme = scheme;
  options.method = "rtn";
  quantize(options);
}

ErrorCode code_of(const AuditOptions& options, const std::string& words) {
  try {
    audit(options);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error: " << words;
  return ErrorCode::usage;
}

void expect_no_change(const AuditComparison& c) {
  for (const char* name : {"jaccard", "exact_set", "top1", "weighted_agreement"}) {
    EXPECT_EQ(metric(c.mean, name).mean, 1) << name;
    EXPECT_EQ(metric(c.mean, name).low, 1) << name;
  }
  for (const char* name : {"any_changed", "selections_changed", "order_inversions", "js_divergence"})
    EXPECT_EQ(metric(c.mean, name).mean, 0) << name;
  EXPECT_EQ(c.unchanged_everywhere.mean, 1);
  for (const AuditMarginBin& bin : c.flips_by_margin) EXPECT_EQ(bin.flips, 0);
  for (const AuditLayer& layer : c.layers)
    EXPECT_EQ(layer.tokens_per_expert_original, layer.tokens_per_expert_quantized);
  if (!c.has_language()) return;
  for (const char* name : {"kld", "kld_median", "kld_max", "ln_ratio", "delta_p", "delta_p_rms"})
    EXPECT_EQ(metric(c.mean, name).mean, 0) << name;
  EXPECT_EQ(metric(c.mean, "same_top").mean, 1);
}

// Everything that the report says about the models, without time and machine.
std::string figures_of(const AuditReport& report) {
  Json json = parse_json(audit_json(report), "report");
  json["results"].erase("seconds");
  return json["results"].dump() + json["samples"].dump();
}

TEST(AuditTrip, AModelAgainstItselfOnEveryIsaAndThreadCount) {
  std::string figures;
  for (Isa isa : available_isas()) {
    for (int threads : {1, 2, 3}) {
      SCOPED_TRACE(std::string(isa_name(isa)) + ", threads " + std::to_string(threads));
      AuditOptions options = options_for(demo, demo, 3);
      options.seqlen = 64;
      options.mode = AuditMode::both;
      options.runtime.isa = isa_name(isa);
      options.runtime.threads = threads;
      const AuditReport report = audit(options);
      ASSERT_EQ(report.comparisons.size(), 2u);
      for (const AuditComparison& c : report.comparisons) expect_no_change(c);
      if (figures.empty()) figures = figures_of(report);
      EXPECT_EQ(figures_of(report), figures);
    }
  }
}

TEST(AuditTrip, Int8AgainstItself) {
  TemporaryFolder folder;
  quantize_demo(folder / "q", "w4a16-g32");
  AuditOptions options = options_for(folder / "q", folder / "q", 2);
  options.runtime.activations = "int8";
  expect_no_change(audit(options).comparisons.at(0));
}

// transformers' figures for round-to-nearest (tests/goldens/demo-4m.expected.json): routing and KLD on the first 32
// rows, the loss on all of them.
TEST(AuditTrip, RoundToNearestAsTransformersMeasuredIt) {
  const Json expected = read_json(root / "tests/goldens/demo-4m.expected.json");
  const Json& tolerance = expected.at("rtn").at("tolerance");
  ASSERT_EQ(expected.at("rtn").at("results").size(), 4u);
  for (const auto& [name, want] : expected.at("rtn").at("results").items()) {
    SCOPED_TRACE(name);
    TemporaryFolder folder;
    std::string scheme = name;
    std::replace(scheme.begin(), scheme.end(), '_', '-');
    quantize_demo(folder / "q", scheme);
    const AuditReport report = audit(options_for(demo, folder / "q", 32));
    EXPECT_EQ(report.tokens, 32 * 256);
    const AuditComparison& c = report.comparisons.at(0);
    for (const AuditLayer& layer : c.layers) {
      const std::string number = std::to_string(layer.layer);
      EXPECT_NEAR(metric(layer.metrics, "jaccard").mean, want.at("jaccard_by_layer").at(number).get<double>(),
                  tolerance.at("jaccard").get<double>());
      EXPECT_NEAR(metric(layer.metrics, "exact_set").mean, want.at("exact_set_by_layer").at(number).get<double>(),
                  tolerance.at("jaccard").get<double>());
    }
    EXPECT_EQ(c.layers.size(), want.at("jaccard_by_layer").size());
    EXPECT_NEAR(metric(c.mean, "jaccard").mean, want.at("jaccard_mean").get<double>(),
                tolerance.at("jaccard").get<double>());
    const double kld = want.at("kld_mean").get<double>(), median = want.at("kld_median").get<double>(),
                 relative = tolerance.at("kld_relative").get<double>();
    EXPECT_NEAR(metric(c.mean, "kld").mean, kld, relative * kld);
    EXPECT_NEAR(metric(c.mean, "kld_median").mean, median, relative * median);
    EXPECT_NEAR(metric(c.mean, "same_top").mean, want.at("same_top").get<double>(),
                tolerance.at("jaccard").get<double>());
    const AuditReport all = audit(options_for(demo, folder / "q", 0));
    EXPECT_EQ(all.sequences, expected.at("perplexity").at("rows").get<std::int64_t>());
    EXPECT_NEAR(metric(all.comparisons[0].mean, "nll_quantized").mean, want.at("mean_nll").get<double>(),
                tolerance.at("mean_nll").get<double>());
    EXPECT_NEAR(metric(all.comparisons[0].mean, "nll_original").mean,
                expected.at("perplexity").at("mean_nll").get<double>(),
                expected.at("perplexity").at("tolerance_mean_nll").get<double>());
  }
}

// What a layer does to its own routing is part of what all layers do together.
TEST(AuditTrip, LocalAndFreeAgreeWhereTheyMust) {
  TemporaryFolder folder;
  quantize_demo(folder / "q", "w3a16-g64");
  AuditOptions options = options_for(demo, folder / "q", 4);
  options.mode = AuditMode::both;
  options.price_int8 = true;
  options.out = folder / "out";
  options.save_traces = true;
  const AuditReport report = audit(options);
  ASSERT_EQ(report.comparisons.size(), 3u);
  const AuditComparison &free = report.comparisons[0], &local = report.comparisons[1];
  EXPECT_EQ(report.comparisons[2].name, "int8");
  EXPECT_FALSE(local.has_language());
  // The first layer reads the same embeddings in both modes.
  EXPECT_EQ(metric(free.layers[0].metrics, "jaccard").mean, metric(local.layers[0].metrics, "jaccard").mean);
  EXPECT_GT(metric(local.mean, "jaccard").mean, metric(free.mean, "jaccard").mean);
  EXPECT_LT(metric(local.mean, "jaccard").mean, 1);

  const Json json = read_json(options.out / "report.json");
  EXPECT_EQ(json.at("schema"), "kedge.audit/1");
  EXPECT_EQ(json.at("results").at("mean").at("jaccard").at("mean").get<double>(), metric(free.mean, "jaccard").mean);
  EXPECT_EQ(json.at("results").at("comparisons").at("local").at("layers").size(), 4u);
  EXPECT_EQ(json.at("samples").size(), 12u);
  EXPECT_NE(trips::slurp(options.out / "report.html").find("</html>"), std::string::npos);
  const SafetensorsFile file(options.out / "quantized.trace.safetensors");
  EXPECT_EQ(file.tensor("input_ids").shape, (Shape{4, 256}));
  EXPECT_EQ(file.tensor("topk_ids.3").shape, (Shape{4 * 256, 2}));

  EXPECT_EQ(code_of(options, "exists already"), ErrorCode::exists);
}

void edit(const fs::path& path, const std::string& from, const std::string& to) {
  std::string content = trips::slurp(path);
  std::size_t at = content.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  for (; at != std::string::npos; at = content.find(from, at + to.size())) content.replace(at, from.size(), to);
  trips::spit(path, content);
}

TEST(AuditTrip, RefusesModelsThatCannotBeCompared) {
  TemporaryFolder folder;
  const auto copy = [&](const std::string& name) {
    fs::copy(demo, folder / name);
    return folder / name;
  };
  edit(copy("k") / "config.json", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 3");
  EXPECT_EQ(code_of(options_for(demo, folder / "k", 1), "experts per token of layer 0: 2 and 3"), ErrorCode::mismatch);
  edit(copy("e") / "config.json", "\"num_local_experts\": 16", "\"num_local_experts\": 8");
  EXPECT_EQ(code_of(options_for(demo, folder / "e", 1), "number of experts of layer 0: 16 and 8"), ErrorCode::mismatch);
  edit(copy("l") / "config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3");
  EXPECT_EQ(code_of(options_for(demo, folder / "l", 1), "number of layers: 4 and 3"), ErrorCode::mismatch);
  edit(copy("t") / "tokenizer.json", "<|endoftext|>", "<|endoftexx|>");
  EXPECT_EQ(code_of(options_for(demo, folder / "t", 1), "tokenizers"), ErrorCode::mismatch);
  edit(copy("d") / "config.json", "\"mlp_only_layers\": []", "\"mlp_only_layers\": [0, 1, 2, 3]");
  EXPECT_EQ(code_of(options_for(folder / "d", folder / "d", 1), "no MoE layer"), ErrorCode::unsupported);

  AuditOptions options = options_for(demo, demo, 1);
  options.seqlen = 4096;
  EXPECT_EQ(code_of(options, "context of 1024"), ErrorCode::usage);
  options = options_for(demo, demo, 1);
  options.texts = {folder / "empty.txt"};
  trips::spit(folder / "empty.txt", "");
  EXPECT_EQ(code_of(options, "empty"), ErrorCode::usage);
  options = options_for(demo, demo, 1);
  options.price_int8 = true;
  options.runtime.activations = "int8";
  EXPECT_EQ(code_of(options, "int8"), ErrorCode::usage);
}

std::map<std::string, std::string> tensors_of(const fs::path& path) {
  const SafetensorsFile file(path);
  std::map<std::string, std::string> tensors;
  for (const TensorInfo& info : file.header().tensors) {
    const TensorView view = file.tensor(info.name);
    if (info.name != "phase")
      tensors[info.name] =
          shape_string(view.shape) + std::string(reinterpret_cast<const char*>(view.data), view.num_bytes());
  }
  return tensors;
}

// Every tensor of a golden that a trace holds: name, type, shape, values.
void expect_golden(const fs::path& trace_path, const fs::path& golden_path) {
  const SafetensorsFile got(trace_path), want(golden_path);
  for (const TensorInfo& info : want.header().tensors) {
    if (info.name.starts_with("greedy")) continue;
    SCOPED_TRACE(info.name);
    ASSERT_TRUE(got.has(info.name));
    const TensorView a = got.tensor(info.name), b = want.tensor(info.name);
    ASSERT_EQ(a.shape, b.shape);
    ASSERT_EQ(a.dtype, b.dtype);
    if (info.name == "input_ids" || info.name.starts_with("topk_ids")) {
      std::vector<std::int32_t> x(static_cast<std::size_t>(a.size())), y(x.size());
      std::memcpy(x.data(), a.data, a.num_bytes());
      std::memcpy(y.data(), b.data, b.num_bytes());
      const std::size_t width = info.name == "input_ids" ? 1 : static_cast<std::size_t>(a.shape.back());
      for (std::size_t row = 0; row < x.size(); row += width) {
        std::sort(x.begin() + static_cast<std::ptrdiff_t>(row), x.begin() + static_cast<std::ptrdiff_t>(row + width));
        std::sort(y.begin() + static_cast<std::ptrdiff_t>(row), y.begin() + static_cast<std::ptrdiff_t>(row + width));
      }
      EXPECT_EQ(x, y);
    } else if (!info.name.starts_with("topk_weights")) {
      std::vector<float> x(static_cast<std::size_t>(a.size())), y(x.size());
      std::memcpy(x.data(), a.data, a.num_bytes());
      std::memcpy(y.data(), b.data, b.num_bytes());
      float worst = 0;
      for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::fabs(x[i] - y[i]));
      EXPECT_LE(worst, 1e-4f);
    }
  }
}

class TraceTrip : public testing::TestWithParam<const char*> {};

// Batch or not, with and without the cache, on any ISA and thread count: what transformers computed, and the same bits.
TEST_P(TraceTrip, GoldensInEveryWayOfRunning) {
  set_quiet(true);
  TemporaryFolder folder;
  const fs::path golden = root / "tests/goldens/hf" / GetParam();
  TraceOptions options;
  options.model = golden;
  options.ids = golden / "golden.safetensors";
  options.logits = options.hidden_states = options.overwrite = true;
  options.out = folder / "trace.safetensors";
  std::map<std::string, std::string> first;
  for (Isa isa : available_isas()) {
    for (const bool one_by_one : {false, true}) {
      for (const std::int64_t decode_from : {0, 7}) {
        SCOPED_TRACE(std::string(isa_name(isa)) + (one_by_one ? ", one by one" : ", batch") + ", decode from " +
                     std::to_string(decode_from));
        options.runtime.isa = isa_name(isa);
        options.runtime.threads = decode_from > 0 ? 1 : one_by_one ? 3 : 2;
        options.one_by_one = one_by_one;
        options.decode_from = decode_from;
        const TraceReport report = trace(options);
        EXPECT_EQ(report.sequences, 2);
        EXPECT_EQ(report.tokens, 48);
        expect_golden(options.out, golden / "golden.safetensors");
        const auto tensors = tensors_of(options.out);
        if (first.empty()) first = tensors;
        EXPECT_TRUE(tensors == first);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TraceTrip, testing::Values("olmoe", "qwen3_moe", "mixtral", "deepseek_v3"),
                         [](const auto& info) { return info.param; });

TEST(TraceTripErrors, AreOneSentence) {
  set_quiet(true);
  TemporaryFolder folder;
  TraceOptions options;
  options.model = demo;
  options.out = folder / "t.safetensors";
  const auto code = [&](const std::string& words) {
    try {
      trace(options);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
      return error.exit_code();
    }
    return 0;
  };
  EXPECT_EQ(code("not both"), 2);
  std::map<std::string, Tensor> tensors;
  tensors.emplace("input_ids", Tensor(DType::i64, {1, 2}));
  tensors.at("input_ids").data<std::int64_t>()[0] = 1;
  tensors.at("input_ids").data<std::int64_t>()[1] = 4096;
  options.ids = folder / "ids.safetensors";
  write_safetensors(options.ids, tensors);
  EXPECT_EQ(code("input_ids holds 4096"), 4);
  tensors.at("input_ids").data<std::int64_t>()[1] = 4095;
  write_safetensors(options.ids, tensors);
  EXPECT_EQ(code(""), 0);
  EXPECT_EQ(code("exists already"), 8);
}

}  // namespace
}  // namespace kedge
