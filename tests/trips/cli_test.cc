// The command line as a user meets it: data on stdout, one sentence on stderr, documented exit codes.
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <set>

#include "base/json.h"
#include "io/safetensors.h"
#include "kedge/error.h"
#include "process.h"

namespace kedge {
namespace {

using trips::Call;
using trips::kDemo;
using trips::kDemoText;
using trips::kGoldens;
using trips::Result;
using trips::run;
using trips::slurp;
using trips::spit;
using trips::TemporaryFolder;
namespace fs = std::filesystem;

// The error lines on stderr, without notes and progress.
std::vector<std::string> complaints(const std::string& err) {
  std::vector<std::string> lines;
  std::istringstream in(err);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("kedge: ")) lines.push_back(line);
  }
  return lines;
}

// One sentence, the documented code, no word on stdout; the sentence says `part`.
void expect_refused(const Call& call, ErrorCode code, const std::string& part) {
  std::string line;
  for (const std::string& word : call.arguments) line += word.substr(0, 80) + " ";
  SCOPED_TRACE(line);
  const Result result = run(call);
  EXPECT_EQ(result.exit_code, static_cast<int>(code)) << result.err;
  const std::vector<std::string> said = complaints(result.err);
  ASSERT_EQ(said.size(), 1u) << result.err;
  EXPECT_TRUE(result.err.ends_with(said.front() + "\n")) << result.err;
  EXPECT_NE(said.front().find(part), std::string::npos) << said.front();
  EXPECT_EQ(result.err.find("bug"), std::string::npos);
  EXPECT_EQ(result.out, "");
}

void expect_refused(std::vector<std::string> arguments, ErrorCode code, const std::string& part) {
  Call call;
  call.arguments = std::move(arguments);
  expect_refused(call, code, part);
}

// A copy of the bundled model; `edit` changes its config.
fs::path edited_model(const TemporaryFolder& folder, const std::string& name, const std::function<void(Json&)>& edit) {
  const fs::path path = folder / name;
  fs::copy(kDemo, path);
  Json config = read_json(path / "config.json");
  edit(config);
  spit(path / "config.json", config.dump());
  return path;
}

TEST(Cli, VersionNamesWhatThisIs) {
  const Result result = run({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_TRUE(result.out.starts_with("kedge 0.")) << result.out;
  EXPECT_NE(result.out.find("git "), std::string::npos);
  EXPECT_EQ(result.err, "");
}

TEST(Cli, WrongWordsAreUsageErrors) {
  const std::string p = "-p", model = kDemo;
  const ErrorCode usage = ErrorCode::usage;
  expect_refused(std::vector<std::string>{}, usage, "--help");
  expect_refused({"frobnicate"}, usage, "frobnicate");
  expect_refused({"run"}, usage, "MODEL");
  expect_refused({"run", model}, usage, "-p TEXT");
  expect_refused({"run", model, p, "x", "--no-such-flag"}, usage, "no-such-flag");
  expect_refused({"run", model, "extra", p, "x"}, usage, "extra");
  expect_refused({"run", model, p}, usage, "prompt");
  for (const char* value : {"0", "-3", "abc", "1.5", "", "1e3", "99999999999999999999"}) {
    expect_refused({"run", model, p, "x", "-n", value}, usage, "--max-tokens");
  }
  expect_refused({"run", model, p, "x", "-n", "1", "-n", "2"}, usage, "more than once");
  for (const char* value : {"-0.1", "hot", "nan", "inf", "1e30"}) {
    expect_refused({"run", model, p, "x", "--temperature", value}, usage, "--temperature");
  }
  expect_refused({"run", model, p, "x", "--top-p", "1.5"}, usage, "--top-p");
  expect_refused({"run", model, p, "x", "--top-k", "-1"}, usage, "--top-k");
  expect_refused({"run", model, p, "x", "--isa", "sse9"}, usage, "avx2");
  expect_refused({"run", model, p, "x", "--numerics", "sloppy"}, usage, "consistent");
  expect_refused({"run", model, p, "x", "--activations", "int4"}, usage, "int8");
  expect_refused({"run", model, p, "x", "--threads", "-1"}, usage, "--threads");
  expect_refused({"perplexity", model}, usage, "--text");
  expect_refused({"perplexity", model, "--text", kDemoText, "--seqlen", "1"}, usage, "--seqlen");
  expect_refused({"perplexity", model, "--text", kDemoText, "--seqlen", "5000"}, usage, "1024");
  expect_refused({"trace", model, "--out", "x"}, usage, "--ids");
  expect_refused({"audit", model, model}, usage, "--text");
  expect_refused({"audit", model, model, "--text", kDemoText, "--mode", "loose"}, usage, "local");
  expect_refused({"tokenize", model}, usage, "TEXT");
  expect_refused({"tokenize", model, "--decode", "12 x"}, usage, "\"x\"");
  expect_refused({"tokenize", model, "--decode", "999999"}, usage, "999999");
  expect_refused({"inspect", model, "--context", "5000"}, usage, "1024");
  expect_refused({"quantize", model, "x", "--scale-dtype", "int8"}, usage, "float32");
  expect_refused({"bench"}, usage, "shape");
  expect_refused({"bench", "--shape", "no-such-shape"}, usage, "no-such-shape");
  expect_refused({"completion", "csh"}, usage, "fish");
  expect_refused({"help", "cooking"}, usage, "cooking");
}

TEST(Cli, WordsThatAFlagTookAreNamed) {
  const Result result = run({"perplexity", "--text", kDemoText, kDemo});
  EXPECT_EQ(result.exit_code, static_cast<int>(ErrorCode::usage));
  EXPECT_NE(result.err.find("--text takes all words up to the next flag; put MODEL before it"), std::string::npos)
      << result.err;
}

TEST(Cli, QuantizeRefusesAndLeavesNothingBehind) {
  const TemporaryFolder folder;
  const std::string q = (folder / "q").string();
  expect_refused({"quantize", kDemo}, ErrorCode::usage, "DST");
  expect_refused({"quantize", kDemo, q, "--scheme", "w7a16"}, ErrorCode::usage, "w7a16");
  expect_refused({"quantize", kDemo, q, "--method", "magic"}, ErrorCode::usage, "rtn");
  expect_refused({"quantize", kDemo, q, "--override", "nonsense"}, ErrorCode::usage, "PATTERN=SCHEME");
  expect_refused({"quantize", kDemo, q, "--override", "*.nothing=w8a16"}, ErrorCode::usage, "*.nothing");
  expect_refused({"quantize", (folder / "none").string(), q}, ErrorCode::not_found, "none");
  fs::copy(kDemo, folder / "m");
  const std::string m = (folder / "m").string();
  expect_refused({"quantize", m, m}, ErrorCode::usage, "same folder");
  expect_refused({"quantize", m, m + "/."}, ErrorCode::usage, "same folder");
  expect_refused({"quantize", m, m + "/q"}, ErrorCode::usage, "inside");
  fs::create_directory_symlink(folder / "m", folder / "link");
  expect_refused({"quantize", m, (folder / "link").string()}, ErrorCode::usage, "same folder");
  fs::create_directories(folder / "taken");
  spit(folder / "taken" / std::string("file"), "mine");
  expect_refused({"quantize", m, (folder / "taken").string()}, ErrorCode::exists, "taken");
  EXPECT_EQ(slurp(folder / "taken" / std::string("file")), "mine");
  std::set<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder.path())) left.insert(entry.path().filename());
  EXPECT_EQ(left, (std::set<std::string>{"m", "link", "taken"}));
  EXPECT_EQ(trips::folder_content(folder / "m"), trips::folder_content(kDemo));
}

TEST(Cli, BrokenModelsAreNamedAndNeverRun) {
  const TemporaryFolder folder;
  const auto refused = [](const fs::path& model, ErrorCode code, const std::string& part) {
    expect_refused({"run", model.string(), "-p", "x", "-n", "1"}, code, part);
    expect_refused({"inspect", model.string()}, code, part);
    expect_refused({"perplexity", model.string(), "--text", kDemoText}, code, part);
    expect_refused({"quantize", model.string(), model.string() + "-q"}, code, part);
    EXPECT_FALSE(fs::exists(model.string() + "-q"));
    EXPECT_FALSE(fs::exists(model.string() + "-q.partial"));
  };
  refused(folder / "missing", ErrorCode::not_found, "missing");

  const auto same = [](Json&) {};
  const fs::path truncated = edited_model(folder, "truncated", same);
  fs::resize_file(truncated / "model.safetensors", 1'000'000);
  refused(truncated, ErrorCode::bad_file, "model.safetensors");
  const fs::path five_bytes = edited_model(folder, "five_bytes", same);
  fs::resize_file(five_bytes / "model.safetensors", 5);
  refused(five_bytes, ErrorCode::bad_file, "model.safetensors");
  const fs::path weightless = edited_model(folder, "weightless", same);
  fs::remove(weightless / "model.safetensors");
  refused(weightless, ErrorCode::not_found, "weightless");
  const fs::path garbled = edited_model(folder, "garbled", same);
  spit(garbled / "config.json", "{\"model_type\": ");
  refused(garbled, ErrorCode::bad_file, "config.json");

  refused(edited_model(folder, "alien", [](Json& c) { c["model_type"] = "alien_moe"; }), ErrorCode::unsupported,
          "alien_moe");
  refused(edited_model(folder, "wider", [](Json& c) { c["hidden_size"] = 256; }), ErrorCode::bad_file, "has shape");
  refused(edited_model(folder, "fp8", [](Json& c) { c["quantization_config"] = {{"quant_method", "fp8"}}; }),
          ErrorCode::unsupported, "fp8");
  const fs::path twice = edited_model(folder, "twice", same);
  spit(twice / "config.json", "{\"model_type\": \"olmoe\", \"model_type\": \"mixtral\"}");
  refused(twice, ErrorCode::bad_file, "model_type");

  const fs::path speechless = edited_model(folder, "speechless", same);
  fs::remove(speechless / "tokenizer.json");
  expect_refused({"run", speechless.string(), "-p", "x"}, ErrorCode::not_found, "tokenizer.json");
  const fs::path mergeless = edited_model(folder, "mergeless", same);
  Json tokenizer = read_json(mergeless / "tokenizer.json");
  tokenizer["model"].erase("merges");
  spit(mergeless / "tokenizer.json", tokenizer.dump());
  expect_refused({"tokenize", mergeless.string(), "x"}, ErrorCode::bad_file, "merges");
}

TEST(Cli, TextsThatCannotBeScored) {
  const TemporaryFolder folder;
  spit(folder / "empty.txt", "");
  for (const std::string command : {"perplexity", "trace", "audit"}) {
    Call call;
    call.arguments = {command, kDemo};
    if (command == "audit") call.arguments.push_back(kDemo);
    for (const std::string word : {"--text", "FILE", "--out", "OUT"}) call.arguments.push_back(word);
    if (command == "perplexity") call.arguments.resize(call.arguments.size() - 2);
    const auto with = [&](const std::string& file) {
      Call filled = call;
      std::replace(filled.arguments.begin(), filled.arguments.end(), std::string("FILE"), file);
      std::replace(filled.arguments.begin(), filled.arguments.end(), std::string("OUT"), (folder / "out").string());
      return filled;
    };
    expect_refused(with((folder / "empty.txt").string()), ErrorCode::usage, "empty.txt");
    expect_refused(with((folder / "absent.txt").string()), ErrorCode::not_found, "absent.txt");
    EXPECT_FALSE(fs::exists(folder / "out")) << command;
  }
  std::string words;
  for (int i = 0; i < 3000; ++i) words += "word ";
  expect_refused({"run", kDemo, "-p", words}, ErrorCode::usage, "1024");
}

TEST(Cli, AuditRefusesModelsThatDoNotCompare) {
  const TemporaryFolder folder;
  const auto refused = [&](const fs::path& other, const std::string& part) {
    expect_refused({"audit", kDemo, other.string(), "--text", kDemoText, "--out", (folder / "out").string()},
                   ErrorCode::mismatch, part);
    EXPECT_FALSE(fs::exists(folder / "out"));
  };
  const fs::path spoken = edited_model(folder, "spoken", [](Json&) {});
  Json tokenizer = read_json(spoken / "tokenizer.json");
  tokenizer["model"]["merges"].erase(tokenizer["model"]["merges"].size() - 1);
  spit(spoken / "tokenizer.json", tokenizer.dump());
  refused(spoken, "tokenizer");
  refused(edited_model(folder, "wide", [](Json& c) { c["num_experts_per_tok"] = 4; }), "experts");
}

TEST(Cli, FailingOutputIsAnError) {
  const auto to_full = [](std::vector<std::string> arguments) {
    Call call;
    call.arguments = std::move(arguments);
    call.stdout_path = "/dev/full";
    expect_refused(call, ErrorCode::io, "No space left");
  };
  to_full({"--help"});
  to_full({"tokenize", kDemo, "a text"});
  to_full({"inspect", kDemo, "--json"});
  to_full({"run", kDemo, "-p", "It was", "-n", "4"});
  to_full({"perplexity", kDemo, "--text", kDemoText, "--limit", "1"});
  expect_refused({"trace", kDemo, "--text", kDemoText, "--limit", "1", "--out", "/dev/full/t.safetensors"},
                 ErrorCode::io, "/dev/full");
}

TEST(Cli, ClosedPipeEndsQuietly) {
  const TemporaryFolder folder;
  const std::string command = std::string("bash -c '{ ") + KEDGE_BINARY + " help markdown 2> " +
                              (folder / "err").string() + "; echo $? > " + (folder / "code").string() +
                              "; } | true; wait'";
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(std::system(command.c_str()), 0);
    const std::string code = slurp(folder / "code");
    EXPECT_TRUE(code == "141\n" || code == "0\n") << code;  // 0: written before the reader went
    EXPECT_EQ(slurp(folder / "err"), "");
  }
}

TEST(Cli, EnvironmentTwinsAreReadAndTheCommandLineWins) {
  const auto tokens = [](std::vector<std::string> environment, std::vector<std::string> extra) {
    Call call;
    call.arguments = {"run", kDemo, "-p", "It was a dark and", "--json", "-q", "--ignore-eos"};
    call.arguments.insert(call.arguments.end(), extra.begin(), extra.end());
    call.environment = std::move(environment);
    const Result result = run(call);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return parse_json(result.out, "stdout")["results"]["token_ids"].size();
  };
  EXPECT_EQ(tokens({"KEDGE_MAX_TOKENS=5"}, {}), 5u);
  EXPECT_EQ(tokens({"KEDGE_MAX_TOKENS=5"}, {"-n", "3"}), 3u);
  Call call;
  call.arguments = {"run", kDemo, "-p", "x"};
  call.environment = {"KEDGE_MAX_TOKENS=many"};
  expect_refused(call, ErrorCode::usage, "KEDGE_MAX_TOKENS");
  call.environment = {"KEDGE_STREAM=maybe"};
  expect_refused(call, ErrorCode::usage, "KEDGE_STREAM");
}

TEST(Cli, RunContinuesThePromptInEveryForm) {
  const Json expected = read_json(KEDGE_SOURCE_DIR "/tests/goldens/demo-4m.expected.json")["greedy"][0];
  const std::string prompt = expected["prompt"], text = expected["text"];
  const std::string count = std::to_string(expected["greedy_ids"].size());
  const Result streamed = run({"run", kDemo, "-p", prompt, "-n", count, "--ignore-eos"});
  EXPECT_EQ(streamed.exit_code, 0) << streamed.err;
  EXPECT_EQ(streamed.out, text + "\n");
  EXPECT_EQ(run({"run", kDemo, "-p", prompt, "-n", count, "--ignore-eos", "--no-stream"}).out, text + "\n");
  Call piped;
  piped.arguments = {"run", kDemo, "-p", "-", "-n", count, "--ignore-eos", "--quiet"};
  piped.input = prompt;
  const Result quiet = run(piped);
  EXPECT_EQ(quiet.out, text + "\n");
  EXPECT_EQ(quiet.err, "");
  const Result json = run({"run", kDemo, "-p", prompt, "-n", count, "--ignore-eos", "--json", "--isa", "scalar"});
  const Json result = parse_json(json.out, "stdout");
  EXPECT_EQ(result["schema"], "kedge.run/1");
  EXPECT_EQ(result["results"]["token_ids"], expected["greedy_ids"]);
  EXPECT_EQ(result["results"]["prompt_ids"], expected["prompt_ids"]);
  EXPECT_NE(run({"run", kDemo, "-p", prompt, "-n", "2", "--explain"}).err.find(": chosen"), std::string::npos);
}

// The frame is transformers' (tests/goldens/chat_templates).
TEST(Cli, ChatsGoThroughTheModelsTemplate) {
  const trips::TemporaryFolder folder;
  const std::filesystem::path goldens = KEDGE_SOURCE_DIR "/tests/goldens/chat_templates";
  std::filesystem::copy(kDemo, folder / "model");
  const std::string model = (folder / "model").string();
  const std::vector<std::string> words = {
      "run", model, "--chat", "-p", "What is 2 + 2?\n", "--system", " You are brief. ", "-n", "2", "--json"};
  Call call;
  call.arguments = words;
  expect_refused(call, ErrorCode::unsupported, "has no chat template");
  std::filesystem::copy_file(goldens / "chatml.jinja", folder / "model/chat_template.jinja");
  const Result result = run(words);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json ids = parse_json(result.out, "stdout")["results"]["prompt_ids"];
  const std::string text = read_json(goldens / "expected.json")["templates"]["chatml"]["system_and_prompt"];
  const Result tokens = run({"tokenize", model, text, "--json"});
  EXPECT_EQ(ids, parse_json(tokens.out, "stdout")["results"]["ids"]);
  call.arguments = {"run", model, "-p", "x", "--system", "y"};
  expect_refused(call, ErrorCode::usage, "--system");
}

TEST(Cli, TokenizeAndBack) {
  EXPECT_EQ(run({"tokenize", kDemo, "It was a dark and"}).out, "878 322 259 1437 281\n");
  EXPECT_EQ(run({"tokenize", kDemo, "--decode", "878,322 259\n1437 281"}).out, "It was a dark and\n");
  const TemporaryFolder folder;
  spit(folder / "text", "It was a dark and");
  EXPECT_EQ(run({"tokenize", kDemo, "--file", (folder / "text").string()}).out, "878 322 259 1437 281\n");
  const Json json = parse_json(run({"tokenize", kDemo, "It was", "--json"}).out, "stdout");
  EXPECT_EQ(json["results"]["ids"], Json::array({878, 322}));
}

TEST(Cli, InspectCountsTheBundledModel) {
  const Json json = parse_json(run({"inspect", kDemo, "--context", "512", "--json"}).out, "stdout")["results"];
  EXPECT_EQ(json["model_type"], "qwen3_moe");
  EXPECT_EQ(json["experts"], 16);
  std::int64_t parameters = 0;
  const SafetensorsFile file(kDemo + "/model.safetensors");
  for (const TensorInfo& tensor : file.header().tensors) {
    parameters += num_elements(tensor.shape);
  }
  EXPECT_EQ(json["parameters"], parameters);
  // Of 16 experts with three 128 x 128 matrices in each of 4 layers, 2 serve a token.
  EXPECT_EQ(json["active_parameters"], parameters - 4 * 14 * 3 * 128 * 128);
  EXPECT_EQ(json["bits_per_weight"], 16.0);
  const double kv = 512.0 * 4 * 2 * 2 * 32 * 4;  // 4 layers of keys and values, 2 heads of 32 floats
  EXPECT_GE(json["kv_bytes"].get<double>(), kv);
  EXPECT_LE(json["kv_bytes"].get<double>(), 1.25 * kv);
}

TEST(Cli, QuantizeDryRunAndJson) {
  const TemporaryFolder folder;
  const Result dry = run({"quantize", kDemo, "--dry-run", "--json"});
  EXPECT_EQ(dry.exit_code, 0) << dry.err;
  const Json plan = parse_json(dry.out, "stdout")["results"];
  const Result real = run({"quantize", kDemo, (folder / "q").string(), "--method", "rtn", "--json", "-q"});
  EXPECT_EQ(real.err, "");
  const Json done = parse_json(real.out, "stdout");
  EXPECT_EQ(done["schema"], "kedge.quantize/1");
  EXPECT_EQ(done["results"]["output_bytes"], plan["output_bytes"]);
  EXPECT_EQ(done["results"]["bits_per_weight"], plan["bits_per_weight"]);
  const Result wide = run({"quantize", kDemo, "--dry-run", "--json", "--scale-dtype", "float32"});
  const Json wide_plan = parse_json(wide.out, "stdout");
  EXPECT_EQ(wide_plan["config"]["scale_dtype"], "float32");
  // 16 bits more per group of 128.
  EXPECT_NEAR(wide_plan["results"]["quantized_bits_per_weight"].get<double>(),
              plan["quantized_bits_per_weight"].get<double>() + 0.125, 1e-9);
}

// A recipe file means the flags that it holds: the same plan hash, the same bytes.
TEST(Cli, RecipeFileIsTheSameAsItsFlags) {
  const TemporaryFolder folder;
  spit(folder / "calibration.txt", slurp(kDemoText));
  spit(folder / "r.toml", R"(scheme = "w3a16-g64"
method = "gptq"
router-refit = true
act-order = "off"
damping = 0.02
nsamples = 4
seqlen = 64
gate-weighted = true
calibration = ["calibration.txt"]
override = ["*.self_attn.*=w8a16-g128", "model.layers.0.*=none"]
)");
  const fs::path text = folder / "calibration.txt";
  const std::vector<std::string> flags = {"quantize",
                                          kDemo,
                                          (folder / "a").string(),
                                          "--scheme",
                                          "w3a16-g64",
                                          "--method",
                                          "gptq",
                                          "--router-refit",
                                          "on",
                                          "--act-order",
                                          "off",
                                          "--damping",
                                          "0.02",
                                          "--nsamples",
                                          "4",
                                          "--seqlen",
                                          "64",
                                          "--gate-weighted",
                                          "--calibration",
                                          text.string(),
                                          "--override",
                                          "*.self_attn.*=w8a16-g128",
                                          "model.layers.0.*=none",
                                          "-q"};
  ASSERT_EQ(run(flags).exit_code, 0);
  const Result with_file =
      run({"quantize", kDemo, (folder / "b").string(), "--recipe", (folder / "r.toml").string(), "-q"});
  ASSERT_EQ(with_file.exit_code, 0) << with_file.err;
  EXPECT_EQ(slurp(folder / "a" / "model.safetensors"), slurp(folder / "b" / "model.safetensors"));

  const auto plan = [&](std::vector<std::string> more, std::vector<std::string> environment) {
    Call call;
    call.arguments = {"quantize", kDemo, "--dry-run", "--json", "--recipe", (folder / "r.toml").string()};
    call.arguments.insert(call.arguments.end(), more.begin(), more.end());
    call.environment = std::move(environment);
    const Result result = run(call);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return parse_json(result.out, "stdout")["config"]["scheme"].get<std::string>();
  };
  EXPECT_EQ(plan({}, {}), "w3a16-g64");
  EXPECT_EQ(plan({}, {"KEDGE_SCHEME=w4a16-g64"}), "w4a16-g64");
  EXPECT_EQ(plan({"--scheme", "w2a16-g64"}, {"KEDGE_SCHEME=w4a16-g64"}), "w2a16-g64");
}

TEST(Cli, BrokenRecipeFilesAreNamed) {
  const TemporaryFolder folder;
  const fs::path file = folder / "r.toml";
  const auto refused = [&](const std::string& text, ErrorCode code, const std::string& part) {
    spit(file, text);
    expect_refused({"quantize", kDemo, (folder / "q").string(), "--recipe", file.string()}, code, part);
    EXPECT_FALSE(fs::exists(folder / "q"));
  };
  refused("scheme = \"w3a16-g64\"\nshceme = 3\n", ErrorCode::bad_file, "r.toml:2: the recipe has no key \"shceme\"");
  refused("nsamples = \"four\"\n", ErrorCode::bad_file, "r.toml:1: \"nsamples\" is a text");
  refused("\nnsamples = -4\n", ErrorCode::usage, "r.toml:2: \"nsamples\" is \"-4\"");
  refused("router-refit = \"perhaps\"\n", ErrorCode::usage, "auto, on, off");
  refused("calibration = [\"nowhere.txt\"]\n", ErrorCode::not_found, "nowhere.txt");
  refused("recipe = \"r.toml\"\n", ErrorCode::bad_file, "no key \"recipe\"");
  refused("scheme = \n", ErrorCode::bad_file, "r.toml:1");
  expect_refused({"quantize", kDemo, (folder / "q").string(), "--recipe", (folder / "none.toml").string()},
                 ErrorCode::not_found, "none.toml");
}

}  // namespace
}  // namespace kedge
