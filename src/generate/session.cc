#include "generate/session.h"

#include <algorithm>
#include <utility>

#include "base/interrupt.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge {

LoadOptions make_load_options(const RuntimeOptions& options) {
  if (options.threads < 0) {
    throw Error(ErrorCode::usage, std::to_string(options.threads) + " threads", "0 (one per CPU) or above");
  }
  return {parse_isa(options.isa), parse_numerics(options.numerics), parse_activations(options.activations)};
}

LoadedModel load_model(const std::filesystem::path& directory, const LoadOptions& options, ThreadPool& threads) {
  Checkpoint checkpoint = Checkpoint::open(directory);
  DecoderModel model = DecoderModel::load(checkpoint, options, threads);
  return {std::move(checkpoint), std::move(model), threads};
}

std::vector<std::int32_t> eos_token_ids(const Checkpoint& checkpoint) {
  const std::string where = checkpoint.directory().string();
  for (const Json* config : {&checkpoint.generation_config(), &checkpoint.config()}) {
    if (!config->is_object()) continue;
    const auto value = config->find("eos_token_id");
    if (value == config->end() || value->is_null()) continue;
    std::vector<std::int32_t> ids;
    const auto add = [&](const Json& id) {
      if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > 0x7FFFFFFF) {
        throw Error(ErrorCode::bad_file, where + ": eos_token_id is not a token id",
                    "an integer or a list of integers");
      }
      ids.push_back(id.get<std::int32_t>());
    };
    if (value->is_array()) {
      for (const Json& id : *value) add(id);
    } else {
      add(*value);
    }
    return ids;
  }
  return {};
}

struct Session::Impl {
  Impl(const LoadedModel& loaded_model, std::int64_t context, ForwardProbe* probe)
      : model(loaded_model.model),
        state(loaded_model.model.spec(), context),
        logits(static_cast<std::size_t>(loaded_model.model.spec().vocab_size)),
        ctx{loaded_model.threads, scratch, probe} {}

  const DecoderModel& model;
  SequenceState state;
  Arena scratch;
  std::vector<float> logits;
  ExecContext ctx;

  void forward(std::span<const std::int32_t> tokens, LogitRows rows) {
    const ArenaScope scope(scratch);
    const Segment segment{&state, tokens};
    model.forward(ctx, {&segment, 1}, rows, rows == LogitRows::none ? nullptr : logits.data());
  }
};

namespace {

std::int64_t checked_context(const LoadedModel& model, std::int64_t context) {
  model.model.spec().require_causal("text is written from left to right");
  const std::int64_t longest = model.model.spec().max_position_embeddings;
  if (context < 1 || context > longest) {
    throw Error(ErrorCode::usage, "a context of " + std::to_string(context) + " tokens",
                "1 to " + std::to_string(longest) + ", the model's max_position_embeddings");
  }
  return context;
}

}  // namespace

Session::Session(const LoadedModel& model, std::int64_t context, ForwardProbe* probe)
    : impl_(std::make_unique<Impl>(model, checked_context(model, context), probe)) {}
Session::~Session() = default;

void Session::prefill(std::span<const std::int32_t> tokens, std::int64_t batch) {
  if (batch < 1) throw Error(ErrorCode::usage, "a prefill batch of " + std::to_string(batch), "at least 1");
  while (!tokens.empty()) {
    throw_if_interrupted();
    const std::size_t n = std::min(tokens.size(), static_cast<std::size_t>(batch));
    const bool last = n == tokens.size();
    impl_->forward(tokens.first(n), last ? LogitRows::last_of_each_segment : LogitRows::none);
    tokens = tokens.subspan(n);
  }
}

void Session::decode(std::int32_t token) { impl_->forward({&token, 1}, LogitRows::last_of_each_segment); }

std::span<const float> Session::logits() const noexcept { return impl_->logits; }
std::int64_t Session::length() const noexcept { return impl_->state.length(); }
void Session::reset() { impl_->state.truncate(0); }

}  // namespace kedge
