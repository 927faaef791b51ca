// kedge train mnist, kedge quantize of what it makes, kedge mnist report: on a part of MNIST, end to end.
#include <gtest/gtest.h>

#include <signal.h>

#include <algorithm>

#include "base/json.h"
#include "io/checkpoint.h"
#include "process.h"

#ifdef KEDGE_TORCH_BINARY
namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::TemporaryFolder;

const std::string kData = std::string(KEDGE_SOURCE_DIR) + "/tests/fixtures/mnist";

std::vector<std::string> train_words(const fs::path& out, const std::string& model, const std::string& seed = "1") {
  return {"train", "mnist", "--model", model, "--data", kData, "--out", out.string(), "--epochs", "3", "--seed", seed};
}

std::uint64_t weights_bytes(const fs::path& model) { return fs::file_size(model / "model.safetensors"); }

TEST(Mnist, TrainsTheSameBytesFromTheSameSeed) {
  const TemporaryFolder folder;
  for (const char* model : {"ffn", "moe", "mcqsmoe"}) {
    const auto run = [&](const std::string& name, const std::string& seed) {
      const trips::Result result = trips::run(train_words(folder / (model + name), model, seed));
      EXPECT_EQ(result.exit_code, 0) << result.err;
      return trips::slurp(folder / (model + name) / "model.safetensors");
    };
    const std::string first = run("1", "1");
    EXPECT_EQ(run("2", "1"), first);
    EXPECT_NE(run("3", "2"), first);
    const Json record = read_json(folder / (std::string(model) + "1") / "training.json");
    EXPECT_EQ(record["schema"], "kedge.train/1");
    EXPECT_EQ(record["results"]["images"], 3 * 320);
    EXPECT_GT(record["results"]["test_accuracy"].get<double>(), 0.3);  // chance is 0.1
  }
  const trips::Result again = trips::run(train_words(folder / "ffn1", "ffn"));
  EXPECT_EQ(again.exit_code, 8) << again.err;
}

TEST(Mnist, QuantizesInEveryScheme) {
  const TemporaryFolder folder;
  for (const std::string model : {"ffn", "moe", "mcqsmoe"}) {
    const double share = model == "mcqsmoe" ? 0.85 : 1;  // its encoders stay fp32
    const fs::path source = folder / model;
    ASSERT_EQ(trips::run(train_words(source, model)).exit_code, 0);
    const std::uint64_t plain = weights_bytes(source);
    for (const auto& [scheme, smaller] : std::vector<std::pair<std::string, double>>{
             {"w8a8-static", 3.8}, {"w8a8-dynamic", 3.8}, {"w8a16", 3.8}, {"w4a16-g32", 6.5}}) {
      const fs::path out = folder / (model + scheme);
      std::vector<std::string> words = {"quantize", source.string(), out.string(), "--scheme", scheme};
      if (scheme == "w8a8-static") words.insert(words.end(), {"--data", kData, "--observer", "percentile"});
      const trips::Result result = trips::run(words);
      ASSERT_EQ(result.exit_code, 0) << result.err;
      EXPECT_GT(static_cast<double>(plain) / static_cast<double>(weights_bytes(out)), smaller * share)
          << model << " " << scheme;
      const Checkpoint checkpoint = Checkpoint::open(out);
      EXPECT_FALSE(checkpoint.quant_format().empty());
      EXPECT_EQ(checkpoint.has("fc1.input_scale"), scheme == "w8a8-static");
      EXPECT_FALSE(checkpoint.quant_args("moe.gate").has_value());
    }
  }
}

TEST(Mnist, AQuantizationKilledAtAnyTimeIsDoneAgain) {
  const TemporaryFolder folder;
  const fs::path source = folder / "moe", whole = folder / "whole", out = folder / "out";
  ASSERT_EQ(trips::run(train_words(source, "moe")).exit_code, 0);
  trips::Call call;
  call.arguments = {"quantize", source.string(), whole.string(), "--scheme", "w8a8-dynamic"};
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(trips::run(call).exit_code, 0);
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  const auto expected = trips::folder_content(whole);
  call.arguments[2] = out.string();
  int killed = 0;
  for (int round = 1; round <= 24; ++round) {
    call.kill_after = took * round / 20;
    killed += trips::run(call).exit_code == 128 + SIGKILL ? 1 : 0;
    call.kill_after = {};
    if (!fs::exists(out) || trips::folder_content(out) != expected) {
      const trips::Result again = trips::run(call);
      ASSERT_EQ(again.exit_code, 0) << again.err;
    }
    EXPECT_TRUE(trips::folder_content(out) == expected) << round;
    fs::remove_all(out);
  }
  EXPECT_GE(killed, 3);
}

TEST(Mnist, SaysWhatCannotBe) {
  const TemporaryFolder folder;
  ASSERT_EQ(trips::run(train_words(folder / "m", "moe")).exit_code, 0);
  struct Case {
    std::vector<std::string> words;
    int code;
    const char* says;
  };
  const std::string m = (folder / "m").string(), out = (folder / "out").string();
  const Case cases[] = {
      {{"quantize", m, out, "--scheme", "w8a8-static"}, 2, "--data"},
      {{"quantize", m, out, "--scheme", "w8a8-static", "--data", kData, "--calibration-images", "1",
        "--expert-fallback", "error"},
       6,
       "none of the 1"},
      {{"quantize", m, out, "--scheme", "w4a16", "--method", "gptq"}, 2, "gptq"},
      {{"quantize", trips::kDemo, out, "--scheme", "w8a8-dynamic"}, 5, "--activations int8"},
      {{"quantize", m, out, "--scheme", "anchor-int4-g64"}, 2, "anchor-int4-g64"},
      {{"inspect", m}, 5, "kedge_mnist"},
      {{"train", "mnist", "--data", kData, "--out", out, "--steps", "5"}, 2, "--steps"},
      {{"train", "mnist", "--data", kData, "--out", out, "--reconstruction-loss", "1"}, 2, "--reconstruction-loss"},
      {{"train", "mnist", "--model", "mcqsmoe", "--data", kData, "--out", out, "--noisy-gating"}, 2, "--noisy-gating"},
      {{"train", "mnist", "--model", "ffn", "--data", kData, "--out", out, "--top-k", "1"}, 2, "--top-k"},
      {{"train", "lm", "--epochs", "5", "--out", out}, 2, "--epochs"},
      {{"train", "mnist", "--data", m, "--out", out}, 3, "train-images-idx3-ubyte"},
      {{"train", "mnist", "--out", out}, 2, "--data"},
      {{"mnist", "report", "--out", out}, 2, "--data"},
  };
  for (const Case& c : cases) {
    const trips::Result result = trips::run(c.words);
    EXPECT_EQ(result.exit_code, c.code) << result.err;
    EXPECT_NE(result.err.find(c.says), std::string::npos) << result.err;
    EXPECT_FALSE(fs::exists(out)) << c.says;
  }
  // The environment is for all commands; it says nothing here.
  trips::Call call;
  call.arguments = {"train", "mnist", "--data", m, "--out", out};
  call.environment = {"KEDGE_SEQLEN=128"};
  EXPECT_EQ(trips::run(call).exit_code, 3);  // m has no images
}

TEST(Mnist, ReportComesFromItsRecords) {
  const TemporaryFolder folder;
  const fs::path out = folder / "out";
  std::vector<std::string> words = {"mnist",    "report",     "--data",           kData,
                                    "--out",    out.string(), "--seeds",          "2",
                                    "--epochs", "2",          "--latency-rounds", "3"};
  const trips::Result result = trips::run(words);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* text : {"dense, int8 static", "MoE, all experts, fp32", "Static quantization does not suit a MoE"}) {
    EXPECT_NE(result.out.find(text), std::string::npos) << text;
  }
  const std::string html = trips::slurp(out / "mnist.html"), markdown = trips::slurp(out / "mnist.md");
  EXPECT_NE(html.find("Expert 3"), std::string::npos);
  const Json record = read_json(out / "mnist.json");
  EXPECT_EQ(record["schema"], "kedge.mnist/1");
  EXPECT_EQ(record["results"]["rows"].size(), 21u);
  EXPECT_EQ(record["samples"].size(), 2u * 6 + 2);
  EXPECT_FALSE(fs::exists(out / "models"));
  // A part of the runs is missing: only that is done again. Latency is on record.
  EXPECT_EQ(trips::run(words).exit_code, 8);
  words.push_back("--resume");
  const auto before = fs::last_write_time(out / "runs/moe_seed1.json");
  fs::remove(out / "runs/ffn_seed2.json");
  fs::remove(out / "mnist.md");
  const trips::Result resumed = trips::run(words);
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(fs::last_write_time(out / "runs/moe_seed1.json"), before);
  EXPECT_TRUE(fs::exists(out / "runs/ffn_seed2.json"));
  EXPECT_EQ(trips::slurp(out / "mnist.md"), markdown);
  words[9] = "3";
  EXPECT_EQ(trips::run(words).exit_code, 6);
}

TEST(Mnist, ItsClaimsAreMeasuredWhereTheImagesAreGiven) {
  const TemporaryFolder folder;
  const fs::path claims = folder / "claims", out = folder / "out";
  fs::create_directories(claims);
  for (const char* name : {"mnist-int8-moe-size", "mnist-moe-accuracy", "mnist-ptq-moe-latency"}) {
    const std::string file = std::string(name) + ".toml";
    fs::copy_file(fs::path(KEDGE_SOURCE_DIR) / "claims" / file, claims / file);
  }
  std::vector<std::string> words = {"verify", claims.string(), "--profile", "quick", "--out", out.string()};
  const trips::Result without = trips::run(words);
  EXPECT_EQ(without.exit_code, 1) << without.err;
  EXPECT_NE(without.out.find("--data DIR"), std::string::npos) << without.out;
  fs::remove_all(out);
  words.insert(words.end(), {"--data", kData});
  const trips::Result result = trips::run(words);
  ASSERT_EQ(result.exit_code, 0) << result.out << result.err;
  const Json summary = read_json(out / "summary.json");
  ASSERT_EQ(summary["results"]["claims"].size(), 3u);
  for (const Json& claim : summary["results"]["claims"]) {
    const std::string name = claim["name"];
    if (name == "mnist-int8-moe-size") {
      EXPECT_EQ(claim["verdict"], "upheld");
    } else if (name == "mnist-moe-accuracy") {
      EXPECT_EQ(claim["verdict"], "refuted");  // 320 images teach little
    }
    EXPECT_EQ(claim["estimate"]["n"], name == "mnist-ptq-moe-latency" ? 10 : 2) << name;
  }
  EXPECT_EQ(trips::run({"verify", claims.string(), "--check", out.string()}).exit_code, 0);
}

}  // namespace
}  // namespace kedge
#endif
