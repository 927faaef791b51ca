// The quantize trip: what is written, that it opens again, that nothing disturbs it.
#include "kedge/quantize.h"

#include <cmath>
#include <cstring>
#include <set>

#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "kedge/error.h"
#include "model/family.h"
#include "process.h"
#include "ptq/plan.h"

namespace kedge {
namespace {

using trips::folder_content;
using trips::TemporaryFolder;
namespace fs = std::filesystem;

QuantizeOptions options_for(const fs::path& source, const fs::path& destination, const std::string& scheme) {
  QuantizeOptions options;
  options.source = source;
  options.destination = destination;
  options.scheme = scheme;
  options.method = "rtn";
  options.threads = 2;
  set_quiet(true);
  return options;
}

std::vector<LinearRef> linears_of(const Checkpoint& checkpoint) {
  return list_linears(model_spec(checkpoint), family_of(checkpoint.config(), "config.json"));
}

std::vector<float> floats_of(const TensorView& view) {
  std::vector<float> out(static_cast<std::size_t>(view.size()));
  convert_to_float(view.dtype, view.data, view.size(), out.data());
  return out;
}

bool same_bytes(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::memcmp(a.data, b.data, a.num_bytes()) == 0;
}

// A copy of a golden model whose file is made anew from `tensors`.
void copy_model(const fs::path& from, const fs::path& to, const std::map<std::string, Tensor>& tensors) {
  fs::create_directories(to);
  fs::copy_file(from / "config.json", to / "config.json");
  write_safetensors(to / "model.safetensors", tensors);
}

Tensor copy_of(const TensorView& view) {
  Tensor tensor(view.dtype, view.shape);
  std::memcpy(tensor.data<std::byte>(), view.data, view.num_bytes());
  return tensor;
}

ErrorCode code_of(const QuantizeOptions& options, std::string* text = nullptr) {
  try {
    quantize(options);
  } catch (const Error& error) {
    if (text != nullptr) *text = error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::usage;
}

class QuantizeFamilies : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(QuantizeFamilies, ReopensAsRoundToNearestOfTheSource) {
  const auto [family, scheme] = GetParam();
  const TemporaryFolder folder;
  const fs::path source_path = trips::kGoldens + family;
  const QuantizeReport report = quantize(options_for(source_path, folder / "q", scheme));
  const Checkpoint source = Checkpoint::open(source_path), result = Checkpoint::open(folder / "q");
  EXPECT_EQ(result.quant_format(), "compressed-tensors/pack-quantized");

  const QuantArgs asked = parse_scheme(scheme).weights;
  std::set<std::string> module_tensors;
  std::int64_t quantized = 0, fallbacks = 0, weights = 0;
  for (const LinearRef& linear : linears_of(source)) {
    SCOPED_TRACE(linear.module);
    module_tensors.insert(linear.module + ".weight");
    weights += linear.rows * linear.cols;
    const TensorView original = std::get<TensorView>(source.weight(linear.module, linear.rows, linear.cols));
    const WeightData written = result.weight(linear.module, linear.rows, linear.cols);
    if (linear.role == LinearRole::router || linear.role == LinearRole::lm_head) {
      ASSERT_TRUE(std::holds_alternative<TensorView>(written));
      EXPECT_TRUE(same_bytes(original, std::get<TensorView>(written)));
      continue;
    }
    ++quantized;
    QuantArgs expected = asked;
    if (expected.strategy == QuantStrategy::group && linear.cols % expected.group_size != 0) {
      expected.strategy = QuantStrategy::channel;
      expected.group_size = -1;
      ++fallbacks;
    }
    EXPECT_EQ(result.quant_args(linear.module), expected);
    ASSERT_TRUE(std::holds_alternative<QuantTensor>(written));
    const QuantTensor& q = std::get<QuantTensor>(written);
    const QuantTensor rtn = quantize_rtn(floats_of(original), linear.rows, linear.cols, expected, original.dtype);
    EXPECT_EQ(q.codes, rtn.codes);
    EXPECT_EQ(q.scales, rtn.scales);
    EXPECT_EQ(q.zeros, rtn.zeros);
  }
  EXPECT_GT(quantized, 20);
  EXPECT_EQ(report.channel_fallbacks, fallbacks);
  for (const TensorInfo& tensor : source.tensors()) {
    if (module_tensors.contains(tensor.name)) continue;
    weights += num_elements(tensor.shape);
    EXPECT_TRUE(same_bytes(source.tensor(tensor.name), result.tensor(tensor.name))) << tensor.name;
  }
  EXPECT_EQ(report.weights, weights);
  EXPECT_LT(report.output_bytes, report.source_bytes);
}

INSTANTIATE_TEST_SUITE_P(All, QuantizeFamilies,
                         testing::Combine(testing::Values("olmoe", "qwen3_moe", "mixtral", "deepseek_v3"),
                                          testing::Values("w4a16-g32", "w4a16-g32-asym", "w3a16-g32", "w8a16-channel",
                                                          "w2a16-g64-asym", "W4A16")),
                         [](const auto& info) {
                           std::string name = std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Quantize, ConfigNamesWhatLoadersMustLeaveAlone) {
  const TemporaryFolder folder;
  QuantizeOptions options = options_for(trips::kGoldens + "deepseek_v3", folder / "q", "w4a16-g32");
  options.overrides = {{"*.layers.1.*.experts.*", "w8a16-channel"}, {"re:.*layers\\.2\\.self_attn\\.o_proj$", "none"}};
  quantize(options);
  const Json source = read_json(options.source / "config.json");
  Json config = read_json(folder / "q" / std::string("config.json"));
  const Json quantization = config["quantization_config"];
  config.erase("quantization_config");
  EXPECT_EQ(config, source);
  EXPECT_EQ(quantization["quant_method"], "compressed-tensors");
  EXPECT_EQ(quantization["format"], "pack-quantized");
  EXPECT_EQ(quantization["config_groups"]["group_0"]["targets"], Json::array({"Linear"}));

  const auto ignore = quantization["ignore"].get<std::vector<std::string>>();
  const auto ignored = [&](const std::string& module) {
    return std::any_of(ignore.begin(), ignore.end(), [&](const std::string& name) {
      return name.starts_with("re:") ? ModulePattern(name).matches(module) : name == module;
    });
  };
  const Checkpoint result = Checkpoint::open(folder / "q");
  for (const LinearRef& linear : linears_of(result)) {
    EXPECT_EQ(ignored(linear.module), !result.quant_args(linear.module).has_value()) << linear.module;
  }
  EXPECT_TRUE(ignored("lm_head"));
  EXPECT_EQ(scheme_name(*result.quant_args("model.layers.1.mlp.experts.3.gate_proj")), "w8a16-channel");
  EXPECT_EQ(scheme_name(*result.quant_args("model.layers.2.mlp.experts.3.gate_proj")), "w4a16-g32");
  EXPECT_FALSE(result.quant_args("model.layers.2.self_attn.o_proj").has_value());
}

TEST(Quantize, CarriesOverTokenizerAndGenerationFiles) {
  const TemporaryFolder folder;
  quantize(options_for(trips::kDemo, folder / "q", "w4a16-g128"));
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    EXPECT_EQ(trips::slurp(folder / "q" / std::string(name)), trips::slurp(fs::path(trips::kDemo) / name)) << name;
  }
  const std::set<std::string> expected = {"config.json",       "generation_config.json", "kedge.manifest.json",
                                          "model.safetensors", "tokenizer.json",         "tokenizer_config.json"};
  std::set<std::string> names;
  for (const auto& [name, bytes] : folder_content(folder / "q")) names.insert(name);
  EXPECT_EQ(names, expected);
}

TEST(Quantize, ManifestListsEveryModule) {
  const TemporaryFolder folder;
  const QuantizeReport report = quantize(options_for(trips::kDemo, folder / "q", "w4a16-g128"));
  const Json manifest = read_json(folder / "q" / std::string("kedge.manifest.json"));
  EXPECT_EQ(manifest["schema"], "kedge.manifest/1");
  EXPECT_EQ(manifest["recipe"]["scheme"], "w4a16-g128");
  EXPECT_EQ(manifest["recipe_hash"], report.recipe_hash);
  EXPECT_EQ(manifest["source"]["content_hash"], Checkpoint::open(trips::kDemo).content_hash());
  const auto linears = linears_of(Checkpoint::open(trips::kDemo));
  ASSERT_EQ(manifest["modules"].size(), linears.size());
  for (const Json& module : manifest["modules"]) {
    if (module["scheme"] == "none") continue;
    // 4 bits over 128 normal weights: about 0.1; far outside means that something else was measured.
    EXPECT_GT(module["relative_rms_error"].get<double>(), 0.03) << module;
    EXPECT_LT(module["relative_rms_error"].get<double>(), 0.3) << module;
  }
}

// A checkpoint that keeps a layer's experts in two 3-D tensors becomes the same files as one with a matrix each.
TEST(Quantize, FusedExpertsAreWrittenOneByOne) {
  const TemporaryFolder folder;
  const fs::path plain = trips::kGoldens + "qwen3_moe";
  const Checkpoint source = Checkpoint::open(plain);
  std::map<std::string, Tensor> tensors;
  for (const TensorInfo& tensor : source.tensors()) {
    if (tensor.name.find(".experts.") == std::string::npos) tensors[tensor.name] = copy_of(source.tensor(tensor.name));
  }
  for (const LinearRef& linear : linears_of(source)) {
    if (linear.role != LinearRole::expert) continue;
    const bool down = linear.module.ends_with("down_proj");
    const std::int64_t experts = model_spec(source).moe(linear.layer).router.num_experts;
    const std::string name =
        linear.module.substr(0, linear.module.find(".experts.")) + ".experts." + (down ? "down_proj" : "gate_up_proj");
    Tensor& fused = tensors[name];
    if (fused.size() == 0) fused = Tensor(DType::bf16, {experts, down ? linear.rows : 2 * linear.rows, linear.cols});
    const TensorView part = source.tensor(linear.module + ".weight");
    const std::size_t slot =
        down ? static_cast<std::size_t>(linear.expert)
             : static_cast<std::size_t>(linear.expert) * 2 + (linear.module.ends_with("up_proj") ? 1 : 0);
    std::memcpy(fused.data<std::byte>() + slot * part.num_bytes(), part.data, part.num_bytes());
  }
  copy_model(plain, folder / "fused", tensors);
  quantize(options_for(plain, folder / "a", "w4a16-g32"));
  quantize(options_for(folder / "fused", folder / "b", "w4a16-g32"));
  EXPECT_EQ(trips::slurp(folder / "a" / std::string("model.safetensors")),
            trips::slurp(folder / "b" / std::string("model.safetensors")));
  EXPECT_EQ(trips::slurp(folder / "a" / std::string("config.json")),
            trips::slurp(folder / "b" / std::string("config.json")));
}

TEST(Quantize, ThreadsAndShardsChangeNoWeight) {
  const TemporaryFolder folder;
  QuantizeOptions options = options_for(trips::kDemo, folder / "one", "w4a16-g64-asym");
  options.threads = 1;
  quantize(options);
  options.destination = folder / "three";
  options.threads = 3;
  quantize(options);
  EXPECT_EQ(folder_content(folder / "one"), folder_content(folder / "three"));
  options.destination = folder / "shards";
  options.max_shard_bytes = 1'000'000;
  EXPECT_GT(quantize(options).shards, 2);
  const Checkpoint single = Checkpoint::open(folder / "one"), sharded = Checkpoint::open(folder / "shards");
  ASSERT_EQ(single.tensors().size(), sharded.tensors().size());
  for (const TensorInfo& tensor : single.tensors()) {
    EXPECT_TRUE(same_bytes(single.tensor(tensor.name), sharded.tensor(tensor.name))) << tensor.name;
  }
}

TEST(Quantize, DryRunWritesNothingAndPredictsTheSizes) {
  const TemporaryFolder folder;
  QuantizeOptions options = options_for(trips::kDemo, folder / "q", "w4a16-g128");
  options.dry_run = true;
  const QuantizeReport plan = quantize(options);
  EXPECT_TRUE(fs::is_empty(folder.path()));
  options.dry_run = false;
  const QuantizeReport report = quantize(options);
  EXPECT_EQ(plan.output_bytes, report.output_bytes);
  EXPECT_DOUBLE_EQ(plan.bits_per_weight, report.bits_per_weight);
  EXPECT_NEAR(report.quantized_bits_per_weight, 4.125, 0.02);  // + 16 bytes of weight_shape per module
  const std::uint64_t file = fs::file_size(folder / "q" / std::string("model.safetensors"));
  EXPECT_GT(file, report.output_bytes);
  EXPECT_LT(file, report.output_bytes + 200'000);  // the header
}

// Scales of another type are other scales, so other codes: those of round to nearest with that type.
TEST(Quantize, ScaleTypeIsWhatIsStored) {
  const TemporaryFolder folder;
  const fs::path source_path = trips::kGoldens + "olmoe";
  const Checkpoint source = Checkpoint::open(source_path);
  QuantizeOptions options = options_for(source_path, folder / "auto", "w4a16-g32");
  const QuantizeReport as_source = quantize(options);
  std::set<std::string> hashes = {as_source.recipe_hash};
  for (const auto& [name, dtype] :
       {std::pair("float32", DType::f32), {"float16", DType::f16}, {"bfloat16", DType::bf16}}) {
    SCOPED_TRACE(name);
    options.scale_dtype = name;
    options.destination = folder / name;
    options.dry_run = true;
    const QuantizeReport plan = quantize(options);
    options.dry_run = false;
    const QuantizeReport report = quantize(options);
    hashes.insert(report.recipe_hash);
    EXPECT_EQ(read_json(folder / name / "kedge.manifest.json")["recipe"]["scale_dtype"], name);
    const Checkpoint result = Checkpoint::open(folder / name);
    std::uint64_t scales = 0;
    for (const LinearRef& linear : linears_of(source)) {
      const WeightData written = result.weight(linear.module, linear.rows, linear.cols);
      if (!std::holds_alternative<QuantTensor>(written)) continue;
      const QuantTensor& q = std::get<QuantTensor>(written);
      const TensorView original = std::get<TensorView>(source.weight(linear.module, linear.rows, linear.cols));
      const QuantTensor rtn = quantize_rtn(floats_of(original), linear.rows, linear.cols, q.args, dtype);
      ASSERT_EQ(q.scale_dtype, dtype) << linear.module;
      EXPECT_EQ(q.codes, rtn.codes) << linear.module;
      EXPECT_EQ(q.scales, rtn.scales) << linear.module;
      scales += q.scales.size();
    }
    EXPECT_EQ(report.output_bytes, as_source.output_bytes + (dtype == DType::f32 ? 2 * scales : 0));
    EXPECT_EQ(plan.output_bytes, report.output_bytes);
  }
  EXPECT_EQ(hashes.size(), 4u);
  EXPECT_EQ(trips::slurp(folder / "auto/model.safetensors"), trips::slurp(folder / "bfloat16/model.safetensors"));
  options.scale_dtype = "int8";
  std::string text;
  EXPECT_EQ(code_of(options, &text), ErrorCode::usage);
  EXPECT_NE(text.find("bfloat16"), std::string::npos);
}

// The hash names partial folders and manifests: a key at its default must not change it.
TEST(Recipes, HashIsThatOfTheJsonText) {
  Recipe recipe;
  recipe.scheme = parse_scheme("w4a16-g128");
  recipe.method = "rtn";
  // printf '{"scheme":"w4a16-g128","method":"rtn","overrides":[]}' | sha256sum
  EXPECT_EQ(recipe.hash(), "ce227357940e1225033301934a42bc88e0d89663fa7bd08dc1ae653f790d6cd1");
  recipe.scale_dtype = parse_scale_dtype("float16");
  EXPECT_EQ(recipe.to_json().dump(),
            R"({"scheme":"w4a16-g128","method":"rtn","overrides":[],"scale_dtype":"float16"})");
}

TEST(Quantize, RefusesWhatCannotWork) {
  const TemporaryFolder folder;
  const fs::path source = folder / "m";
  fs::copy(trips::kGoldens + "olmoe", source);
  EXPECT_EQ(code_of(options_for(source, source, "w4a16-g32")), ErrorCode::usage);
  EXPECT_EQ(code_of(options_for(source, source / "", "w4a16-g32")), ErrorCode::usage);
  EXPECT_EQ(code_of(options_for(source, source / "q", "w4a16-g32")), ErrorCode::usage);
  EXPECT_EQ(code_of(options_for(folder / "none", folder / "q", "w4a16-g32")), ErrorCode::not_found);
  EXPECT_EQ(code_of(options_for(source, folder / "q", "w5a16")), ErrorCode::usage);
  QuantizeOptions options = options_for(source, folder / "q", "w4a16-g32");
  options.method = "magic";
  std::string text;
  EXPECT_EQ(code_of(options, &text), ErrorCode::usage);
  EXPECT_NE(text.find("rtn"), std::string::npos);
  options = options_for(source, folder / "q", "w4a16-g32");
  for (const char* pattern : {"*.no_such_proj", "re:(", ""}) {
    options.overrides = {{pattern, "w8a16"}};
    EXPECT_EQ(code_of(options), ErrorCode::usage) << pattern;
  }
  options.overrides = {{"*.gate", "w8a16"}};
  EXPECT_EQ(code_of(options), ErrorCode::unsupported);
  fs::create_directories(folder / "full");
  trips::spit(folder / "full" / std::string("notes.txt"), "mine");
  EXPECT_EQ(code_of(options_for(source, folder / "full", "w4a16-g32")), ErrorCode::exists);
  EXPECT_EQ(trips::slurp(folder / "full" / std::string("notes.txt")), "mine");

  quantize(options_for(source, folder / "q", "w4a16-g32"));
  EXPECT_EQ(code_of(options_for(folder / "q", folder / "qq", "w4a16-g32"), &text), ErrorCode::unsupported);
  EXPECT_NE(text.find("from the original"), std::string::npos);
}

TEST(Quantize, NamesTheWeightThatIsNotFinite) {
  const TemporaryFolder folder;
  const Checkpoint source = Checkpoint::open(trips::kGoldens + "olmoe");
  std::map<std::string, Tensor> tensors;
  for (const TensorInfo& tensor : source.tensors()) tensors[tensor.name] = copy_of(source.tensor(tensor.name));
  const std::string victim = "model.layers.1.mlp.experts.3.up_proj";
  tensors[victim + ".weight"].data<bfloat16>()[100] = to_bfloat16(NAN);
  copy_model(trips::kGoldens + "olmoe", folder / "m", tensors);
  std::string text;
  EXPECT_EQ(code_of(options_for(folder / "m", folder / "q", "w4a16-g32"), &text), ErrorCode::bad_file);
  EXPECT_NE(text.find(victim), std::string::npos) << text;
  EXPECT_FALSE(fs::exists(folder / "q"));
}

// kill -9 at ten random moments; then the same command again: the bytes of an undisturbed run, nothing left over.
TEST(Quantize, KilledAndRunAgainGivesTheSameBytes) {
  const TemporaryFolder folder;
  const auto call = [&](const std::string& name) {
    trips::Call call;
    call.arguments = {"quantize", trips::kDemo, (folder / name).string(), "--method", "rtn",
                      "--scheme", "w4a16-g64",  "--max-shard-size",
                      "1",        "--threads",  "2",
                      "--quiet"};
    return call;
  };
  const auto start = std::chrono::steady_clock::now();
  const trips::Result undisturbed = trips::run(call("whole"));
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const auto expected = folder_content(folder / "whole");
  ASSERT_GT(expected.size(), 6u);

  Rng rng(20);
  int killed = 0;
  double span = double(took.count());
  for (int round = 0; round < 10 || (killed < 5 && round < 60); ++round) {
    const std::string name = "killed-" + std::to_string(round);
    trips::Call first = call(name);
    // Spread over the whole run, each moment of it equally likely.
    first.kill_after = std::chrono::microseconds(1 + static_cast<std::int64_t>((round % 10 + rng.uniform()) / 10 * span));
    const bool in_time = trips::run(first).exit_code == 128 + SIGKILL;
    killed += in_time ? 1 : 0;
    if (!in_time) span *= 0.8;  // the first run was slower, as on a busy machine
    // Killed after the rename but before the last file went, the folder is there and a run removes that file.
    if (!fs::exists(folder / name) || folder_content(folder / name) != expected) {
      const trips::Result second = trips::run(call(name));
      ASSERT_EQ(second.exit_code, 0) << second.err;
    }
    EXPECT_TRUE(folder_content(folder / name) == expected) << "round " << round;
    EXPECT_FALSE(fs::exists((folder / name).string() + ".partial"));
  }
  EXPECT_GE(killed, 5);
}

TEST(CompactNames, NeverClaimsAnotherModule) {
  EXPECT_EQ(compact_names({"a.0.q", "a.1.q"}, {"a.0.k"}), (std::vector<std::string>{"re:a\\.\\d+\\.q$"}));
  EXPECT_EQ(compact_names({"a.0.q", "a.1.q"}, {"a.2.q"}), (std::vector<std::string>{"a.0.q", "a.1.q"}));
  EXPECT_EQ(compact_names({"a.0.e.0.q", "a.0.e.1.q"}, {"a.1.e.0.q"}),
            (std::vector<std::string>{"re:a\\.0\\.e\\.\\d+\\.q$"}));
  EXPECT_EQ(compact_names({"lm_head"}, {}), (std::vector<std::string>{"lm_head"}));
}

TEST(ModulePatterns, GlobsMatchWholeNames) {
  EXPECT_TRUE(ModulePattern("*.experts.*.down_proj").matches("model.layers.3.mlp.experts.11.down_proj"));
  EXPECT_FALSE(ModulePattern("*.experts.*.down").matches("model.layers.3.mlp.experts.11.down_proj"));
  EXPECT_TRUE(ModulePattern("*layers.?.*").matches("model.layers.3.mlp"));
  EXPECT_FALSE(ModulePattern("layers.3").matches("model.layers.3"));
  EXPECT_TRUE(ModulePattern("re:model\\.layers\\.[0-3]\\.").matches("model.layers.3.mlp"));
  EXPECT_FALSE(ModulePattern("re:layers").matches("model.layers.3.mlp"));
}

}  // namespace
}  // namespace kedge
