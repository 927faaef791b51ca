// How an ablation's figures read, in every form of its report.
#pragma once

#include <string>

#include "kedge/ablate.h"

namespace kedge::ablation_text {

std::string percent(const AblationValue& share, int decimals = 3);  ///< "1.234 ± 0.012 %" (half the interval)
std::string number(const AblationValue& value, int digits = 3);     ///< "0.00123 ± 0.00004"
std::string change(const AblationValue& ratio);                     ///< "−12.3 % [−14.1, −10.5]"
std::string correlation(const AblationCorrelation& correlation);    ///< "0.93 [0.88, 0.96]"
/// "" for "pearson": "Pearson"; and what the others are called.
const char* correlation_title(const std::string& name);
std::string title(const AblationReport& report, const AblationTable& table);  ///< "MODEL, SCHEME"
std::string title(const AblationReport& report, const AblationMechanism& mechanism);
/// What the figures are and where their intervals come from: one paragraph.
std::string legend(const AblationReport& report);
std::string mechanism_legend();

}  // namespace kedge::ablation_text
