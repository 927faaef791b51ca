// Calibration data: texts -> packed sequences of equal length.
//
// Sources, in the order given; by the end of the name:
//   *.jsonl, *.ndjson, *.json   one JSON object per line, one document each: the member `field`, a text, or a list of
//                               chat messages [{role, content}], rendered through the model's chat template (the
//                               line's "tools", when it has them, go with it)
//   anything else               UTF-8 text, the whole file one document
//   none                        the bundled text (models/calibration-text.txt), part of the program
// Documents are tokenized without special tokens and packed one after the other into sequences of exactly seqlen
// tokens, as packing for pretraining does: a text that another document follows is ended by the tokenizer's eos token,
// where tokenizer_config.json names one; a chat ends as its template ends it. (auto-round and llm-compressor cut each
// sample at seqlen instead, and drop or pad the short ones; their option to concatenate is what stands here.) Tokens
// that do not fill a last sequence are counted, and are used when they are all there is.
//
// Choice: Fisher-Yates over all packed sequences with Rng(seed); the first nsamples, in shuffled order.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "generate/chat_template.h"
#include "generate/tokenizer.h"
#include "kedge/quantize.h"

namespace kedge {

inline constexpr std::int64_t default_calibration_seqlen = 2048;

/// What of the model the data must fit.
struct CalibrationModel {
  std::int64_t max_position_embeddings = 0;
  std::int64_t vocab_size = 0;
  /// Called at the first chat: a template that kedge cannot read matters to chats alone. Null result: the model has
  /// none.
  std::function<const ChatTemplate*()> chat_template = [] { return nullptr; };
};

struct CalibrationSource {
  std::string name;  ///< the file's name without its folder; "bundled" for the bundled text
  std::int64_t documents = 0;
  std::int64_t empty_documents = 0;  ///< of these, those without a token
  std::int64_t chats = 0;            ///< of the documents, those rendered by the chat template
  std::int64_t tokens = 0;           ///< eos tokens between documents not counted
};

struct CalibrationData {
  std::vector<std::vector<std::int32_t>> sequences;  ///< [S] of seqlen ids each
  std::int64_t seqlen = 0;  ///< shorter than asked only when the texts have fewer tokens than one sequence
  std::uint64_t seed = 0;
  bool balanced = false;    ///< select_sequences chose among more
  std::vector<CalibrationSource> sources;
  std::int64_t tokens_read = 0;     ///< of all documents, with the eos tokens between them
  std::int64_t tokens_dropped = 0;  ///< at the end, too few for a sequence
  std::int64_t sequences_available = 0;
  std::string ids_hash;  ///< SHA-256 of the sequences' ids, in order, int32 little-endian

  std::int64_t documents() const noexcept;
  std::int64_t tokens() const noexcept { return static_cast<std::int64_t>(sequences.size()) * seqlen; }
};

/// Error(usage): an empty text or document list, fewer than two tokens, seqlen below 2 or beyond the context, a
/// negative nsamples. Error(bad_file): text that is not UTF-8, broken JSON, a line without the field, or messages that
/// the chat template cannot render (file and line are named). Error(unsupported): messages for a model without a chat
/// template. Error(mismatch): an id beyond the model's vocabulary. Error(not_found), Error(io), Error(interrupted).
/// Fewer sequences than nsamples, and a default seqlen cut to the context, are notes.
CalibrationData read_calibration(const CalibrationOptions& options, const Tokenizer& tokenizer,
                                 const CalibrationModel& model);

/// The sequences of these indices, in this order; hash anew, the other counts as they were.
CalibrationData select_sequences(const CalibrationData& data, std::span<const std::int64_t> indices);

/// Everything but the ids, for a manifest.
nlohmann::ordered_json to_json(const CalibrationData& data);

}  // namespace kedge
