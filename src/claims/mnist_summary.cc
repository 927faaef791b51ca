#include "claims/mnist_summary.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include <fmt/format.h>

#include "base/check.h"
#include "base/json.h"
#include "claims/mnist_runs.h"
#include "model/classifier.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

// A tenth of a percent point of accuracy is what the report's readers would call the same.
constexpr double kSameAccuracy = 0.001;
constexpr double kSmaller = 3.8;
constexpr double kSignificant = 0.05;

struct RowSpec {
  const char* name;
  const char* variant;
  const char* form;   ///< MnistForm::key()
  const char* paper;  ///< the rows of the paper's table that this is
};
constexpr RowSpec kRows[] = {
    {"dense, fp32", "ffn", "fp32", "FNN_baseline, FFN_FP32"},
    {"dense, int8 static", "ffn", "w8a8-static", "FFN_PTQ_INT8"},
    {"dense, int8 dynamic", "ffn", "w8a8-dynamic", ""},
    {"dense, int8 weights", "ffn", "w8a16", ""},
    {"dense, int4 weights", "ffn", "w4a16-g32", ""},
    {"MoE, fp32", "moe", "fp32", "Sparse_MoE, Sparse_MoE_FP32"},
    {"MoE, int8 static", "moe", "w8a8-static", ""},
    {"MoE, int8 dynamic", "moe", "w8a8-dynamic", "Sparse_MoE_INT8"},
    {"MoE, int8 weights", "moe", "w8a16", "Sparse_MoE_PTQ (not explained there)"},
    {"MoE, int4 weights", "moe", "w4a16-g32", ""},
    {"MoE, all experts, fp32", "moe-all", "fp32", ""},
    {"MoE, all experts, int8 static", "moe-all", "w8a8-static", ""},
    {"MoE, all experts, int8 dynamic", "moe-all", "w8a8-dynamic", ""},
    {"MoE without balance loss, fp32", "moe-unbalanced", "fp32", ""},
    {"MoE without balance loss, int8 static", "moe-unbalanced", "w8a8-static", ""},
    {"MoE, two experts, fp32", "moe-two", "fp32", ""},
    {"MoE, two experts, int8 static", "moe-two", "w8a8-static", ""},
    {"MoE, two experts, int8 dynamic", "moe-two", "w8a8-dynamic", ""},
    {"MoE by error, two experts, fp32", "mcqsmoe", "fp32", ""},
    {"MoE by error, two experts, int8 static", "mcqsmoe", "w8a8-static", ""},
    {"MoE by error, two experts, int8 dynamic", "mcqsmoe", "w8a8-dynamic", ""},
};

Json interval_json(const Interval& i) {
  const bool bounded = i.n > 1;
  return {{"mean", i.mean}, {"low", bounded ? Json(i.low) : Json()}, {"high", bounded ? Json(i.high) : Json()}};
}

Json interval_of(const std::vector<double>& values) { return interval_json(mean_interval(values)); }

std::vector<double> minus(const std::vector<double>& a, const std::vector<double>& b) {
  KEDGE_CHECK(a.size() == b.size());
  std::vector<double> out;
  for (std::size_t i = 0; i < a.size(); ++i) out.push_back(a[i] - b[i]);
  return out;
}

/// exp(mean ln(a / b)) with the interval of the logarithms.
Json ratio_of(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> logs;
  for (std::size_t i = 0; i < a.size(); ++i) logs.push_back(std::log(a[i] / b[i]));
  Interval i = mean_interval(logs);
  i.mean = std::exp(i.mean), i.low = std::exp(i.low), i.high = std::exp(i.high);
  return interval_json(i);
}

std::string key_of(const Json& form) {
  const Json& observer = form.at("observer");
  return MnistForm{form.at("scheme").get<std::string>(), observer.is_null() ? "" : observer.get<std::string>()}.key();
}

/// The records by what is asked of them; values are in the order of the seeds.
class Runs {
 public:
  Runs(const std::vector<Json>& runs, const std::vector<Json>& latencies) : runs_(runs), latencies_(latencies) {}

  std::vector<double> form_values(const std::string& variant, const std::string& form, const char* figure) const {
    std::vector<double> out;
    for (const Json& run : runs_) {
      if (run.at("variant") != Json(variant)) continue;
      for (const Json& line : run.at("forms")) {
        if (key_of(line) == form) out.push_back(line.at(figure).get<double>());
      }
    }
    return out;
  }
  std::vector<double> run_values(const std::string& variant, const std::function<double(const Json&)>& value) const {
    std::vector<double> out;
    for (const Json& run : runs_) {
      if (run.at("variant") == Json(variant)) out.push_back(value(run));
    }
    return out;
  }
  /// Empty where the variant was not timed.
  std::vector<double> latency(const std::string& variant, const std::string& scheme, int batch,
                              const char* figure) const {
    std::vector<double> out;
    for (const Json& latency : latencies_) {
      for (const Json& line : latency.at("forms")) {
        if (line.at("variant") == Json(variant) && line.at("scheme") == Json(scheme) &&
            line.at("batch") == Json(batch)) {
          out.push_back(line.at(figure).get<double>());
        }
      }
    }
    return out;
  }
  std::vector<std::string> forms_of(const std::string& variant) const {
    std::vector<std::string> out;
    for (const Json& line : first(variant).at("forms")) out.push_back(key_of(line));
    return out;
  }
  const Json& first(const std::string& variant) const {
    const auto at =
        std::find_if(runs_.begin(), runs_.end(), [&](const Json& r) { return r.at("variant") == Json(variant); });
    KEDGE_CHECK(at != runs_.end());
    return *at;
  }

 private:
  const std::vector<Json>& runs_;
  const std::vector<Json>& latencies_;
};

Json row_json(const RowSpec& spec, const Runs& runs) {
  const std::string variant = spec.variant, form = spec.form;
  const auto values = [&](const char* figure) { return runs.form_values(variant, form, figure); };
  Json row = {{"name", spec.name}, {"paper", spec.paper}, {"variant", variant}, {"form", form}};
  for (const char* figure : {"test_accuracy", "train_accuracy", "test_loss"}) row[figure] = interval_of(values(figure));
  // Headers name no seed, so that the files of all seeds are of one size.
  row["bytes"] = values("bytes")[0];
  row["smaller"] = runs.form_values(variant, "fp32", "bytes")[0] / values("bytes")[0];
  row["difference"] =
      form == "fp32" ? Json()
                     : interval_of(minus(values("test_accuracy"), runs.form_values(variant, "fp32", "test_accuracy")));
  if (variant != "ffn") row["changed_selections"] = interval_of(values("changed_selections"));
  for (const int batch : {1, 64}) {
    const std::vector<double> p50 = runs.latency(variant, form, batch, "p50");
    if (p50.empty()) continue;
    row["latency"][std::to_string(batch)] = {
        {"p50", interval_of(p50)},
        {"p95", interval_of(runs.latency(variant, form, batch, "p95"))},
        {"faster", form == "fp32" ? Json() : ratio_of(runs.latency(variant, "fp32", batch, "p50"), p50)}};
  }
  return row;
}

Json observers_json(const Runs& runs) {
  Json out = Json::array();
  for (const char* variant : {"ffn", "moe"}) {
    const std::vector<double> plain = runs.form_values(variant, "fp32", "test_accuracy");
    for (const std::string& form : runs.forms_of(variant)) {
      if (!form.starts_with("w8a8-static")) continue;
      const std::string observer = form == "w8a8-static" ? "min-max" : form.substr(std::string("w8a8-static-").size());
      const std::vector<double> own = runs.form_values(variant, form, "test_accuracy");
      out.push_back({{"variant", variant},
                     {"observer", observer},
                     {"test_accuracy", interval_of(own)},
                     {"difference", interval_of(minus(own, plain))}});
    }
  }
  return out;
}

Json experts_json(const Runs& runs) {
  Json out = Json::array();
  for (const MnistVariant& variant : mnist_variants()) {
    if (!variant.routes()) continue;
    const auto routing = [&](const char* key) {
      return interval_of(
          runs.run_values(variant.name, [&](const Json& r) { return r.at("routing").at(key).get<double>(); }));
    };
    const auto load = [&](bool least) {
      return runs.run_values(variant.name, [&](const Json& r) {
        const auto shares = r.at("routing").at("load").get<std::vector<double>>();
        return least ? *std::min_element(shares.begin(), shares.end())
                     : *std::max_element(shares.begin(), shares.end());
      });
    };
    const auto information = [&](const char* key) {
      return interval_of(runs.run_values(
          variant.name, [&](const Json& r) { return r.at("routing").at("mutual_information").at(key).get<double>(); }));
    };
    const std::vector<double> p = runs.run_values(
        variant.name, [](const Json& r) { return r.at("routing").at("mutual_information").at("p").get<double>(); });
    out.push_back(
        {{"variant", variant.name},
         {"least_load", interval_of(load(true))},
         {"most_load", interval_of(load(false))},
         {"load_entropy", routing("load_entropy")},
         {"router_entropy", routing("router_entropy")},
         {"over_capacity_training",
          interval_of(runs.run_values(
              variant.name, [](const Json& r) { return r.at("training").at("over_capacity").get<double>(); }))},
         {"over_capacity_test", routing("over_capacity")},
         {"mutual_information", information("nats")},
         {"null_mean", information("null_mean")},
         {"largest_p", *std::max_element(p.begin(), p.end())}});
  }
  return out;
}

/// Routing by reconstruction error against other networks, seed by seed; differences are its figure less theirs.
Json by_error_json(const Runs& runs) {
  constexpr const char* kByError = "mcqsmoe";
  Json out = Json::array();
  for (const char* baseline : {"moe-two", "moe", "ffn"}) {
    const auto difference = [&](const char* figure) {
      return interval_of(minus(runs.form_values(kByError, "fp32", figure), runs.form_values(baseline, "fp32", figure)));
    };
    out.push_back(
        {{"baseline", baseline},
         {"test_accuracy", difference("test_accuracy")},
         {"test_loss", difference("test_loss")},
         {"time", ratio_of(runs.latency(kByError, "fp32", 64, "p50"), runs.latency(baseline, "fp32", 64, "p50"))}});
  }
  return out;
}

/// Of the first seed, which a picture and a table can show.
Json shown_json(const Runs& runs) {
  const Json& moe = runs.first("moe").at("routing");
  return {{"seed", runs.first("moe").at("seed")},
          {"counts", moe.at("counts")},
          {"load", moe.at("load")},
          {"expert_images", moe.at("expert_images")}};
}

Json confusion_of(const std::vector<Json>& runs, const std::string& variant) {
  std::vector<std::vector<std::int64_t>> sum(10, std::vector<std::int64_t>(10, 0));
  for (const Json& run : runs) {
    if (run.at("variant") != Json(variant)) continue;
    for (std::size_t a = 0; a < 10; ++a) {
      for (std::size_t b = 0; b < 10; ++b) sum[a][b] += run.at("confusion").at(a).at(b).get<std::int64_t>();
    }
  }
  return sum;
}

// --- The paper's claims ---

enum class Verdict { upheld, refuted, inconclusive };
const char* verdict_name(Verdict v) {
  return v == Verdict::upheld ? "upheld" : v == Verdict::refuted ? "refuted" : "inconclusive";
}

/// Upheld where the whole interval is above `bound`, refuted where it is below.
Verdict above(const Interval& i, double bound) {
  if (i.n < 2) return Verdict::inconclusive;
  return i.low > bound ? Verdict::upheld : i.high < bound ? Verdict::refuted : Verdict::inconclusive;
}
Verdict below(const Interval& i, double bound) {
  const Verdict v = above(i, bound);
  return v == Verdict::upheld ? Verdict::refuted : v == Verdict::refuted ? Verdict::upheld : v;
}

std::string points(const Interval& i) {
  const std::string mean = fmt::format("{:+.3f}", 100 * i.mean);
  return i.n < 2 ? mean + " points" : fmt::format("{} points [{:+.3f}, {:+.3f}]", mean, 100 * i.low, 100 * i.high);
}
std::string times(const Interval& i) {
  return i.n < 2 ? fmt::format("{:.2f} times", i.mean)
                 : fmt::format("{:.2f} times [{:.2f}, {:.2f}]", i.mean, i.low, i.high);
}

class Claims {
 public:
  explicit Claims(const Runs& runs) : runs_(runs) {}

  Json list() {
    same_accuracy("Static int8 keeps the dense network's accuracy", "97.84 % to 97.80 %", "ffn", "w8a8-static");
    same_accuracy("Dynamic int8 keeps the MoE's accuracy", "97.64 % to 97.58 %", "moe", "w8a8-dynamic");
    static_suits_no_moe();
    size();
    faster("Int8 makes the dense network faster", "1.0 ms to 0.6 ms", "ffn", "w8a8-static", true);
    faster("Int8 makes the MoE no faster", "25.4 ms to 25.8 ms", "moe", "w8a8-dynamic", false);
    const Interval loss = difference("moe", "ffn", "test_loss");
    add("The MoE has the lower loss", "0.0503 against 0.0738, a training loss against a test loss",
        fmt::format("{:+.4f}{} in test loss", loss.mean, bounds(loss, 4)), below(loss, 0));
    const Interval accuracy = difference("moe", "ffn", "test_accuracy");
    add("The MoE's test accuracy is slightly lower", "97.64 % against 97.84 %", points(accuracy), below(accuracy, 0));
    balance();
    specialise();
    sparse_is_cheaper();
    return claims_;
  }

 private:
  void add(const std::string& claim, const std::string& paper, const std::string& measured, Verdict verdict) {
    claims_.push_back({{"claim", claim}, {"paper", paper}, {"measured", measured}, {"verdict", verdict_name(verdict)}});
  }
  static std::string bounds(const Interval& i, int decimals) {
    return i.n < 2 ? "" : fmt::format(" [{:+.{}f}, {:+.{}f}]", i.low, decimals, i.high, decimals);
  }
  Interval accuracy_difference(const std::string& variant, const std::string& form, const std::string& base) const {
    return mean_interval(
        minus(runs_.form_values(variant, form, "test_accuracy"), runs_.form_values(variant, base, "test_accuracy")));
  }
  Interval difference(const std::string& variant, const std::string& base, const char* figure) const {
    return mean_interval(minus(runs_.form_values(variant, "fp32", figure), runs_.form_values(base, "fp32", figure)));
  }

  void same_accuracy(const char* claim, const char* paper, const char* variant, const char* form) {
    const Interval d = accuracy_difference(variant, form, "fp32");
    add(claim, paper, points(d), above(d, -kSameAccuracy));
  }

  /// It would suit it less if it lost accuracy: against fp32, or against dynamic scales of the same network.
  void static_suits_no_moe() {
    const Interval plain = accuracy_difference("moe", "w8a8-static", "fp32");
    const Interval dynamic = accuracy_difference("moe", "w8a8-static", "w8a8-dynamic");
    const Verdict a = below(plain, -kSameAccuracy), b = below(dynamic, -kSameAccuracy);
    const Verdict verdict = a == Verdict::upheld || b == Verdict::upheld     ? Verdict::upheld
                            : a == Verdict::refuted && b == Verdict::refuted ? Verdict::refuted
                                                                             : Verdict::inconclusive;
    add("Static quantization does not suit a MoE", "not measured",
        fmt::format("{} against fp32, {} against dynamic", points(plain), points(dynamic)), verdict);
  }

  void size() {
    double least = 1e9;
    std::string text;
    for (const char* variant : {"ffn", "moe"}) {
      for (const char* form : {"w8a8-static", "w8a8-dynamic"}) {
        const double ratio =
            runs_.form_values(variant, "fp32", "bytes")[0] / runs_.form_values(variant, form, "bytes")[0];
        least = std::min(least, ratio);
        text += fmt::format("{}{:.2f}", text.empty() ? "" : ", ", ratio);
      }
    }
    add("Int8 takes a quarter of the size", "3.78 and 3.69 times smaller", text + " times smaller files (dense, MoE)",
        least >= kSmaller ? Verdict::upheld : Verdict::refuted);
  }

  void faster(const char* claim, const char* paper, const char* variant, const char* form, bool expected) {
    std::vector<double> ratios;
    const std::vector<double> a = runs_.latency(variant, "fp32", 64, "p50"),
                              b = runs_.latency(variant, form, 64, "p50");
    for (std::size_t i = 0; i < a.size(); ++i) ratios.push_back(std::log(a[i] / b[i]));
    Interval i = mean_interval(ratios);
    i.mean = std::exp(i.mean), i.low = std::exp(i.low), i.high = std::exp(i.high);
    add(claim, paper, times(i) + " as fast at batch 64", expected ? above(i, 1) : below(i, 1));
  }

  void balance() {
    const auto most = [&](const char* variant) {
      return runs_.run_values(variant, [](const Json& r) {
        const auto shares = r.at("routing").at("load").get<std::vector<double>>();
        return *std::max_element(shares.begin(), shares.end());
      });
    };
    const Interval d = mean_interval(minus(most("moe"), most("moe-unbalanced")));
    add("A balance loss evens the experts' use", "not measured; its term had no gradient",
        fmt::format("the busiest expert's share of the test images changes by {}", points(d)), below(d, 0));
  }

  void specialise() {
    double largest = 0;
    std::vector<double> nats;
    for (const double p : runs_.run_values(
             "moe", [](const Json& r) { return r.at("routing").at("mutual_information").at("p").get<double>(); })) {
      largest = std::max(largest, p);
    }
    nats = runs_.run_values(
        "moe", [](const Json& r) { return r.at("routing").at("mutual_information").at("nats").get<double>(); });
    const Interval i = mean_interval(nats);
    add("Experts specialise", "not measured; its experts were never trained",
        fmt::format("expert and digit share {:.3f}{} nats of ln 4 = 1.386; p <= {:.3f} by permutation", i.mean,
                    i.n < 2 ? "" : fmt::format(" [{:.3f}, {:.3f}]", i.low, i.high), largest),
        largest < kSignificant ? Verdict::upheld : Verdict::inconclusive);
  }

  void sparse_is_cheaper() {
    std::vector<double> logs;
    const std::vector<double> all = runs_.latency("moe-all", "fp32", 64, "p50"),
                              one = runs_.latency("moe", "fp32", 64, "p50");
    for (std::size_t i = 0; i < all.size(); ++i) logs.push_back(std::log(all[i] / one[i]));
    Interval i = mean_interval(logs);
    i.mean = std::exp(i.mean), i.low = std::exp(i.low), i.high = std::exp(i.high);
    add("One active expert costs less than four", "not measured", times(i) + " as fast at batch 64", above(i, 1));
  }

  const Runs& runs_;
  Json claims_ = Json::array();
};

Json cost_json(const Runs& runs) {
  Json out = Json::array();
  for (const MnistVariant& variant : mnist_variants()) {
    if (!variant.balance) continue;
    const Json& run = runs.first(variant.name);
    const ClassifierSpec spec = mnist_spec(parse_network(variant.network), variant.top_k);
    out.push_back({{"variant", variant.name},
                   {"parameters", run.at("parameters")},
                   {"active_parameters", run.at("active_parameters")},
                   {"flops", count_flops(spec)}});
  }
  return out;
}

}  // namespace

std::string mnist_label(const std::string& variant) {
  const MnistVariant* found = find_mnist_variant(variant);
  return found != nullptr ? found->label : variant;
}

Json summarize_mnist(const std::vector<Json>& runs, const std::vector<Json>& latencies) {
  const Runs records(runs, latencies);
  Json results;
  results["seeds"] = records.form_values("ffn", "fp32", "test_accuracy").size();
  results["rows"] = Json::array();
  for (const RowSpec& row : kRows) results["rows"].push_back(row_json(row, records));
  results["claims"] = Claims(records).list();
  results["observers"] = observers_json(records);
  results["experts"] = experts_json(records);
  results["by_error"] = by_error_json(records);
  results["cost"] = cost_json(records);
  results["shown"] = shown_json(records);
  results["confusion"] = {{"ffn", confusion_of(runs, "ffn")}, {"moe", confusion_of(runs, "moe")}};
  return results;
}

}  // namespace kedge
