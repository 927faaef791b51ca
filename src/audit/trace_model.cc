#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "record/out_folder.h"
#include "audit/recorder.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/version.h"
#include "generate/corpus.h"
#include "io/safetensors.h"
#include "kedge/audit.h"
#include "kedge/error.h"
#include "model/family.h"
#include "record/provenance.h"

namespace kedge {
namespace {

using Rows = std::vector<std::vector<std::int32_t>>;

std::int64_t id_at(const TensorView& ids, std::int64_t i) {
  if (ids.dtype == DType::i32) {
    std::int32_t id = 0;
    std::memcpy(&id, ids.data + i * 4, 4);
    return id;
  }
  std::int64_t id = 0;
  std::memcpy(&id, ids.data + i * 8, 8);
  return id;
}

Rows read_ids(const std::filesystem::path& path, std::int64_t vocab_size, std::int64_t limit) {
  const SafetensorsFile file(path);
  const TensorView ids = file.tensor("input_ids");
  if ((ids.dtype != DType::i64 && ids.dtype != DType::i32) || ids.shape.size() != 2 || ids.size() == 0) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: input_ids is {} {}", path.string(), dtype_name(ids.dtype), shape_string(ids.shape)),
                "I64 or I32 [sequences, length] that is not empty");
  }
  const std::int64_t sequences = limit > 0 ? std::min(limit, ids.shape[0]) : ids.shape[0], length = ids.shape[1];
  Rows rows;
  for (std::int64_t s = 0; s < sequences; ++s) {
    std::vector<std::int32_t>& row = rows.emplace_back();
    for (std::int64_t i = 0; i < length; ++i) {
      const std::int64_t id = id_at(ids, s * length + i);
      if (id < 0 || id >= vocab_size) {
        throw Error(ErrorCode::bad_file, fmt::format("{}: input_ids holds {}", path.string(), id),
                    fmt::format("ids from 0 to {}", vocab_size - 1));
      }
      row.push_back(static_cast<std::int32_t>(id));
    }
  }
  return rows;
}

Rows read_rows(const TraceOptions& options, const ModelSpec& spec) {
  if (options.decode_from > 0) spec.require_causal("tokens are decoded one after the other");
  if (options.ids.empty() == options.texts.empty()) {
    throw Error(ErrorCode::usage, "a trace needs token ids or texts, and not both", {},
                "give either --ids FILE or --text FILE");
  }
  Rows rows = options.texts.empty()
                  ? read_ids(options.ids, spec.vocab_size, options.limit)
                  : read_token_rows(Tokenizer::open(options.model), options.texts, options.seqlen, options.limit).rows;
  for (const auto& row : rows) {
    if (static_cast<std::int64_t>(row.size()) > spec.max_position_embeddings) {
      throw Error(ErrorCode::usage, fmt::format("a sequence of {} tokens is longer than the model's context of {}",
                                                row.size(), spec.max_position_embeddings));
    }
  }
  return rows;
}

// The part of the trace that is known before the model runs; rows in batch-major order.
void describe_rows(const Rows& rows, std::int64_t decode_from, RoutingTrace& trace) {
  trace.sequence_offsets.push_back(0);
  for (const auto& row : rows) {
    trace.token_ids.insert(trace.token_ids.end(), row.begin(), row.end());
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(row.size()); ++i) {
      trace.positions.push_back(i);
      trace.phase.push_back(decode_from > 0 && i >= decode_from ? Phase::decode : Phase::prefill);
    }
    trace.sequence_offsets.push_back(trace.tokens());
  }
}

class Tracer {
 public:
  Tracer(const TraceOptions& options, const DecoderModel& model, ThreadPool& threads, const Rows& rows)
      : options_(options), model_(model), threads_(threads), rows_(rows), probe_(make_probe()) {
    describe_rows(rows, options.decode_from, probe_.trace());
  }

  RoutingTrace& run() {
    Progress progress("trace", probe_.trace().tokens(), "tokens");
    const std::size_t group = options_.one_by_one ? 1 : rows_.size();
    for (std::size_t begin = 0; begin < rows_.size(); begin += group) {
      run_group(begin, std::min(rows_.size(), begin + group));
      progress.update(probe_.trace().sequence_offsets[std::min(rows_.size(), begin + group)]);
    }
    progress.finish();
    return probe_.trace();
  }

 private:
  RecordingProbe make_probe() const {
    const ModelSpec& spec = model_.spec();
    RecordOptions record;
    record.logits = options_.logits, record.hidden_states = options_.hidden_states;
    record.vocab_size = spec.vocab_size, record.hidden_size = spec.hidden_size,
    record.num_layers = spec.num_hidden_layers;
    std::int64_t tokens = 0;
    bool equal = true;
    for (const auto& row : rows_)
      tokens += static_cast<std::int64_t>(row.size()), equal = equal && row.size() == rows_[0].size();
    if (equal)
      record.rows_shape = {static_cast<std::int64_t>(rows_.size()), static_cast<std::int64_t>(rows_[0].size())};
    return RecordingProbe(moe_routers(spec), tokens, record);
  }

  // Sequences [first, last): one prefill of all, then decode steps of all that still have a token.
  void run_group(std::size_t first, std::size_t last) {
    std::vector<SequenceState> states;
    std::int64_t longest = 0;
    for (std::size_t s = first; s < last; ++s) {
      const auto length = static_cast<std::int64_t>(rows_[s].size());
      longest = std::max(longest, length);
      states.emplace_back(model_.spec(), length);
    }
    const std::int64_t prefill = options_.decode_from > 0 ? std::min(options_.decode_from, longest) : longest;
    step(first, states, 0, prefill);
    for (std::int64_t at = prefill; at < longest; ++at) step(first, states, at, at + 1);
  }

  // Positions [from, to) of every sequence that reaches there.
  void step(std::size_t first, std::vector<SequenceState>& states, std::int64_t from, std::int64_t to) {
    throw_if_interrupted();
    std::vector<Segment> segments;
    std::vector<std::int64_t> at;
    for (std::size_t i = 0; i < states.size(); ++i) {
      const auto& row = rows_[first + i];
      const std::int64_t end = std::min(to, static_cast<std::int64_t>(row.size()));
      if (end <= from) continue;
      segments.push_back(
          {&states[i], std::span(row).subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(end - from))});
      for (std::int64_t p = from; p < end; ++p) at.push_back(probe_.trace().sequence_offsets[first + i] + p);
    }
    const std::size_t count = at.size();
    probe_.set_rows(std::move(at));
    const ExecContext ctx{threads_, scratch_, &probe_};
    if (options_.logits) logits_.resize(count * static_cast<std::size_t>(model_.spec().vocab_size));
    model_.forward(ctx, segments, options_.logits ? LogitRows::all : LogitRows::none,
                   options_.logits ? logits_.data() : nullptr);
  }

  const TraceOptions& options_;
  const DecoderModel& model_;
  ThreadPool& threads_;
  const Rows& rows_;
  RecordingProbe probe_;
  Arena scratch_;
  std::vector<float> logits_;
};

}  // namespace

TraceReport trace(const TraceOptions& options) {
  if (options.decode_from < 0)
    throw Error(ErrorCode::usage, "the position to decode from is negative", "0 for none, or a position");
  const LoadOptions load = parse_load_options(options.runtime);
  std::error_code ignored;
  if (!options.overwrite && std::filesystem::exists(options.out, ignored)) {
    throw Error(ErrorCode::exists, options.out.string() + " exists already", {},
                "choose another name or give --overwrite");
  }
  Rows rows = read_rows(options, model_spec(Checkpoint::open(options.model)));
  ThreadPool threads(options.runtime.threads);
  const LoadedModel model = load_model(options.model, load, threads);
  Tracer tracer(options, model.model, threads, rows);
  const RoutingTrace& result = tracer.run();
  save_trace(result, options.out,
             {{"format", "kedge.routing-trace/1"},
              {"model", options.model.string()},
              {"model_sha256", hash_input(options.model)},
              {"isa", isa_name(load.isa)},
              {"numerics", numerics_name(load.numerics)},
              {"activations", activations_name(load.activations)}});
  TraceReport report;
  report.sequences = result.sequences(), report.tokens = result.tokens();
  for (const LayerTrace& layer : result.layers) report.moe_layers.push_back(layer.layer);
  report.file_bytes = std::filesystem::file_size(options.out);
  return report;
}

}  // namespace kedge
