#include <fmt/format.h>

#include "base/json.h"
#include "generate/session.h"
#include "kedge/eval.h"
#include "record/envelope.h"
#include "record/provenance.h"

namespace kedge {

std::string perplexity_text(const PerplexityResult& r) {
  std::string out;
  if (r.sequences > 1) {
    out += fmt::format("perplexity      {:.4f}  (95 % interval {:.4f} to {:.4f})\n", r.ppl, r.ppl_low, r.ppl_high);
    out += fmt::format("mean nll        {:.6f} +- {:.6f} nats per token (standard error over sequences)\n", r.mean_nll,
                       r.standard_error);
  } else {
    out += fmt::format("perplexity      {:.4f}  (one sequence: no interval)\n", r.ppl);
    out += fmt::format("mean nll        {:.6f} nats per token\n", r.mean_nll);
  }
  out += fmt::format("bits per byte   {:.4f}\n", r.bits_per_byte);
  out += fmt::format("scored          {} tokens in {} sequences of at most {}; {} tokens dropped\n", r.tokens_scored,
                     r.sequences, r.options.seqlen, r.tokens_dropped);
  out += fmt::format("computed        {}, {} activations, {} numerics, {} threads: {:.0f} tokens/s\n", r.isa,
                     r.options.runtime.activations, r.options.runtime.numerics, r.threads,
                     r.forward_seconds > 0 ? static_cast<double>(r.tokens_scored) / r.forward_seconds : 0.0);
  return out;
}

std::string perplexity_json(const PerplexityResult& r) {
  Provenance provenance = make_provenance(make_load_options(r.options.runtime), r.threads);
  provenance.inputs.push_back(record_input("model", r.options.model));
  for (const auto& text : r.options.texts) provenance.inputs.push_back(record_input("text", text));
  Json config = {{"seqlen", r.options.seqlen}, {"limit", r.options.limit}};
  Json results = {
      {"ppl", r.ppl},
      {"ppl_low", r.ppl_low},
      {"ppl_high", r.ppl_high},
      {"mean_nll", r.mean_nll},
      {"standard_error", r.standard_error},
      {"nll_low", r.nll_low},
      {"nll_high", r.nll_high},
      {"bits_per_byte", r.bits_per_byte},
      {"sequences", r.sequences},
      {"tokens_scored", r.tokens_scored},
      {"tokens_dropped", r.tokens_dropped},
      {"bytes_scored", r.bytes_scored},
      {"load_seconds", r.load_seconds},
      {"forward_seconds", r.forward_seconds},
  };
  Json samples = Json::array();
  for (const SequenceScore& s : r.samples) {
    samples.push_back({{"text", s.text}, {"scored", s.scored}, {"bytes", s.bytes}, {"nll", s.nll}});
  }
  return envelope_text(
      make_envelope("kedge.perplexity/1", provenance, std::move(config), std::move(results), std::move(samples)));
}

}  // namespace kedge
