#include "ptq/calibration_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>

#include "base/hash.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "generate/corpus.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"
#include "ptq/calibration_text.h"

namespace kedge {
namespace {

using Ids = std::vector<std::int32_t>;

bool is_json_lines(const std::filesystem::path& file) {
  const std::filesystem::path end = file.extension();
  return end == ".jsonl" || end == ".ndjson" || end == ".json";
}

// Calls f(line, number) for each line, without its end; numbers from 1.
template <class F>
void for_each_line(std::string_view text, F&& f) {
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    f(line, number);
  }
}

// Calibration on repaired bytes would go unnoticed.
void check_utf8(std::string_view text, const std::string& where) {
  if (unicode::is_valid(text)) return;
  for_each_line(text, [&](std::string_view line, std::int64_t number) {
    if (unicode::is_valid(line)) return;
    throw Error(ErrorCode::bad_file, fmt::format("{} is not UTF-8 at line {}", where, number), "UTF-8 text",
                "convert it, for example with iconv");
  });
}

std::string list_members(const Json& object) {
  constexpr std::size_t most = 12;
  std::string names;
  std::size_t n = 0;
  for (const auto& [name, value] : object.items()) {
    if (n++ == most) return names + ", ...";
    names += (names.empty() ? "" : ", ") + name.substr(0, 40);
  }
  return names.empty() ? "none" : names;
}

struct Document {
  std::string text;
  bool chat = false;
};

using ChatTemplateSource = std::function<const ChatTemplate*()>;

std::string rendered(const Json& messages, const Json& line, const std::string& where,
                     const ChatTemplateSource& source) {
  const ChatTemplate* chat = source();
  if (chat == nullptr) {
    throw Error(ErrorCode::unsupported, where + " has chat messages, and the model has no chat template",
                "a chat_template in tokenizer_config.json, or chat_template.jinja",
                "name a field that holds plain text");
  }
  Json variables = Json::object();
  if (const auto tools = line.find("tools"); tools != line.end()) variables["tools"] = *tools;
  try {
    return chat->render(messages, false, variables);
  } catch (const Error& e) {
    throw Error(e.code(), where + " cannot be rendered: " + e.what());
  }
}

Document document_of_line(std::string_view line, const std::string& where, const std::string& field,
                          const ChatTemplateSource& chat) {
  const Json object = parse_json(line, where);
  if (!object.is_object()) throw Error(ErrorCode::bad_file, where + " is no JSON object", "one object per line");
  const auto member = object.find(field);
  if (member == object.end()) {
    throw Error(ErrorCode::bad_file, fmt::format("{} has no field \"{}\"", where, field),
                "one of the line's fields: " + list_members(object), "name the field that holds the text or messages");
  }
  if (member->is_array()) return {rendered(*member, object, where, chat), true};
  if (!member->is_string()) {
    throw Error(ErrorCode::bad_file, fmt::format("the field \"{}\" of {} is no text", field, where),
                "a string, or a list of messages");
  }
  return {member->get<std::string>(), false};
}

// Packs documents as they come: only ids are kept.
class Packer {
 public:
  Packer(const Tokenizer& tokenizer, CalibrationData& data) : tokenizer_(tokenizer), data_(data) {}

  void start_source(std::string name) { data_.sources.push_back({.name = std::move(name)}); }

  void add_document(std::string_view text, bool chat) {
    throw_if_interrupted();
    const Ids ids = tokenizer_.encode(text);
    CalibrationSource& source = data_.sources.back();
    ++source.documents;
    source.chats += chat ? 1 : 0;
    source.tokens += static_cast<std::int64_t>(ids.size());
    if (ids.empty()) {
      ++source.empty_documents;
      return;
    }
    if (needs_end_ && tokenizer_.eos_id() >= 0) stream_.push_back(tokenizer_.eos_id());
    stream_.insert(stream_.end(), ids.begin(), ids.end());
    needs_end_ = !chat;
  }

  Ids take() { return std::move(stream_); }

 private:
  const Tokenizer& tokenizer_;
  CalibrationData& data_;
  Ids stream_;
  bool needs_end_ = false;  // the last document is a text
};

void read_json_lines(const std::string& text, const std::filesystem::path& file, const std::string& field,
                     const ChatTemplateSource& chat, Packer& packer) {
  std::int64_t documents = 0;
  for_each_line(text, [&](std::string_view line, std::int64_t number) {
    if (line.find_first_not_of(" \t") == std::string_view::npos) return;
    const Document document = document_of_line(line, fmt::format("{}, line {},", file.string(), number), field, chat);
    packer.add_document(document.text, document.chat);
    ++documents;
  });
  if (documents == 0) {
    throw Error(ErrorCode::usage, "the file " + file.string() + " has no document", "one JSON object per line");
  }
}

void read_sources(const CalibrationOptions& options, const ChatTemplateSource& chat, Packer& packer) {
  if (options.files.empty()) {
    packer.start_source("bundled");
    packer.add_document(bundled_calibration_text(), false);
    return;
  }
  for (const auto& file : options.files) {
    const std::string text = read_text(file);
    check_utf8(text, file.string());
    packer.start_source(file.filename().string());
    if (is_json_lines(file)) {
      read_json_lines(text, file, options.field, chat, packer);
    } else {
      packer.add_document(text, false);
    }
  }
}

std::int64_t sequence_length(const CalibrationOptions& options, const CalibrationModel& model) {
  const std::int64_t context = model.max_position_embeddings;
  if (options.seqlen == 0) {
    if (context < default_calibration_seqlen) {
      note(fmt::format("calibration: sequences of {} tokens, the model's context, instead of {}", context,
                       default_calibration_seqlen));
    }
    return std::min(default_calibration_seqlen, context);
  }
  if (options.seqlen < 2 || options.seqlen > context) {
    throw Error(ErrorCode::usage, fmt::format("a calibration sequence length of {}", options.seqlen),
                fmt::format("2 to {}, the model's context", context));
  }
  return options.seqlen;
}

std::string hash_of(std::span<const Ids> sequences) {
  Sha256 sha;
  std::string bytes;
  for (const Ids& ids : sequences) {
    bytes.clear();
    for (const std::int32_t id : ids) {
      const auto value = static_cast<std::uint32_t>(id);
      for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(value >> shift & 0xff));
    }
    sha.update(bytes);
  }
  return sha.hex();
}

// The first n of a shuffle of 0 .. count - 1.
std::vector<std::int64_t> shuffled(std::int64_t count, std::int64_t n, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  Rng rng(seed);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto j = i + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(count - i)));
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(j)]);
  }
  order.resize(static_cast<std::size_t>(n));
  return order;
}

}  // namespace

std::int64_t CalibrationData::documents() const noexcept {
  std::int64_t total = 0;
  for (const CalibrationSource& source : sources) total += source.documents;
  return total;
}

CalibrationData read_calibration(const CalibrationOptions& options, const Tokenizer& tokenizer,
                                 const CalibrationModel& model) {
  const std::int64_t asked_seqlen = sequence_length(options, model);
  if (options.nsamples < 0) {
    throw Error(ErrorCode::usage, fmt::format("{} calibration sequences", options.nsamples), "0 (all) or above");
  }
  CalibrationData data;
  data.seed = options.seed;
  Packer packer(tokenizer, data);
  read_sources(options, model.chat_template, packer);
  const Ids stream = packer.take();
  data.tokens_read = static_cast<std::int64_t>(stream.size());
  if (data.tokens_read < 2) {
    throw Error(ErrorCode::usage, fmt::format("the calibration text has only {} tokens", data.tokens_read),
                "two tokens or more");
  }
  check_token_ids(std::span(&stream, 1), model.vocab_size);

  data.seqlen = std::min(asked_seqlen, data.tokens_read);
  data.sequences_available = data.tokens_read / data.seqlen;
  data.tokens_dropped = data.tokens_read % data.seqlen;
  const std::int64_t n =
      options.nsamples == 0 ? data.sequences_available : std::min(options.nsamples, data.sequences_available);
  for (const std::int64_t s : shuffled(data.sequences_available, n, options.seed)) {
    const auto begin = stream.begin() + s * data.seqlen;
    data.sequences.emplace_back(begin, begin + data.seqlen);
  }
  if (n < options.nsamples) {
    note(fmt::format("calibration: {} sequences of {} tokens are all that the text gives; {} of {} were asked for", n,
                     data.seqlen, options.nsamples, asked_seqlen));
  }
  data.ids_hash = hash_of(data.sequences);
  return data;
}

CalibrationData select_sequences(const CalibrationData& data, std::span<const std::int64_t> indices) {
  CalibrationData chosen = data;
  chosen.sequences.clear();
  for (const std::int64_t s : indices) chosen.sequences.push_back(data.sequences.at(static_cast<std::size_t>(s)));
  chosen.ids_hash = hash_of(chosen.sequences);
  chosen.balanced = true;
  return chosen;
}

Json to_json(const CalibrationData& data) {
  Json sources = Json::array();
  for (const CalibrationSource& source : data.sources) {
    sources.push_back({{"name", source.name},
                       {"documents", source.documents},
                       {"empty_documents", source.empty_documents},
                       {"chats", source.chats},
                       {"tokens", source.tokens}});
  }
  return {{"sources", std::move(sources)},
          {"sequences", data.sequences.size()},
          {"seqlen", data.seqlen},
          {"seed", data.seed},
          {"balanced", data.balanced},
          {"sequences_available", data.sequences_available},
          {"tokens_read", data.tokens_read},
          {"tokens_dropped", data.tokens_dropped},
          {"ids_sha256", data.ids_hash}};
}

}  // namespace kedge
