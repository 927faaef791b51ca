// Track T: the engine against goldens that other people's software computed (transformers, fp32, eager attention), on
// the same weights. This is the error of the port alone; what quantization does is track R's, what that does to tasks
// track X's.
//
// [setup] goldens = [folders with config.json, model.safetensors, golden.safetensors]. One sample per tensor:
//   max_abs            max |ours - theirs|
//   nrmse              rmse / rms(theirs)
// of every hidden state, every layer's router logits, and the logits; or per MoE layer and per replay:
//   changed_sets       share of tokens whose experts are others than theirs
//   replay_difference  number of values of all hidden states and logits that differ from the first pass; `replays`
//                      passes go through all instruction sets of this machine, and 1 to 3 threads
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>

#include "base/json.h"
#include "base/toml_section.h"
#include "claims/tracks/rows.h"
#include "io/safetensors.h"
#include "kedge/error.h"
#include "model/decoder.h"
#include "nn/probe.h"
#include "tensor/dtype.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

struct Setup {
  std::vector<fs::path> goldens;
  std::int64_t replays = 10;
};

Setup read_setup(const Claim& claim) {
  Setup setup;
  TomlSection section(claim.file, "[setup]", claim.setup);
  setup.goldens = section.paths("goldens", section.require("goldens", "folders with a golden.safetensors"));
  setup.replays = section.integer("replays", setup.replays, 1);
  section.refuse_others();
  return setup;
}

/// Floats by name, as a golden names them; tokens of all rows one after the other.
using Tensors = std::map<std::string, std::vector<float>>;

class Watch : public ForwardProbe {
 public:
  unsigned sites() const noexcept override {
    return static_cast<unsigned>(Site::hidden_state) | static_cast<unsigned>(Site::routing) |
           static_cast<unsigned>(Site::logits);
  }
  void hidden_state(int index, std::int64_t tokens, std::int64_t size, const float* x) override {
    keep(fmt::format("hidden_states.{}", index), {x, static_cast<std::size_t>(tokens * size)});
  }
  void routing(int layer, const RoutingDecision& decision) override {
    keep(fmt::format("router_logits.{}", layer), decision.logits);
    auto& ids = experts[layer];
    ids.insert(ids.end(), decision.expert_ids.begin(), decision.expert_ids.end());
    top_k[layer] = static_cast<std::size_t>(decision.top_k);
  }
  void logits(std::int64_t rows, std::int64_t vocab, const float* x) override {
    keep("logits", {x, static_cast<std::size_t>(rows * vocab)});
  }

  Tensors tensors;
  std::map<int, std::vector<std::int32_t>> experts;
  std::map<int, std::size_t> top_k;

 private:
  void keep(const std::string& name, std::span<const float> values) {
    auto& to = tensors[name];
    to.insert(to.end(), values.begin(), values.end());
  }
};

class Golden {
 public:
  explicit Golden(const fs::path& folder)
      : name(folder.filename().string()),
        folder_(folder),
        file_(folder / "golden.safetensors"),
        checkpoint_(Checkpoint::open(folder)) {
    const TensorView view = file_.tensor("input_ids");
    if (view.shape.size() != 2) bad("input_ids has another rank than 2");
    rows_ = view.shape[0], length_ = view.shape[1];
    ids_ = integers("input_ids");
  }

  Watch run(const LoadOptions& options, int num_threads) const {
    ThreadPool threads(num_threads);
    const DecoderModel model = DecoderModel::load(checkpoint_, options, threads);
    std::vector<SequenceState> states;
    std::vector<Segment> segments;
    for (std::int64_t r = 0; r < rows_; ++r) states.emplace_back(model.spec(), length_);
    for (std::int64_t r = 0; r < rows_; ++r) {
      segments.push_back(
          {&states[static_cast<std::size_t>(r)],
           std::span(ids_).subspan(static_cast<std::size_t>(r * length_), static_cast<std::size_t>(length_))});
    }
    std::vector<float> logits(static_cast<std::size_t>(rows_ * length_ * model.spec().vocab_size));
    Arena arena;
    Watch watch;
    model.forward(ExecContext{threads, arena, &watch}, segments, LogitRows::all, logits.data());
    return watch;
  }

  /// Theirs. Every tensor that the engine gives must be in the golden, or this is an error: a layer that nobody
  /// compares is no parity.
  std::vector<float> floats(const std::string& tensor) const {
    const TensorView view = file_.tensor(tensor);
    if (!is_convertible_float(view.dtype)) bad(tensor + " is not of floats");
    std::vector<float> out(static_cast<std::size_t>(view.size()));
    convert_to_float(view.dtype, view.data, view.size(), out.data());
    return out;
  }
  std::vector<std::int32_t> integers(const std::string& tensor) const {
    const TensorView view = file_.tensor(tensor);
    if (view.dtype != DType::i32 && view.dtype != DType::i64) bad(tensor + " is not of integers");
    const std::size_t width = view.dtype == DType::i32 ? 4 : 8;
    std::vector<std::int32_t> out;
    for (std::int64_t i = 0; i < view.size(); ++i) {
      std::int32_t value = 0;  // the low half of an id, little-endian
      std::memcpy(&value, view.data + static_cast<std::size_t>(i) * width, sizeof value);
      out.push_back(value);
    }
    return out;
  }

  [[noreturn]] void bad(const std::string& what) const {
    throw Error(ErrorCode::bad_file, (folder_ / "golden.safetensors").string() + ": " + what,
                "a golden of the model beside it");
  }

  std::string name;

 private:
  fs::path folder_;
  SafetensorsFile file_;
  Checkpoint checkpoint_;
  std::int64_t rows_ = 0, length_ = 0;
  std::vector<std::int32_t> ids_;
};

double difference(const Golden& golden, const std::string& tensor, const std::vector<float>& ours,
                  const std::string& metric) {
  const std::vector<float> theirs = golden.floats(tensor);
  if (theirs.size() != ours.size()) golden.bad(tensor + " has another size than the engine's");
  double most = 0, squares = 0, reference = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const double d = static_cast<double>(ours[i]) - static_cast<double>(theirs[i]);
    most = std::max(most, std::isnan(d) ? INFINITY : std::fabs(d));
    squares += d * d;
    reference += static_cast<double>(theirs[i]) * static_cast<double>(theirs[i]);
  }
  return metric == "max_abs" ? most : std::sqrt(squares / reference);
}

double changed_sets(const Golden& golden, int layer, const Watch& watch) {
  const std::vector<std::int32_t> theirs = golden.integers(fmt::format("topk_ids.{}", layer));
  const std::vector<std::int32_t>& ours = watch.experts.at(layer);
  const std::size_t k = watch.top_k.at(layer);
  if (theirs.size() != ours.size()) golden.bad(fmt::format("topk_ids.{} has another size than the engine's", layer));
  std::int64_t changed = 0;
  for (std::size_t begin = 0; begin < ours.size(); begin += k) {
    const auto set = [&](const std::vector<std::int32_t>& ids) {
      return std::set<std::int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                    ids.begin() + static_cast<std::ptrdiff_t>(begin + k));
    };
    changed += set(ours) != set(theirs) ? 1 : 0;
  }
  return static_cast<double>(changed) / (static_cast<double>(ours.size()) / static_cast<double>(k));
}

void add_sample(TrackOutcome& outcome, std::string label, double value) {
  const auto cluster = static_cast<std::int64_t>(outcome.samples.size());
  outcome.samples.push_back({std::move(label), cluster, {{"value", value}}});
}

double differing(const Tensors& a, const Tensors& b) {
  std::int64_t count = 0;
  for (const auto& [name, values] : a) {
    const auto at = b.find(name);
    if (at == b.end() || at->second.size() != values.size()) return INFINITY;
    for (std::size_t i = 0; i < values.size(); ++i) {
      count += std::memcmp(&values[i], &at->second[i], sizeof(float)) != 0 ? 1 : 0;
    }
  }
  return static_cast<double>(count);
}

void add_replays(const Golden& golden, std::int64_t replays, TrackOutcome& outcome) {
  const std::vector<Isa> isas = available_isas();
  const Watch first = golden.run({isas.front(), Numerics::consistent, Activations::fp32}, 1);
  for (std::int64_t r = 0; r < replays; ++r) {
    const Isa isa = isas[static_cast<std::size_t>(r) % isas.size()];
    const int threads = 1 + static_cast<int>(r % 3);
    const Watch again = golden.run({isa, Numerics::consistent, Activations::fp32}, threads);
    add_sample(outcome, fmt::format("{}, replay {}, {}, {} threads", golden.name, r + 1, isa_name(isa), threads),
               differing(first.tensors, again.tensors));
  }
}

void add_golden(const Claim& claim, const Setup& setup, const Golden& golden, const LoadOptions& options, int threads,
                TrackOutcome& outcome) {
  if (claim.metric == "replay_difference") return add_replays(golden, setup.replays, outcome);
  const Watch watch = golden.run(options, threads);
  if (claim.metric == "changed_sets") {
    for (const auto& [layer, ids] : watch.experts) {
      add_sample(outcome, fmt::format("{}, layer {}", golden.name, layer), changed_sets(golden, layer, watch));
    }
    return;
  }
  for (const auto& [tensor, values] : watch.tensors) {
    add_sample(outcome, golden.name + ", " + tensor, difference(golden, tensor, values, claim.metric));
  }
}

}  // namespace

void check_parity(const Claim& claim) {
  constexpr std::array kMetrics = {"max_abs", "nrmse", "changed_sets", "replay_difference"};
  const TomlSection top(claim.file, "the claim", claim.setup);
  if (std::find(kMetrics.begin(), kMetrics.end(), claim.metric) == kMetrics.end()) {
    top.fail(1, "track T has no metric \"" + claim.metric + "\"", "max_abs, nrmse, changed_sets or replay_difference");
  }
  if (claim.effect != Effect::value) top.fail(1, "track T compares with goldens only", "effect = \"value\"");
  read_setup(claim);
}

void run_parity(std::span<const TrackJob> jobs, const TrackContext& context) {
  const LoadOptions options = {parse_isa(context.runtime.isa), parse_numerics(context.runtime.numerics),
                               parse_activations(context.runtime.activations)};
  const int threads = ThreadPool(context.runtime.threads).size();
  for (const TrackJob& job : jobs) {
    TrackOutcome outcome;
    const Setup setup = read_setup(*job.claim);
    for (const fs::path& folder : setup.goldens) {
      const Golden golden(folder);
      add_golden(*job.claim, setup, golden, options, threads, outcome);
      outcome.inputs.push_back(record_input("golden", folder));
      context.log(fmt::format("  {}: {} tensors so far", folder.filename().string(), outcome.samples.size()));
    }
    context.done(job, std::move(outcome));
  }
}

}  // namespace kedge
