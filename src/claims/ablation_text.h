// How an ablation's figures read, in every form of its report.
#pragma once

#include <string>
#include <vector>

#include "kedge/ablate.h"

namespace kedge::ablation_text {

std::string percent(const AblationValue& share, int decimals = 3);  ///< "1.234 ± 0.012 %" (half the interval)
std::string number(const AblationValue& value, int digits = 3);     ///< "0.00123 ± 0.00004"
std::string change(const AblationValue& ratio);                     ///< "−12.3 % [−14.1, −10.5]"
std::string points(const AblationValue& difference);                ///< "−0.12 [−0.20, −0.04]", of shares
std::string correlation(const AblationCorrelation& correlation);    ///< "0.93 [0.88, 0.96]"
/// "" for "pearson": "Pearson"; and what the others are called.
const char* correlation_title(const std::string& name);
std::string title(const AblationReport& report, const AblationTable& table);  ///< "MODEL, SCHEME"
std::string title(const AblationReport& report, const AblationMechanism& mechanism);
/// A column for each task, and one for the difference; rows: the original, then the methods. None without tasks.
std::vector<std::string> task_header(const AblationTable& table);
std::vector<std::vector<std::string>> task_rows(const AblationTable& table);
/// What the figures are and where their intervals come from: one paragraph.
std::string legend(const AblationReport& report);
std::string mechanism_legend();

}  // namespace kedge::ablation_text
