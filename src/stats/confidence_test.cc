#include "stats/confidence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/json.h"

namespace kedge {
namespace {

TEST(Confidence, EqualsScikitLearn) {
  const Json golden = read_json(std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/goldens/confidence.json");
  ASSERT_EQ(golden["cases"].size(), 4u);
  for (const Json& c : golden["cases"]) {
    SCOPED_TRACE(c["name"].get<std::string>());
    const auto confidence = c["confidence"].get<std::vector<double>>();
    const auto correct = c["correct"].get<std::vector<int>>();
    const auto probabilities = c["probabilities"].get<std::vector<std::vector<double>>>();
    const auto gold = c["gold"].get<std::vector<std::size_t>>();
    EXPECT_NEAR(expected_calibration_error(confidence, correct, 10, Binning::equal_width),
                c["ece_equal_width"].get<double>(), 1e-12);
    EXPECT_NEAR(expected_calibration_error(confidence, correct, 15, Binning::equal_width),
                c["ece_equal_width_15"].get<double>(), 1e-12);
    EXPECT_NEAR(expected_calibration_error(confidence, correct, 10, Binning::equal_mass),
                c["ece_equal_mass"].get<double>(), 1e-12);
    EXPECT_NEAR(brier_score(confidence, correct), c["brier"].get<double>(), 1e-12);
    EXPECT_NEAR(multiclass_brier_score(probabilities, gold), c["brier_multiclass"].get<double>(), 1e-12);
    EXPECT_NEAR(auroc(confidence, correct), c["auroc"].get<double>(), 1e-12);
  }
}

TEST(Confidence, CalibrationByHand) {
  // Bins (0.4, 0.5], (0.8, 0.9]: gaps |0.5 - 0.5| * 2/4 and |0.5 - 0.85| * 2/4.
  const std::vector<double> confidence = {0.5, 0.5, 0.85, 0.85};
  const std::vector<int> correct = {0, 1, 1, 0};
  EXPECT_NEAR(expected_calibration_error(confidence, correct, 10, Binning::equal_width), 0.175, 1e-15);
  EXPECT_NEAR(expected_calibration_error(confidence, correct, 1, Binning::equal_mass), 0.175, 1e-15);
  // The ends of the scale have bins.
  EXPECT_EQ(expected_calibration_error(std::vector<double>{0, 1}, std::vector<int>{0, 1}, 10, Binning::equal_width), 0);
  // All confidences equal: one bin, however many are asked for.
  EXPECT_NEAR(
      expected_calibration_error(std::vector<double>(4, 0.25), std::vector<int>{1, 0, 0, 0}, 10, Binning::equal_mass),
      0, 1e-15);
}

TEST(Confidence, AreaIsAMultipleOfHalfAPair) {
  // 2 right, 3 wrong: pairs (0.9; 0.8, 0.7, 0.7), (0.7; ...): 3 + (0 + 0.5 + 0.5) of 6.
  EXPECT_NEAR(auroc(std::vector<double>{0.9, 0.7, 0.8, 0.7, 0.7}, std::vector<int>{1, 1, 0, 0, 0}), 4.0 / 6, 1e-15);
  EXPECT_TRUE(std::isnan(auroc(std::vector<double>{0.1, 0.2}, std::vector<int>{1, 1})));
  EXPECT_TRUE(std::isnan(auroc(std::vector<double>{}, std::vector<int>{})));
}

TEST(Confidence, RiskCoverage) {
  // Risks 0/1, 1/2, 1/3, 2/4.
  EXPECT_NEAR(aurc(std::vector<double>{0.9, 0.8, 0.7, 0.6}, std::vector<int>{1, 0, 1, 0}),
              (0 + 1.0 / 2 + 1.0 / 3 + 2.0 / 4) / 4, 1e-15);
  // Ties: the mean over both orders of the last two, 2/3 or 1/3 behind 1/2.
  EXPECT_NEAR(aurc(std::vector<double>{0.9, 0.8, 0.5, 0.5}, std::vector<int>{1, 0, 1, 0}),
              (0 + 1.0 / 2 + (2.0 / 3 + 1.0 / 3) / 2 + 2.0 / 4) / 4, 1e-15);
  EXPECT_TRUE(std::isnan(aurc(std::vector<double>{}, std::vector<int>{})));
}

TEST(Confidence, ConfidentWrongHasADenominator) {
  const ConfidentWrong some =
      confident_wrong(std::vector<double>{0.8, 0.79, 0.95, 1.0}, std::vector<int>{0, 0, 1, 0}, 0.8);
  EXPECT_EQ(some.confident, 3);
  EXPECT_EQ(some.wrong, 2);
  EXPECT_NEAR(some.rate(), 2.0 / 3, 1e-15);
  EXPECT_TRUE(std::isnan(confident_wrong(std::vector<double>{0.1}, std::vector<int>{0}, 0.8).rate()));
}

TEST(Confidence, Brier) {
  EXPECT_NEAR(brier_score(std::vector<double>{0.75, 0.5}, std::vector<int>{1, 0}), (0.0625 + 0.25) / 2, 1e-15);
  const std::vector<std::vector<double>> p = {{0.5, 0.25, 0.25}};
  EXPECT_NEAR(multiclass_brier_score(p, std::vector<std::size_t>{0}), 0.25 + 0.0625 + 0.0625, 1e-15);
  EXPECT_TRUE(std::isnan(brier_score(std::vector<double>{}, std::vector<int>{})));
}

}  // namespace
}  // namespace kedge
