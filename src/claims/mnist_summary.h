// From the records of kedge mnist report to its tables: all that its three forms show, as JSON (docs/formats/mnist.md).
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace kedge {

/// runs: results of execute_mnist_run, latencies: of measure_mnist_latency; the same seeds for each. CHECKs that.
nlohmann::ordered_json summarize_mnist(const std::vector<nlohmann::ordered_json>& runs,
                                       const std::vector<nlohmann::ordered_json>& latencies);

/// For people, of MnistVariant's name; what is none stays.
std::string mnist_label(const std::string& variant);

/// The report's forms, from the whole record alone.
std::string mnist_table(const nlohmann::ordered_json& record);
std::string mnist_markdown(const nlohmann::ordered_json& record);
std::string mnist_html(const nlohmann::ordered_json& record);

}  // namespace kedge
