#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "audit/compare.h"
#include "record/out_folder.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "comm/bytes.h"
#include "comm/communicator.h"
#include "generate/corpus.h"
#include "kedge/audit.h"
#include "kedge/error.h"
#include "model/family.h"
#include "record/provenance.h"

namespace kedge {
namespace {

// Logits of both models for one chunk stay below this each.
constexpr std::int64_t logits_bytes = std::int64_t{128} << 20;

struct Inputs {
  TokenRows rows;
  AuditModel original, quantized;
  std::int64_t max_tokens = 0;
};

void require_same(const char* what, std::int64_t a, std::int64_t b) {
  if (a == b) return;
  throw Error(ErrorCode::mismatch, fmt::format("the models differ in {}: {} and {}", what, a, b),
              "two forms of one model");
}

// Before any weight is read.
void require_comparable(const ModelSpec& a, const ModelSpec& b) {
  require_same("the size of the vocabulary", a.vocab_size, b.vocab_size);
  require_same("the hidden size", a.hidden_size, b.hidden_size);
  require_same("the number of layers", a.num_hidden_layers, b.num_hidden_layers);
  const MoeRouters routers_a = moe_routers(a), routers_b = moe_routers(b);
  require_same("the number of MoE layers", static_cast<std::int64_t>(routers_a.size()),
               static_cast<std::int64_t>(routers_b.size()));
  for (std::size_t i = 0; i < routers_a.size(); ++i) {
    require_same_router(routers_a[i].first, routers_a[i].second, routers_b[i].first, routers_b[i].second);
  }
}

void require_moe(const ModelSpec& spec, const std::filesystem::path& path) {
  if (!spec.moe_layers().empty()) return;
  throw Error(ErrorCode::unsupported,
              fmt::format("{} ({}) has no MoE layer, so there is no routing to audit", path.string(), spec.model_type),
              "a Mixture-of-Experts model", "kedge perplexity compares dense models");
}

AuditModel describe(const Checkpoint& checkpoint, const ModelSpec& spec) {
  AuditModel model;
  model.path = checkpoint.directory().string();
  model.model_type = spec.model_type;
  model.quant_format = checkpoint.quant_format();
  model.file_bytes = checkpoint.file_bytes();
  return model;
}

Inputs read_inputs(const AuditOptions& options) {
  Inputs inputs;
  const Checkpoint original = Checkpoint::open(options.original), quantized = Checkpoint::open(options.quantized);
  const ModelSpec spec = model_spec(original), quantized_spec = model_spec(quantized);
  require_moe(spec, options.original);
  spec.require_causal("an audit compares next-token predictions");
  require_comparable(spec, quantized_spec);
  const Tokenizer tokenizer = Tokenizer::open(options.original);
  if (tokenizer.content_hash() != Tokenizer::open(options.quantized).content_hash()) {
    throw Error(
        ErrorCode::mismatch,
        fmt::format("the tokenizers of {} and {} differ", options.original.string(), options.quantized.string()),
        "the same vocabulary and merges in both",
        "copy the original's tokenizer.json if the quantized model was made from it");
  }
  const std::int64_t context = std::min(spec.max_position_embeddings, quantized_spec.max_position_embeddings);
  if (options.seqlen > context) {
    throw Error(
        ErrorCode::usage,
        fmt::format("sequences of {} tokens are longer than the models' context of {}", options.seqlen, context), {},
        "give a smaller --seqlen");
  }
  inputs.rows = read_token_rows(tokenizer, options.texts, options.seqlen, options.limit);
  inputs.original = describe(original, spec);
  inputs.quantized = describe(quantized, quantized_spec);
  for (const auto& row : inputs.rows.rows)
    inputs.max_tokens = std::max(inputs.max_tokens, static_cast<std::int64_t>(row.size()));
  return inputs;
}

void append_trace(RoutingTrace& all, std::span<const std::int32_t> tokens, const std::vector<LayerTrace>& layers) {
  if (all.sequence_offsets.empty()) all.sequence_offsets.push_back(0);
  if (all.layers.empty()) {
    for (const LayerTrace& layer : layers) all.layers.push_back({layer.layer, layer.router, {}, {}, {}, {}, {}, {}});
  }
  all.token_ids.insert(all.token_ids.end(), tokens.begin(), tokens.end());
  for (std::size_t i = 0; i < tokens.size(); ++i) all.positions.push_back(static_cast<std::int64_t>(i));
  all.phase.resize(all.token_ids.size(), Phase::prefill);
  all.sequence_offsets.push_back(all.tokens());
  const auto extend = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  for (std::size_t l = 0; l < layers.size(); ++l) {
    extend(all.layers[l].expert_ids, layers[l].expert_ids);
    extend(all.layers[l].errors, layers[l].errors);
    extend(all.layers[l].residual_norms, layers[l].residual_norms);
    extend(all.layers[l].weights, layers[l].weights);
    extend(all.layers[l].logits, layers[l].logits);
    extend(all.layers[l].scores, layers[l].scores);
  }
}

struct Traces {
  bool wanted = false;
  RoutingTrace original, quantized;
};

// One sequence in the original and in each channel.
struct SequenceResult {
  std::vector<LayerTrace> original;
  std::vector<SequenceOutcome> channels;
};

void put(ByteWriter& to, const std::vector<LayerTrace>& layers) {
  for (const LayerTrace& layer : layers) {
    to.put(layer.expert_ids);
    to.put(layer.weights);
    to.put(layer.logits);
    to.put(layer.scores);
    to.put(layer.errors);
    to.put(layer.residual_norms);
  }
}

void take(ByteReader& from, std::vector<LayerTrace>& layers) {
  for (LayerTrace& layer : layers) {
    layer.expert_ids = from.take_list<std::int32_t>();
    layer.weights = from.take_list<float>();
    layer.logits = from.take_list<float>();
    layer.scores = from.take_list<float>();
    layer.errors = from.take_list<float>();
    layer.residual_norms = from.take_list<float>();
  }
}

std::string to_bytes(const SequenceResult& result) {
  ByteWriter writer;
  put(writer, result.original);
  for (const SequenceOutcome& channel : result.channels) {
    put(writer, channel.layers);
    writer.put(channel.positions);
  }
  return writer.bytes();
}

// like: a result of this rank, for what all sequences have in common.
SequenceResult from_bytes(std::string_view bytes, const SequenceResult& like) {
  SequenceResult result = like;
  ByteReader reader(bytes);
  take(reader, result.original);
  for (SequenceOutcome& channel : result.channels) {
    take(reader, channel.layers);
    channel.positions = reader.take_list<DistributionDiff>();
  }
  return result;
}

class SequenceRunner {
 public:
  SequenceRunner(const AuditOptions& options, const Inputs& inputs, Recorder& original, std::vector<Channel>& channels,
                 std::int64_t vocab)
      : free_running_(options.mode != AuditMode::local), original_(original), channels_(channels) {
    const std::int64_t longest = std::max<std::int64_t>(16, inputs.max_tokens);
    chunk_ = std::clamp<std::int64_t>(logits_bytes / (vocab * 4), 16, longest);
    if (free_running_) logits_.resize(static_cast<std::size_t>(std::min(chunk_, inputs.max_tokens) * vocab));
  }

  SequenceResult run(std::span<const std::int32_t> sequence) {
    const auto tokens = static_cast<std::int64_t>(sequence.size());
    original_.start(tokens);
    for (Channel& channel : channels_) channel.start(tokens);
    const std::int64_t step = free_running_ ? chunk_ : tokens;
    for (std::int64_t begin = 0; begin < tokens; begin += step) {
      const auto part =
          sequence.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(step, tokens - begin)));
      original_.append(part, free_running_ ? logits_.data() : nullptr);
      for (Channel& channel : channels_) channel.append(part, begin, sequence, logits_.data());
    }
    SequenceResult result{original_.trace().layers, {}};
    for (Channel& channel : channels_) result.channels.push_back(channel.finish(sequence, original_.trace()));
    return result;
  }

 private:
  bool free_running_;
  std::int64_t chunk_ = 0;
  Recorder& original_;
  std::vector<Channel>& channels_;
  std::vector<float> logits_;
};

// In rounds of one sequence per rank; rank 0 counts them in the order of the text.
void run_sequences(const Inputs& inputs, SequenceRunner& runner, std::vector<Channel>& channels, Communicator& ranks,
                   Traces& traces) {
  const auto& rows = inputs.rows.rows;
  const auto size = static_cast<std::size_t>(ranks.size()), rank = static_cast<std::size_t>(ranks.rank());
  std::optional<Progress> progress;
  if (ranks.is_root()) progress.emplace("audit", inputs.rows.tokens(), "tokens");
  std::int64_t done = 0;
  for (std::size_t begin = 0; begin < rows.size(); begin += size) {
    throw_if_interrupted();
    SequenceResult own;
    if (begin + rank < rows.size()) own = runner.run(rows[begin + rank]);
    const bool alone = size == 1;
    const std::vector<std::string> others = alone ? std::vector<std::string>{} : ranks.gather(to_bytes(own));
    if (!ranks.is_root()) continue;
    SequenceResult other;
    for (std::size_t i = begin; i < std::min(begin + size, rows.size()); ++i) {
      const SequenceResult& result = i == begin ? own : (other = from_bytes(others[i - begin], own));
      for (std::size_t c = 0; c < channels.size(); ++c) channels[c].add(result.original, result.channels[c]);
      if (traces.wanted) {
        append_trace(traces.original, rows[i], result.original);
        append_trace(traces.quantized, rows[i], result.channels.front().layers);
      }
      progress->update(done += static_cast<std::int64_t>(rows[i].size()));
    }
  }
  if (progress) progress->finish();
}

std::string config_text(const AuditOptions& options) {
  Json texts = Json::array();
  for (const auto& text : options.texts) texts.push_back(text.string());
  const char* modes[] = {"free", "local", "both"};
  return Json{{"original", options.original.string()},
              {"quantized", options.quantized.string()},
              {"texts", texts},
              {"seqlen", options.seqlen},
              {"limit", options.limit},
              {"mode", modes[static_cast<int>(options.mode)]},
              {"numerics", options.runtime.numerics},
              {"activations", options.runtime.activations},
              {"price_int8", options.price_int8}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

void check_options(const AuditOptions& options, const LoadOptions& load) {
  if (options.price_int8 && load.activations == Activations::int8) {
    throw Error(ErrorCode::usage, "int8 activations cannot be priced against themselves",
                "--activations fp32 with --price-int8");
  }
  if (options.save_traces && options.out.empty()) {
    throw Error(ErrorCode::usage, "there is no folder to save the traces in", {}, "give --out DIR");
  }
  if (options.out.empty()) return;
  require_free(options.out, {"report.json", "report.html"}, options.overwrite);
  if (options.save_traces)
    require_free(options.out, {"original.trace.safetensors", "quantized.trace.safetensors"}, options.overwrite);
}

// The quantized model as asked for, then in local mode, then with int8 activations.
std::vector<Channel> make_channels(const AuditOptions& options, const DecoderModel& quantized, const DecoderModel* int8,
                                   std::int64_t max_tokens, ThreadPool& threads) {
  const std::string activations = activations_name(quantized.options().activations);
  const char* first = options.mode == AuditMode::local ? "local" : "free";
  std::vector<Channel> channels;
  channels.reserve(3);
  channels.emplace_back(ChannelOptions{first, first, activations, max_tokens}, quantized, threads);
  if (options.mode == AuditMode::both)
    channels.emplace_back(ChannelOptions{"local", "local", activations, max_tokens}, quantized, threads);
  if (int8) channels.emplace_back(ChannelOptions{"int8", first, "int8", max_tokens}, *int8, threads);
  return channels;
}

void write_outputs(const AuditOptions& options, const AuditReport& report, const Traces& traces) {
  const OutFolder folder(options.out);
  if (traces.wanted) {
    save_trace(traces.original, options.out / "original.trace.safetensors",
               {{"model", report.original.path}, {"sha256", report.original.sha256}});
    save_trace(traces.quantized, options.out / "quantized.trace.safetensors",
               {{"model", report.quantized.path}, {"sha256", report.quantized.sha256}});
  }
  write_file_atomically(options.out / "report.html", audit_html(report));
  write_file_atomically(options.out / "report.json", audit_json(report));
}

}  // namespace

AuditMode parse_audit_mode(std::string_view name) {
  if (name == "free") return AuditMode::free;
  if (name == "local") return AuditMode::local;
  if (name == "both") return AuditMode::both;
  throw Error(ErrorCode::usage, fmt::format("unknown audit mode \"{}\"", name), "free, local or both");
}

AuditReport audit(const AuditOptions& options, Communicator* given_ranks) {
  const auto start = std::chrono::steady_clock::now();
  const std::unique_ptr<Communicator> alone = given_ranks == nullptr ? single_rank() : nullptr;
  Communicator& ranks = given_ranks == nullptr ? *alone : *given_ranks;
  LoadOptions load = parse_load_options(options.runtime);
  if (ranks.is_root()) check_options(options, load);
  Inputs inputs = read_inputs(options);
  ThreadPool threads(options.runtime.threads);

  Provenance provenance = make_provenance(load, threads.size());
  if (ranks.is_root()) {
    provenance.inputs = {record_input("original", options.original), record_input("quantized", options.quantized)};
    for (const auto& text : options.texts) provenance.inputs.push_back(record_input("text", text));
    inputs.original.sha256 = provenance.inputs[0].sha256;
    inputs.quantized.sha256 = provenance.inputs[1].sha256;
  }

  const LoadedModel original = load_model(options.original, load, threads);
  const LoadedModel quantized = load_model(options.quantized, load, threads);
  std::unique_ptr<LoadedModel> int8;
  if (options.price_int8) {
    load.activations = Activations::int8;
    int8 = std::make_unique<LoadedModel>(load_model(options.quantized, load, threads));
  }
  Traces traces;
  traces.wanted = options.save_traces && ranks.is_root();
  Recorder recorder(original.model, threads, inputs.max_tokens, options.mode != AuditMode::free);
  std::vector<Channel> channels =
      make_channels(options, quantized.model, int8 ? &int8->model : nullptr, inputs.max_tokens, threads);
  SequenceRunner runner(options, inputs, recorder, channels, original.model.spec().vocab_size);
  run_sequences(inputs, runner, channels, ranks, traces);

  AuditReport report;
  if (!ranks.is_root()) return report;
  report.original = inputs.original, report.quantized = inputs.quantized;
  report.texts = inputs.rows.names;
  report.seqlen = options.seqlen;
  report.sequences = static_cast<std::int64_t>(inputs.rows.rows.size());
  report.tokens = inputs.rows.tokens();
  report.tokens_dropped = inputs.rows.tokens_dropped;
  for (const Channel& channel : channels) report.comparisons.push_back(channel.summary(inputs.rows));
  report.provenance_json = to_json(provenance).dump(-1, ' ', false, Json::error_handler_t::replace);
  report.config_json = config_text(options);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!options.out.empty()) write_outputs(options, report, traces);
  return report;
}

}  // namespace kedge
