#include <charconv>

#include "base/file.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/result.h"
#include "kedge/error.h"
#include "kedge/generate.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {
    {"MODEL", "a directory with a tokenizer.json"},
    {"TEXT", "the text; - reads it from stdin", false, false},
};

constexpr Flag kFlags[] = {
    {.name = "file", .type = FlagType::path, .help = "read the text from a file", .value_name = "FILE"},
    {.name = "decode", .help = "token ids between spaces or commas -> text", .value_name = "IDS"},
    {.name = "special",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "add the tokens that the model puts around a prompt"},
};

std::vector<std::int32_t> parse_ids(const std::string& text) {
  std::vector<std::int32_t> ids;
  std::size_t begin = 0;
  while ((begin = text.find_first_not_of(" ,\t\n", begin)) != std::string::npos) {
    const std::size_t end = std::min(text.find_first_of(" ,\t\n", begin), text.size());
    std::int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, id);
    if (error != std::errc() || stop != text.data() + end || id < 0) {
      throw Error(ErrorCode::usage,
                  "--decode holds \"" + text.substr(begin, std::min<std::size_t>(end - begin, 40)) + "\"",
                  "token ids between spaces or commas");
    }
    ids.push_back(id);
    begin = end;
  }
  return ids;
}

int run_tokenize(const Arguments& arguments) {
  const bool json = arguments.flag("json");
  const std::string model = arguments.text("MODEL");
  const int ways = int(arguments.given("TEXT")) + int(arguments.given("file")) + int(arguments.given("decode"));
  if (ways != 1) {
    throw Error(ErrorCode::usage, ways == 0 ? "no text is given" : "more than one text is given",
                "one of TEXT, --file FILE and --decode IDS");
  }
  if (arguments.given("decode")) {
    const std::vector<std::int32_t> ids = parse_ids(arguments.text("decode"));
    const std::string text = detokenize(model, ids);
    print(json ? result_json("kedge.tokenize/1", {}, 1, {{"model", model}}, {{"ids", ids}, {"text", text}})
               : text + "\n");
    return 0;
  }
  std::string text = arguments.given("file") ? read_file(arguments.text("file")) : arguments.text("TEXT");
  if (arguments.given("TEXT") && text == "-") text = read_stdin();
  const TokenizeResult result = tokenize(model, text, arguments.flag("special"));
  if (json) {
    const Json results = {{"ids", result.ids}, {"tokens", result.tokens}};
    print(result_json("kedge.tokenize/1", {}, 1, {{"model", model}}, results));
    return 0;
  }
  std::string line;
  for (const std::int32_t id : result.ids) line += (line.empty() ? "" : " ") + std::to_string(id);
  print(line + "\n");
  return 0;
}

}  // namespace

constinit const Command tokenize_command{.name = "tokenize",
                                         .summary = "Turn text into token ids, or ids into text",
                                         .positionals = kPositionals,
                                         .flags = kFlags,
                                         .common = kPlainFlags,
                                         .example = "kedge tokenize models/demo-4m \"It was a dark and\"",
                                         .run = run_tokenize};

}  // namespace kedge::cli
