// kedge mnist report: runs -> records -> mnist.json -> its three forms.
#include "kedge/mnist.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "base/check.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "claims/mnist_runs.h"
#include "claims/mnist_summary.h"
#include "kedge/error.h"
#include "record/envelope.h"
#include "record/out_folder.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJson = "mnist.json";
constexpr const char* kHtml = "mnist.html";
constexpr const char* kMarkdown = "mnist.md";

void check(const MnistReportOptions& options) {
  const auto range = [](const char* name, std::int64_t value, std::int64_t high) {
    if (value >= 1 && value <= high) return;
    throw Error(ErrorCode::usage, fmt::format("{} is {}", name, value), fmt::format("from 1 to {}", high));
  };
  range("seeds", options.seeds, 1000);
  range("epochs", options.epochs, 1'000'000);
  range("latency_rounds", options.latency_rounds, 1'000'000);
  if (options.data.empty())
    throw Error(ErrorCode::usage, "the images are not given", "--data DIR, the four files of MNIST");
  if (options.out.empty()) throw Error(ErrorCode::usage, "there is no place for the result", "--out DIR");
}

class Report {
 public:
  Report(const MnistReportOptions& options, TrainFunction train) : options_(options), train_(train) {}
  MnistReport run();

 private:
  void run_all();
  void work();
  Json provenance_json() const;
  Json latency_of(std::uint64_t seed);
  Json latency_config(std::uint64_t seed) const;
  fs::path runs_folder() const { return options_.out / "runs"; }

  MnistReportOptions options_;
  TrainFunction train_;
  MnistData data_;
  std::vector<MnistRun> runs_;
  std::vector<std::optional<Json>> results_;  ///< by run
  std::atomic<std::size_t> next_ = 0;
  std::mutex mutex_;  ///< of the members below
  std::exception_ptr failed_;
  std::optional<Progress> progress_;
  MnistReport report_;
};

Json Report::provenance_json() const {
  Provenance provenance =
      make_provenance({.isa = detect_isa()}, options_.threads > 0 ? options_.threads : usable_cpus());
  provenance.inputs.push_back({"train", options_.data.string(), data_.train.content_hash});
  provenance.inputs.push_back({"test", options_.data.string(), data_.test.content_hash});
  for (std::int64_t seed = 1; seed <= options_.seeds; ++seed)
    provenance.seeds.push_back(static_cast<std::uint64_t>(seed));
  return to_json(provenance);
}

void Report::work() {
  while (true) {
    const std::size_t i = next_++;
    {
      const std::lock_guard lock(mutex_);
      if (i >= runs_.size() || failed_) return;
    }
    if (results_[i]) continue;
    try {
      throw_if_interrupted();
      Json results = execute_mnist_run(options_, runs_[i], data_, train_);
      write_mnist_record(runs_folder() / (runs_[i].stem() + ".json"), kMnistRunSchema, options_.data, data_,
                         mnist_run_config(options_, runs_[i], data_), results);
      const std::lock_guard lock(mutex_);
      results_[i].emplace(std::move(results));
      progress_->update(++report_.runs_done, runs_[i].stem());
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failed_) failed_ = std::current_exception();
    }
  }
}

void Report::run_all() {
  for (std::int64_t seed = 1; seed <= options_.seeds; ++seed) {
    for (const MnistVariant& variant : mnist_variants()) runs_.push_back({&variant, static_cast<std::uint64_t>(seed)});
  }
  for (const MnistRun& run : runs_) {
    results_.push_back(
        read_mnist_record(runs_folder() / (run.stem() + ".json"), mnist_run_config(options_, run, data_)));
    report_.runs_resumed += results_.back() ? 1 : 0;
  }
  const std::int64_t missing = static_cast<std::int64_t>(runs_.size()) - report_.runs_resumed;
  if (missing == 0) return;
  progress_.emplace("mnist", missing, "runs");
  const int workers =
      static_cast<int>(std::min<std::int64_t>(missing, options_.threads > 0 ? options_.threads : usable_cpus()));
  {
    progress_->update(0, fmt::format("{} at once", workers));
    std::vector<std::thread> threads;
    for (int w = 0; w < workers; ++w) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
  }
  if (failed_) {
    try {
      std::rethrow_exception(failed_);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::interrupted) throw;
      throw Error(ErrorCode::interrupted,
                  fmt::format("interrupted with {} runs to go; what is finished is kept in {}",
                              missing - report_.runs_done, runs_folder().string()),
                  "", "run the same command with --resume to go on");
    }
  }
  progress_->finish();
}

Json Report::latency_config(std::uint64_t seed) const {
  return {{"seed", seed},
          {"rounds", options_.latency_rounds},
          {"epochs", options_.epochs},
          {"train_images", data_.train.content_hash},
          {"isa", isa_name(detect_isa())}};
}

Json Report::latency_of(std::uint64_t seed) {
  const fs::path file = runs_folder() / fmt::format("latency_seed{}.json", seed);
  const Json config = latency_config(seed);
  if (std::optional<Json> results = read_mnist_record(file, config)) return *results;
  Json results = measure_mnist_latency(options_, seed, data_);
  write_mnist_record(file, "kedge.mnist-latency/1", options_.data, data_, config, results);
  return results;
}

MnistReport Report::run() {
  const auto start = std::chrono::steady_clock::now();
  check(options_);
  if (!options_.resume) {
    require_free(options_.out, {kJson, kHtml, kMarkdown}, false);
    std::error_code ignored;
    if (fs::exists(runs_folder(), ignored) && !fs::is_empty(runs_folder(), ignored)) {
      throw Error(ErrorCode::exists, runs_folder().string() + " holds runs", "",
                  "give --resume to go on with them, or choose another --out");
    }
  }
  data_.train = read_mnist(options_.data, MnistPart::train);
  data_.test = read_mnist(options_.data, MnistPart::test);
  const OutFolder out(options_.out);
  std::error_code error;
  fs::create_directories(runs_folder(), error);
  if (error) throw Error(ErrorCode::io, "cannot create " + runs_folder().string() + ": " + error.message());
  run_all();

  std::vector<Json> runs, latencies;
  for (std::optional<Json>& results : results_) runs.push_back(std::move(*results));
  for (std::int64_t seed = 1; seed <= options_.seeds; ++seed)
    latencies.push_back(latency_of(static_cast<std::uint64_t>(seed)));
  Json results = summarize_mnist(runs, latencies);
  Json samples = Json::array();
  for (Json& run : runs) {
    if (run.contains("routing")) run["routing"].erase("expert_images");
    samples.push_back(std::move(run));
  }
  for (Json& latency : latencies) samples.push_back(std::move(latency));
  const Json config = {{"seeds", options_.seeds},
                       {"epochs", options_.epochs},
                       {"latency_rounds", options_.latency_rounds},
                       {"run", mnist_run_config(options_, runs_[0], data_)},
                       {"calibration_images", mnist_run_config(options_, runs_[0], data_).at("calibration_images")}};
  const Json record = {{"schema", "kedge.mnist/1"},
                       {"provenance", provenance_json()},
                       {"config", config},
                       {"results", std::move(results)},
                       {"samples", std::move(samples)}};
  if (!options_.keep) fs::remove_all(options_.out / "models");
  report_.json = envelope_text(record);
  report_.table = mnist_table(record);
  write_file_atomically(options_.out / kHtml, mnist_html(record));
  write_file_atomically(options_.out / kMarkdown, mnist_markdown(record));
  write_file_atomically(options_.out / kJson, report_.json);
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report_;
}

}  // namespace

MnistReport mnist_report(const MnistReportOptions& options, TrainFunction train) {
  KEDGE_CHECK(train != nullptr);
  return Report(options, train).run();
}

}  // namespace kedge
