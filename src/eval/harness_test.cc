#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/json.h"
#include "base/log.h"
#include "kedge/evaluate.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = KEDGE_SOURCE_DIR;

// tests/goldens/eval: what lm-evaluation-harness says of the bundled model and records (tools/compare_lm_eval.py).
void expect_equal_to_the_harness(const fs::path& golden_file, EvaluateOptions options) {
  const Json golden = read_json(golden_file);
  options.limit = golden["limit"].get<std::int64_t>();
  if (!golden["num_fewshot"].is_null()) options.num_fewshot = golden["num_fewshot"].get<std::int64_t>();
  options.tasks.clear();
  for (const auto& [task, values] : golden["tasks"].items()) options.tasks.push_back(task);
  const EvaluateResult result = evaluate(options);
  ASSERT_EQ(result.tasks.size(), golden["tasks"].size());
  std::size_t compared = 0;
  for (const EvaluateTask& row : result.tasks) {
    SCOPED_TRACE(row.name);
    const Json& expected = golden["tasks"][row.name];
    for (const EvaluateMetric& metric : row.metrics) {
      const double value = expected["metrics"][metric.name].get<double>();
      EXPECT_NEAR(metric.value, value, 1e-4 * std::max(1.0, std::fabs(value))) << metric.name;
      std::string error = metric.name;
      error.insert(error.find(','), "_stderr");
      if (expected["metrics"].contains(error)) {
        EXPECT_NEAR(metric.standard_error, expected["metrics"][error].get<double>(), 1e-6) << error;
      }
    }
    std::ifstream in(options.out / ("samples_" + row.name + ".jsonl"));
    for (const Json& resps : expected["resps"]) {
      std::string line;
      ASSERT_TRUE(std::getline(in, line));
      const Json sample = parse_json(line, "sample");
      ASSERT_EQ(sample["resps"].size(), resps.size());
      for (std::size_t i = 0; i < resps.size(); ++i, ++compared) {
        EXPECT_NEAR(sample["resps"][i][0].get<double>(), resps[i][0].get<double>(), 1e-3);
        EXPECT_EQ(sample["resps"][i][1], resps[i][1]);
      }
    }
  }
  EXPECT_GT(compared, 30u);
}

class HarnessTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "kedge-harness-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    set_quiet(true);
  }
  void TearDown() override {
    set_quiet(false);
    fs::remove_all(folder_);
  }
  EvaluateOptions options() const {
    EvaluateOptions out;
    out.model = kRoot / "models/demo-4m";
    out.out = folder_ / "out";
    out.runtime.threads = 2;
    return out;
  }
  fs::path folder_;
};

TEST_F(HarnessTest, EqualsLmEvaluationHarness) {
  expect_equal_to_the_harness(kRoot / "tests/goldens/eval/lm_eval.json", options());
}

TEST_F(HarnessTest, EqualsItWithExamplesToo) {
  expect_equal_to_the_harness(kRoot / "tests/goldens/eval/lm_eval_fewshot.json", options());
}

}  // namespace
}  // namespace kedge
