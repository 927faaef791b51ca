#include "eval/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/interrupt.h"
#include "base/json.h"
#include "eval/python_random.h"
#include "kedge/error.h"

namespace kedge {
namespace {

using Record = const Json*;

std::string text_of(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

bool is_digits(const std::string& text) {
  return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
}

// A record's question, answers and right answer, before examples and delimiters.
struct Parts {
  std::string question;
  std::vector<std::string> choices;
  std::size_t gold = 0;
  std::string answer;
};

class PromptMaker {
 public:
  explicit PromptMaker(const EvalTask& task) : task_(task) {}

  Parts parts(const Json& record) const {
    Parts out;
    if (task_.output_type != OutputType::multiple_choice) {
      if (task_.doc_to_text.compiled) out.question = task_.doc_to_text.compiled->text(record);
      out.answer = task_.doc_to_target.compiled->text(record);
      return out;
    }
    out.choices = choices(record);
    if (task_.multiple_input) {
      out.gold = choice_index(task_.doc_to_text.compiled->value(record), out.choices);
      out.answer = task_.doc_to_target.compiled->text(record);
    } else {
      out.question = task_.doc_to_text.compiled->text(record);
      out.gold = choice_index(task_.doc_to_target.compiled->value(record), out.choices);
      out.answer = out.choices[out.gold];
    }
    return out;
  }

  /// An example: question, answer, and the delimiter behind it.
  std::string example(const Json& record) const {
    const Parts p = parts(record);
    const std::string& question = task_.multiple_input ? p.choices[p.gold] : p.question;
    return question + (p.answer.empty() ? "" : task_.target_delimiter + p.answer + task_.fewshot_delimiter);
  }

  EvalSample sample(const Json& record, const std::string& examples) const {
    const Parts p = parts(record);
    const std::string before =
        (task_.description.compiled ? task_.description.compiled->text(record) : std::string()) + examples;
    EvalSample out;
    out.target = p.answer;
    out.gold = p.gold;
    out.choices = p.choices;
    switch (task_.output_type) {
      case OutputType::loglikelihood: out.arguments.emplace_back(before + p.question, p.answer); break;
      case OutputType::loglikelihood_rolling: out.arguments.emplace_back("", p.answer); break;
      case OutputType::generate_until: out.arguments.emplace_back(before + p.question, ""); break;
      case OutputType::multiple_choice:
        for (const std::string& choice : p.choices) {
          if (task_.multiple_input) {
            out.arguments.emplace_back(before + choice, task_.target_delimiter + p.answer);
          } else {
            out.arguments.emplace_back(before + p.question, task_.target_delimiter + choice);
          }
        }
    }
    if (task_.answer_labels.compiled) out.labels = labels(record, p.choices.size());
    return out;
  }

 private:
  std::vector<std::string> choices(const Json& record) const {
    if (!task_.choices.empty()) return task_.choices;
    const Json list = task_.doc_to_choice.compiled->value(record);
    if (!list.is_array() || list.empty()) throw Error(ErrorCode::bad_file, "doc_to_choice gives no list of choices");
    std::vector<std::string> out;
    for (const Json& choice : list) {
      out.push_back(text_of(choice));
      if (out.back().empty()) throw Error(ErrorCode::bad_file, "doc_to_choice gives an empty choice");
    }
    return out;
  }

  static std::size_t choice_index(const Json& value, const std::vector<std::string>& choices) {
    std::optional<std::int64_t> index;
    if (value.is_number_integer()) {
      index = value.get<std::int64_t>();
    } else if (value.is_string() && is_digits(value.get<std::string>())) {
      index = std::stoll(value.get<std::string>());
    } else if (value.is_string()) {
      const auto at = std::find(choices.begin(), choices.end(), value.get<std::string>());
      if (at != choices.end()) index = at - choices.begin();
    }
    if (!index || *index < 0 || *index >= static_cast<std::int64_t>(choices.size())) {
      throw Error(ErrorCode::bad_file, fmt::format("the right answer is {}", value.dump()),
                  fmt::format("a number from 0 to {}, or one of the choices", choices.size() - 1));
    }
    return static_cast<std::size_t>(*index);
  }

  std::vector<int> labels(const Json& record, std::size_t choices) const {
    const Json list = task_.answer_labels.compiled->value(record);
    std::vector<int> out;
    if (list.is_array()) {
      for (const Json& label : list) out.push_back(label.is_number_integer() && label.get<std::int64_t>() != 0 ? 1 : 0);
    }
    if (out.size() != choices || std::count(out.begin(), out.end(), 1) == 0) {
      throw Error(ErrorCode::bad_file, "answer_labels gives " + list.dump(),
                  fmt::format("{} numbers, not all of them 0", choices));
    }
    return out;
  }

  const EvalTask& task_;
};

// The examples of each record, drawn in the records' order from one generator, as the harness draws them.
class Examples {
 public:
  Examples(const EvalTask& task, const PromptMaker& maker, const std::vector<Record>& pool, bool leave_out,
           const PromptOptions& options)
      : first_n_(task.fewshot_sampler == "first_n"),
        maker_(maker),
        pool_(pool),
        texts_(pool.size()),
        leave_out_(leave_out),
        count_(static_cast<std::size_t>(options.num_fewshot)),
        random_(options.fewshot_seed) {
    if (count_ + (leave_out ? 1 : 0) > pool.size()) {
      throw Error(ErrorCode::usage, fmt::format("the task {} cannot give {} examples", task.name, count_),
                  fmt::format("at most {}", pool.size() - (leave_out ? 1 : 0)), "lower --num-fewshot");
    }
  }

  std::string next(Record record) {
    if (count_ == 0) return {};
    std::vector<std::size_t> drawn = candidates();
    if (leave_out_) std::erase_if(drawn, [&](std::size_t i) { return *pool_[i] == *record; });
    if (drawn.size() < count_) drawn = draw_without(record);
    std::string out;
    for (std::size_t k = 0; k < count_; ++k) {
      std::string& text = texts_[drawn[k]];
      if (text.empty()) text = maker_.example(*pool_[drawn[k]]);
      out += text;
    }
    return out;
  }

 private:
  std::vector<std::size_t> candidates() {
    if (!first_n_) return random_.sample(pool_.size(), count_ + (leave_out_ ? 1 : 0));
    std::vector<std::size_t> first;
    for (std::size_t i = 0; i < std::min(pool_.size(), count_ + (leave_out_ ? 1 : 0)); ++i) first.push_back(i);
    return first;
  }

  // The pool holds copies of the record, and more than one was drawn.
  std::vector<std::size_t> draw_without(Record record) {
    std::vector<std::size_t> others;
    for (std::size_t i = 0; i < pool_.size(); ++i) {
      if (*pool_[i] != *record) others.push_back(i);
    }
    if (others.size() < count_) {
      throw Error(ErrorCode::usage, fmt::format("{} examples differ from the record asked about", others.size()),
                  fmt::format("{}, as --num-fewshot says", count_));
    }
    if (first_n_) return others;
    std::vector<std::size_t> out;
    for (const std::size_t i : random_.sample(others.size(), count_)) out.push_back(others[i]);
    return out;
  }

  bool first_n_;
  const PromptMaker& maker_;
  const std::vector<Record>& pool_;
  std::vector<std::string> texts_;
  bool leave_out_;
  std::size_t count_;
  PythonRandom random_;
};

}  // namespace

std::vector<EvalSample> make_samples(const EvalTask& task, const std::vector<Record>& records,
                                     const std::vector<Record>* fewshot, const PromptOptions& options) {
  const PromptMaker maker(task);
  Examples examples(task, maker, fewshot != nullptr ? *fewshot : records, fewshot == nullptr, options);
  std::vector<EvalSample> out;
  const std::size_t count =
      options.limit == 0 ? records.size() : std::min(records.size(), static_cast<std::size_t>(options.limit));
  for (std::size_t i = 0; i < count; ++i) {
    if (i % 256 == 0) throw_if_interrupted();
    try {
      out.push_back(maker.sample(*records[i], examples.next(records[i])));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::bad_file) throw;
      throw Error(error.code(), fmt::format("task {}, record {}: {}", task.name, i, error.what()));
    }
    out.back().doc_id = static_cast<std::int64_t>(i);
  }
  return out;
}

}  // namespace kedge
