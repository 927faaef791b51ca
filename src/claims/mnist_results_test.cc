// docs/results/mnist.md is what its record says, and the record's figures follow from its samples.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "claims/mnist_summary.h"

namespace kedge {
namespace {

const std::filesystem::path kResults = std::filesystem::path(KEDGE_SOURCE_DIR) / "docs/results";

TEST(MnistResults, PageIsWhatItsRecordSays) {
  const Json record = read_json(kResults / "records/mnist.json");
  EXPECT_EQ(record["schema"], "kedge.mnist/1");
  EXPECT_EQ(mnist_markdown(record), read_file(kResults / "mnist.md"))
      << "copy mnist.json and mnist.md of one report to docs/results";
  // The figures follow from the samples.
  std::vector<Json> runs, latencies;
  for (const Json& sample : record["samples"]) (sample.contains("variant") ? runs : latencies).push_back(sample);
  for (Json& run : runs) {
    if (run.contains("routing")) run["routing"]["expert_images"] = record["results"]["shown"]["expert_images"];
  }
  Json again = record;
  again["results"] = summarize_mnist(runs, latencies);
  EXPECT_EQ(mnist_markdown(again), mnist_markdown(record));
}

}  // namespace
}  // namespace kedge
