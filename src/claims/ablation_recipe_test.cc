#include "claims/ablation_recipe.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <set>
#include <type_traits>

#include "base/json.h"
#include "claims/method_keys.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGood = R"(models = ["model"]
texts = ["a.txt"]
schemes = ["w4a16-g128", "w2a16-g32"]
seeds = [3, 1]
baseline = "plain"
[calibration]
files = ["c.txt"]
nsamples = 8
seqlen = 64
[audit]
limit = 5
[[methods]]
name = "plain"
method = "rtn"
[[methods]]
name = "best"
method = "gptq"
router-refit = true
damping = 1
nsamples = 4
override = ["*.q_proj=none", "re:a=b=w8a16"]
)";

class AblationRecipeTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "kedge-recipe-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    fs::create_directory(folder_ / "model");
    write("a.txt", "text");
    write("c.txt", "text");
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }

  AblationRecipe read(const std::string& text) {
    write("r.toml", text);
    return read_ablation_recipe(folder_ / "r.toml");
  }

  // kGood with one piece replaced must be refused at that line with these words.
  void expect_refused(const std::string& from, const std::string& to, int line, const std::string& words,
                      ErrorCode code = ErrorCode::bad_file) {
    SCOPED_TRACE(to);
    std::string text = kGood;
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, from.size(), to);
    try {
      read(text);
      ADD_FAILURE() << "not refused";
    } catch (const Error& error) {
      const std::string said = error.what();
      EXPECT_EQ(error.code(), code) << said;
      EXPECT_NE(said.find("r.toml:" + std::to_string(line) + ": "), std::string::npos) << said;
      EXPECT_NE(said.find(words), std::string::npos) << said;
      EXPECT_EQ(said.find('\n'), std::string::npos) << said;
    }
  }

  fs::path folder_;
};

TEST_F(AblationRecipeTest, ReadsEveryKey) {
  const AblationRecipe recipe = read(kGood);
  EXPECT_EQ(recipe.models, (std::vector<fs::path>{folder_ / "model"}));
  EXPECT_EQ(recipe.texts, (std::vector<fs::path>{folder_ / "a.txt"}));
  EXPECT_EQ(recipe.schemes, (std::vector<std::string>{"w4a16-g128", "w2a16-g32"}));
  EXPECT_EQ(recipe.seeds, (std::vector<std::uint64_t>{3, 1}));
  EXPECT_EQ(recipe.baseline, 0u);
  EXPECT_EQ(recipe.audit_limit, 5);
  EXPECT_EQ(recipe.audit_seqlen, 256);
  EXPECT_TRUE(recipe.whole);
  EXPECT_FALSE(recipe.layers);
  ASSERT_EQ(recipe.methods.size(), 2u);
  EXPECT_EQ(recipe.methods[0].line, 12);
  const QuantizeOptions &plain = recipe.methods[0].options, &best = recipe.methods[1].options;
  EXPECT_EQ(plain.method, "rtn");
  EXPECT_EQ(plain.calibration.files, (std::vector<fs::path>{folder_ / "c.txt"}));
  EXPECT_EQ(plain.calibration.nsamples, 8);
  EXPECT_EQ(plain.calibration.seqlen, 64);
  EXPECT_EQ(best.calibration.nsamples, 4);
  EXPECT_EQ(best.calibration.seqlen, 64);
  EXPECT_EQ(best.router_refit, true);
  EXPECT_EQ(best.damping, 1.0);
  ASSERT_EQ(best.overrides.size(), 2u);
  EXPECT_EQ(best.overrides[1].pattern, "re:a=b");
  EXPECT_EQ(best.overrides[1].scheme, "w8a16");
  EXPECT_EQ(method_settings(plain).dump(), R"({"method":"rtn"})");
  EXPECT_EQ(method_settings(best).dump(),
            R"({"method":"gptq","override":["*.q_proj=none","re:a=b=w8a16"],"router-refit":true,"damping":1.0})");
}

TEST_F(AblationRecipeTest, ErrorsNameTheLine) {
  expect_refused("seeds = [3, 1]", "seeds = [3, 1", 5, "");
  expect_refused("seeds = [3, 1]", "seeds = [3, \"1\"]", 4, "\"seeds\" is a text");
  expect_refused("seeds = [3, 1]", "seeds = []", 4, "empty");
  expect_refused("seeds = [3, 1]", "seeds = [3, -1]", 4, "a seed is -1");
  expect_refused("seeds = [3, 1]", "seeds = [3, 3]", 4, "twice");
  expect_refused("seeds = [3, 1]", "seeds = [2020-01-01]", 4, "dates");
  expect_refused("seeds = [3, 1]", "", 1, "no \"seeds\"");
  expect_refused("models = [\"model\"]", "models = [\"modell\"]", 1, "not there", ErrorCode::not_found);
  expect_refused("models = [\"model\"]", "models = \"model\"", 1, "\"models\" is a text");
  expect_refused("texts = [\"a.txt\"]", "texts = [\"b.txt\"]", 2, "not there", ErrorCode::not_found);
  expect_refused("texts = [\"a.txt\"]", "texts = [\"a.txt\", \"a.txt\"]", 2, "twice");
  expect_refused("schemes = ", "shemes = ", 1, "no \"schemes\"");
  expect_refused("baseline = \"plain\"", "baseline = \"plane\"", 5, "one of best, plain");
  expect_refused("nsamples = 8", "nsamples = -8", 8, "\"nsamples\" is -8");
  expect_refused("seqlen = 64", "sequence = 64", 9, "[calibration] has no key \"sequence\"");
  expect_refused("[audit]", "[audits]", 10, "no key \"audits\"");
  expect_refused("limit = 5", "limit = 5.0", 11, "\"limit\" is a number");
  expect_refused("name = \"best\"", "name = \"plain\"", 15, "two methods");
  expect_refused("name = \"best\"", "", 15, "no \"name\"");
  expect_refused("method = \"gptq\"", "", 15, "no \"method\"");
  expect_refused("router-refit = true", "router-refit = 1", 18, "\"router-refit\" is an integer");
  expect_refused("router-refit = true", "router_refit = true", 18, "no key \"router_refit\"");
  expect_refused("router-refit = true", "seed = 3", 18, "\"seeds\"");
  expect_refused("router-refit = true", "scheme = \"w3a16\"", 18, "\"schemes\"");
  expect_refused("damping = 1", "damping = nan", 19, "finite");
  expect_refused("nsamples = 4", "nsamples = -4", 15, "negative");
  expect_refused("\"*.q_proj=none\"", "\"*.q_proj\"", 21, "an override");
  expect_refused("[audit]\nlimit = 5", "[sensitivity]\nwhole = false", 10, "neither");
  expect_refused("limit = 5", "limit = 5\n[eval]\nlimit = 3", 12, "no \"tasks\"");
  expect_refused("limit = 5", "limit = 5\n[eval]\ntasks = []", 13, "empty");
  expect_refused("limit = 5", "limit = 5\n[eval]\ntasks = [\"a\"]\nlimits = 3", 14, "no key \"limits\"");
}

TEST_F(AblationRecipeTest, TasksAreNamesOrPathsFromItsFolder) {
  std::string text = kGood;
  text.replace(text.find("[audit]"), 0,
               "[eval]\ntasks = [\"blimp\", \"own/t.toml\"]\ndata-dir = \"records\"\nlimit = 7\n");
  const AblationEval eval = read(text).eval;
  EXPECT_EQ(eval.tasks, (std::vector<std::string>{"blimp", (folder_ / "own/t.toml").string()}));
  EXPECT_EQ(eval.data_dir, folder_ / "records");
  EXPECT_EQ(eval.limit, 7);
  EXPECT_EQ(eval.num_fewshot, -1);
  EXPECT_TRUE(read(kGood).eval.tasks.empty());
}

TEST_F(AblationRecipeTest, MissingRecipe) {
  try {
    read_ablation_recipe(folder_ / "none.toml");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_found);
  }
}

TEST(AblationRecipes, OfTheRepositoryAreSound) {
  const fs::path root = KEDGE_SOURCE_DIR;
  const AblationRecipe methods = read_ablation_recipe(root / "recipes/ablation-methods.toml");
  EXPECT_GE(methods.seeds.size(), 5u);
  EXPECT_TRUE(methods.whole);
  const AblationRecipe mechanism = read_ablation_recipe(root / "recipes/mechanism.toml");
  EXPECT_TRUE(mechanism.layers);
  for (const AblationMethodRecipe& method : mechanism.methods) EXPECT_FALSE(method.options.router_refit.value_or(false)) << method.name;
}

// Runs of equal settings are one run: what a key changes must be among them, but for the calibration data itself, which
// is hashed apart.
TEST(MethodKeys, EachChangesTheSettings) {
  const std::set<std::string_view> of_the_data = {"calibration", "calibration-field", "nsamples", "seqlen"};
  const auto plain = method_settings(QuantizeOptions{});
  for (const MethodKey& key : method_keys()) {
    QuantizeOptions options;
    std::visit(
        [](auto* field) {
          using Field = std::remove_pointer_t<decltype(field)>;
          if constexpr (std::is_same_v<Field, bool>) {
            *field = !*field;
          } else if constexpr (std::is_same_v<Field, std::optional<bool>>) {
            *field = true;
          } else if constexpr (std::is_arithmetic_v<Field>) {
            *field += 1;
          } else if constexpr (std::is_same_v<Field, std::string>) {
            *field += "x";
          } else {
            field->emplace_back();
          }
        },
        key.field(options));
    EXPECT_EQ(method_settings(options) == plain, of_the_data.contains(key.name)) << key.name;
  }
}

}  // namespace
}  // namespace kedge
