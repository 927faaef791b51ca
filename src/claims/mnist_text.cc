// The report as text: for a terminal, and as docs/results/mnist.md.
#include <cmath>

#include <fmt/format.h>

#include "base/json.h"
#include "claims/mnist_summary.h"
#include "report/table.h"
#include "report/text.h"

namespace kedge {
namespace {

struct Value {
  double mean = std::nan(""), half = std::nan("");
};
Value value_of(const Json& json) {
  if (json.is_null()) return {};
  return {json.at("mean").get<double>(), json.at("high").is_null()
                                             ? std::nan("")
                                             : (json.at("high").get<double>() - json.at("low").get<double>()) / 2};
}

/// "98.71 ± 0.05"; the half width is left out where there is none.
std::string scaled(const Json& json, double factor, int decimals) {
  const Value v = value_of(json);
  if (std::isnan(v.mean)) return "";
  const std::string mean = fmt::format("{:.{}f}", factor * v.mean, decimals);
  return std::isnan(v.half) ? mean : fmt::format("{} ± {:.{}f}", mean, factor * v.half, decimals);
}

std::string signed_points(const Json& json) {
  if (json.is_null()) return "";
  const std::string mean = fmt::format("{:+.3f}", 100 * json.at("mean").get<double>());
  if (json.at("low").is_null()) return mean;
  return fmt::format("{} [{:+.3f}, {:+.3f}]", mean, 100 * json.at("low").get<double>(),
                     100 * json.at("high").get<double>());
}

std::string kilobytes(const Json& bytes) { return fmt::format("{:.1f}", bytes.get<double>() / 1e3); }

/// Microseconds; the figure's mean over the seeds.
std::string micros(const Json& row, const char* batch, const char* figure) {
  if (!row.contains("latency")) return "";
  return fmt::format("{:.1f}", 1e6 * row.at("latency").at(batch).at(figure).at("mean").get<double>());
}
std::string faster(const Json& row) {
  if (!row.contains("latency") || row.at("latency").at("64").at("faster").is_null()) return "";
  return fmt::format("{:.2f}", row.at("latency").at("64").at("faster").at("mean").get<double>());
}

using Cells = std::vector<std::string>;

const Cells kHeader = {
    "network", "test accuracy %", "against fp32, points", "train accuracy %", "test loss",        "KB",
    "smaller", "batch 1, p50 µs", "batch 1, p95 µs",      "batch 64, p50 µs", "batch 64, p95 µs", "faster"};

Cells row_cells(const Json& row) {
  return {row.at("name").get<std::string>(),
          scaled(row.at("test_accuracy"), 100, 2),
          signed_points(row.at("difference")),
          scaled(row.at("train_accuracy"), 100, 2),
          scaled(row.at("test_loss"), 1, 4),
          kilobytes(row.at("bytes")),
          row.at("form") == Json("fp32") ? "" : fmt::format("{:.2f}", row.at("smaller").get<double>()),
          micros(row, "1", "p50"),
          micros(row, "1", "p95"),
          micros(row, "64", "p50"),
          micros(row, "64", "p95"),
          faster(row)};
}

std::string line(const Cells& cells) {
  std::string out = "|";
  for (const std::string& cell : cells) out += " " + cell + " |";
  return out + "\n";
}

/// text: the first columns, aligned left.
std::string head(const Cells& cells, std::size_t text = 1) {
  std::string out = line(cells) + "|";
  for (std::size_t i = 0; i < cells.size(); ++i) out += i < text ? "---|" : "---:|";
  return out + "\n";
}

std::string confusion_text(const Json& counts) {
  Cells header{"digit"};
  for (int d = 0; d < 10; ++d) header.push_back(std::to_string(d));
  std::string out = head(header);
  for (std::size_t a = 0; a < 10; ++a) {
    Cells cells{std::to_string(a)};
    for (std::size_t b = 0; b < 10; ++b) {
      const auto n = counts.at(a).at(b).get<std::int64_t>();
      cells.push_back(n == 0 ? "" : std::to_string(n));
    }
    out += line(cells);
  }
  return out;
}

std::string introduction(const Json& record) {
  const Json &config = record.at("config"), &provenance = record.at("provenance");
  return fmt::format(
      "# Dense and sparse networks on MNIST\n\n"
      "Generated from [records/mnist.json](records/mnist.json) by `kedge mnist report` (kedge {}, build {}, {}, {}, "
      "{}):\n"
      "{} seeds, {} epochs, batch 64, Adam. Means over the seeds with 95 % intervals; differences are paired by seed. "
      "The\n"
      "dense network is 784-256-128-10; the MoE has 784-256, four experts 256-256-256 of which an image gets one, and\n"
      "256-10. Capacity 1.25, noisy gating and Switch's balance loss in training; static scales from {} training "
      "images\n"
      "(observer min-max). Latency is one pass of the model alone on one thread, all networks in turn, {} rounds per\n"
      "seed. [../mnist.md](../mnist.md) has the method.\n",
      provenance.at("git_hash").get<std::string>().substr(0, 10), provenance.at("build_type").get<std::string>(),
      provenance.at("cpu").get<std::string>(), provenance.at("isa").get<std::string>(),
      provenance.at("date").get<std::string>().substr(0, 10), record.at("results").at("seeds").dump(),
      config.at("epochs").dump(), config.at("calibration_images").dump(), config.at("latency_rounds").dump());
}

std::string claims_text(const Json& results) {
  std::string out = "\n## What the report said, measured\n\n" + head({"claim", "the report", "here", "verdict"}, 4);
  for (const Json& claim : results.at("claims")) {
    out += line({claim.at("claim").get<std::string>(), claim.at("paper").get<std::string>(),
                 claim.at("measured").get<std::string>(), claim.at("verdict").get<std::string>()});
  }
  return out +
         "\nUpheld or refuted: the whole interval lies on one side of the bound, which is 0.1 points where accuracy is "
         "kept\n"
         "or lost, 1 for ratios of times and 0 for other differences.\n";
}

std::string paper_rows(const Json& results) {
  std::string out = "\nThe report's rows: ";
  std::string list;
  for (const Json& row : results.at("rows")) {
    const auto paper = row.at("paper").get<std::string>();
    if (paper.empty()) continue;
    list += fmt::format("{}{} is \"{}\"", list.empty() ? "" : "; ", paper, row.at("name").get<std::string>());
  }
  return out + list + ".\n";
}

std::string experts_text(const Json& results) {
  std::string out = "\n## Experts\n\n" + head({"network", "least used %", "busiest %", "entropy of the load",
                                               "of the router", "over capacity, training %", "over capacity, test %",
                                               "I(expert; digit), nats", "by chance", "p at most"});
  for (const Json& row : results.at("experts")) {
    out += line({mnist_label(row.at("variant").get<std::string>()), scaled(row.at("least_load"), 100, 1),
                 scaled(row.at("most_load"), 100, 1), scaled(row.at("load_entropy"), 1, 3),
                 scaled(row.at("router_entropy"), 1, 3), scaled(row.at("over_capacity_training"), 100, 2),
                 scaled(row.at("over_capacity_test"), 100, 2), scaled(row.at("mutual_information"), 1, 3),
                 scaled(row.at("null_mean"), 1, 4), fmt::format("{:.3f}", row.at("largest_p").get<double>())});
  }
  out +=
      "\nLoads are shares of the test images' choices; entropies are relative to equal shares. Choices over capacity "
      "are not\n"
      "computed in training; in inference all are, and the share is what a batch of 64 would have lost. I counts the "
      "first\n"
      "choice; by chance: its mean when the digits are put in a random order.\n\n";
  const Json& shown = results.at("shown");
  out += fmt::format("Test images of each digit by expert, seed {}:\n\n", shown.at("seed").dump());
  Cells header{"expert"};
  for (int d = 0; d < 10; ++d) header.push_back(std::to_string(d));
  out += head(header);
  for (std::size_t e = 0; e < shown.at("counts").size(); ++e) {
    Cells cells{std::to_string(e)};
    for (const Json& n : shown.at("counts").at(e)) cells.push_back(n.dump());
    out += line(cells);
  }
  return out;
}

std::string observers_text(const Json& results) {
  std::string out = "\n## Observers of static scales\n\n" +
                    head({"network", "observer", "test accuracy %", "against fp32, points"}, 2);
  for (const Json& row : results.at("observers")) {
    out += line({mnist_label(row.at("variant").get<std::string>()), row.at("observer").get<std::string>(),
                 scaled(row.at("test_accuracy"), 100, 2), signed_points(row.at("difference"))});
  }
  return out;
}

std::string by_error_text(const Json& results) {
  std::string out = "\n## Routing by reconstruction error\n\n" +
                    head({"against", "test accuracy, points", "test loss", "time at batch 64, times"});
  for (const Json& row : results.at("by_error")) {
    out += line({mnist_label(row.at("baseline").get<std::string>()), signed_points(row.at("test_accuracy")),
                 scaled(row.at("test_loss"), 1, 4), scaled(row.at("time"), 1, 2)});
  }
  return out +
         "\nAn image goes to the two experts whose linear autoencoders (256-32, tied) give it back best. Its figures "
         "less\n"
         "the other network's, or over them, fp32, paired by seed.\n";
}

std::string cost_text(const Json& results) {
  std::string out =
      "\n## What an image costs\n\n" + head({"network", "parameters", "of them used", "multiplications and additions"});
  for (const Json& row : results.at("cost")) {
    out +=
        line({mnist_label(row.at("variant").get<std::string>()), format_count(row.at("parameters").get<std::int64_t>()),
              format_count(row.at("active_parameters").get<std::int64_t>()),
              format_count(row.at("flops").get<std::int64_t>())});
  }
  return out;
}

}  // namespace

std::string mnist_table(const Json& record) {
  const Json& results = record.at("results");
  TextTable table(kHeader);
  std::string variant;
  for (const Json& row : results.at("rows")) {
    if (!variant.empty() && row.at("variant") != Json(variant)) table.add_rule();
    variant = row.at("variant").get<std::string>();
    table.add_row(row_cells(row));
  }
  TextTable claims({"claim", "verdict", "measured"}, {Align::left, Align::left, Align::left});
  for (const Json& claim : results.at("claims")) {
    claims.add_row({claim.at("claim").get<std::string>(), claim.at("verdict").get<std::string>(),
                    claim.at("measured").get<std::string>()});
  }
  return table.str() + "\n" + claims.str();
}

std::string mnist_markdown(const Json& record) {
  const Json& results = record.at("results");
  std::string out = introduction(record) + "\n" + head(kHeader);
  for (const Json& row : results.at("rows")) out += line(row_cells(row));
  out +=
      "\n\"Against fp32\" is the paired difference in test accuracy, \"faster\" the ratio of medians at batch 64. "
      "Sizes are\n"
      "those of `model.safetensors`, 1 KB = 1000 bytes.\n";
  out += paper_rows(results) + claims_text(results) + observers_text(results) + experts_text(results) +
         by_error_text(results) + cost_text(results);
  out += "\n## Confusion\n\nTest images of all seeds, rows: the digit, columns: the answer.\n\nDense, fp32:\n\n" +
         confusion_text(results.at("confusion").at("ffn")) + "\nMoE, fp32:\n\n" +
         confusion_text(results.at("confusion").at("moe"));
  return out;
}

}  // namespace kedge
