// Shared by this folder's tests: goldens, a recording probe, a model with threads and scratch.
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/exec.h"
#include "base/json.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "model/decoder.h"
#include "model/family.h"
#include "nn/probe.h"

namespace kedge::testing_model {

inline std::filesystem::path source_dir() { return KEDGE_SOURCE_DIR; }
inline std::filesystem::path golden_dir(const std::string& family) {
  return source_dir() / "tests/goldens/hf" / family;
}

/// A golden's spec with every input dimension a multiple of 32, so that groups of 32 fit.
inline ModelSpec spec_for_groups(const std::string& name) {
  Json config = read_json(golden_dir(name) / "config.json");
  if (config.contains("moe_intermediate_size")) config["moe_intermediate_size"] = 64;
  if (config.contains("q_lora_rank")) config["q_lora_rank"] = 64;
  return family_of(config, name).spec(config, name);
}

inline std::vector<float> floats(const SafetensorsFile& file, const std::string& name) {
  const TensorView view = file.tensor(name);
  std::vector<float> out(static_cast<std::size_t>(view.size()));
  convert_to_float(view.dtype, view.data, view.size(), out.data());
  return out;
}

inline std::vector<std::int32_t> integers(const SafetensorsFile& file, const std::string& name) {
  const TensorView view = file.tensor(name);
  std::vector<std::int32_t> out;
  if (view.dtype != DType::i32 && view.dtype != DType::i64) throw std::runtime_error(name + " is not of integers");
  const std::size_t width = view.dtype == DType::i32 ? 4 : 8;
  for (std::int64_t i = 0; i < view.size(); ++i) {
    std::int64_t value = 0;  // little-endian; ids are not negative
    std::memcpy(&value, view.data + static_cast<std::size_t>(i) * width, width);
    out.push_back(static_cast<std::int32_t>(value));
  }
  return out;
}

/// Infinity when the sizes differ or a value is not a number.
inline double max_abs_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(double{a[i]} - double{b[i]});
    if (!(difference <= most)) most = std::isnan(difference) ? INFINITY : difference;
  }
  return most;
}

/// Keeps everything, pass after pass (rows appended).
class Recorder : public ForwardProbe {
 public:
  unsigned sites() const noexcept override {
    return static_cast<unsigned>(Site::hidden_state) | static_cast<unsigned>(Site::routing) |
           static_cast<unsigned>(Site::moe_input) | static_cast<unsigned>(Site::expert_intermediate) |
           static_cast<unsigned>(Site::logits);
  }
  void hidden_state(int index, std::int64_t tokens, std::int64_t size, const float* x) override {
    append(hidden[index], {x, static_cast<std::size_t>(tokens * size)});
  }
  void routing(int layer, const RoutingDecision& d) override {
    append(ids[layer], d.expert_ids);
    append(weights[layer], d.weights);
    append(router_logits[layer], d.logits);
    append(scores[layer], d.scores);
    top_k = d.top_k;
  }
  void moe_input(int layer, std::int64_t tokens, std::int64_t size, const float* x) override {
    append(inputs[layer], {x, static_cast<std::size_t>(tokens * size)});
  }
  void expert_intermediate(int layer, std::span<const std::int32_t> offsets, std::int64_t size,
                           const float* h) override {
    append(intermediates[layer], {h, static_cast<std::size_t>(offsets.back() * size)});
  }
  void logits(std::int64_t rows, std::int64_t vocab, const float* x) override {
    append(all_logits, {x, static_cast<std::size_t>(rows * vocab)});
  }

  template <class T>
  static void append(std::vector<T>& to, std::span<const T> from) {
    to.insert(to.end(), from.begin(), from.end());
  }

  std::map<int, std::vector<float>> hidden, weights, router_logits, scores, inputs, intermediates;
  std::map<int, std::vector<std::int32_t>> ids;
  std::vector<float> all_logits;
  std::int64_t top_k = 0;
};

/// A model with what a call needs.
struct Runner {
  explicit Runner(const Checkpoint& checkpoint, const LoadOptions& options, int num_threads = 2)
      : threads(num_threads), model(DecoderModel::load(checkpoint, options, threads)) {}
  Runner(DecoderModel&& built, int num_threads) : threads(num_threads), model(std::move(built)) {}

  SequenceState state(std::int64_t capacity) const { return SequenceState(model.spec(), capacity); }

  std::vector<float> forward(std::span<const Segment> segments, LogitRows rows, ForwardProbe* probe = nullptr) {
    std::int64_t count = static_cast<std::int64_t>(segments.size());
    if (rows == LogitRows::all) {
      count = 0;
      for (const Segment& s : segments) count += static_cast<std::int64_t>(s.tokens.size());
    }
    std::vector<float> logits(static_cast<std::size_t>(count * model.spec().vocab_size));
    model.forward(ExecContext{threads, arena, probe}, segments, rows, logits.data());
    return logits;
  }

  /// Logits of one sequence from an empty state, in chunks of so many tokens (0: at once).
  std::vector<float> sequence(std::span<const std::int32_t> tokens, ForwardProbe* probe = nullptr,
                              std::size_t chunk = 0) {
    SequenceState past = state(static_cast<std::int64_t>(tokens.size()));
    std::vector<float> out;
    if (chunk == 0) chunk = tokens.size();
    for (std::size_t begin = 0; begin < tokens.size(); begin += chunk) {
      const Segment segment{&past, tokens.subspan(begin, std::min(chunk, tokens.size() - begin))};
      const auto part = forward({&segment, 1}, LogitRows::all, probe);
      out.insert(out.end(), part.begin(), part.end());
    }
    return out;
  }

  ThreadPool threads;
  Arena arena;
  DecoderModel model;
};

inline std::int32_t argmax(std::span<const float> row) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < row.size(); ++i) {
    if (row[i] > row[best]) best = i;
  }
  return static_cast<std::int32_t>(best);
}

/// n greedy tokens; with_cache false recomputes the whole prefix for each.
inline std::vector<std::int32_t> greedy(Runner& runner, std::vector<std::int32_t> tokens, int n, bool with_cache) {
  std::vector<std::int32_t> out;
  SequenceState past = runner.state(static_cast<std::int64_t>(tokens.size()) + n);
  std::vector<std::int32_t> next = tokens;
  for (int i = 0; i < n; ++i) {
    if (!with_cache) past.truncate(0);
    const Segment segment{&past, with_cache ? next : tokens};
    const auto logits = runner.forward({&segment, 1}, LogitRows::last_of_each_segment);
    out.push_back(argmax(logits));
    tokens.push_back(out.back());
    next = {out.back()};
  }
  return out;
}

}  // namespace kedge::testing_model
