#include "generate/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// tools/make_chat_template_goldens.py: what transformers' environment of jinja2 renders.
const std::filesystem::path folder = std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/goldens/chat_templates";

const Json hello = Json::parse(R"([{"role": "user", "content": "Hello"}])");

ChatTemplate::SpecialTokens special_tokens() { return {{"bos_token", "<s>"}, {"eos_token", "</s>"}}; }

std::string render(const std::string& source, const Json& messages = hello) {
  return ChatTemplate::parse(source, "test", special_tokens()).render(messages);
}

std::string error(const std::string& source, ErrorCode code, const Json& messages = hello) {
  try {
    const std::string out = render(source, messages);
    ADD_FAILURE() << source << " gives " << out;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  return "";
}

// A golden that is {"error": true} raised in jinja2; an Error is expected.
void expect_golden(const std::string& source, const Json& conversation, const Json& expected, const std::string& what) {
  const Json variables = conversation.contains("variables") ? conversation.at("variables") : Json::object();
  const bool prompt = conversation.contains("add_generation_prompt") && conversation.at("add_generation_prompt");
  try {
    const std::string out =
        ChatTemplate::parse(source, "test", special_tokens()).render(conversation.at("messages"), prompt, variables);
    if (expected.is_string()) {
      EXPECT_EQ(out, expected.get<std::string>()) << what;
    } else {
      ADD_FAILURE() << what << " must fail, gives " << out;
    }
  } catch (const Error& e) {
    EXPECT_FALSE(expected.is_string()) << what << ": " << e.what();
  }
}

TEST(ChatTemplate, RendersAsTransformers) {
  const Json expected = read_json(folder / "expected.json"), conversations = read_json(folder / "conversations.json");
  int texts = 0;
  for (const auto& [name, results] : expected.at("templates").items()) {
    const std::string source = read_file(folder / (name + ".jinja"));
    for (const Json& conversation : conversations) {
      const std::string which = conversation.at("name");
      expect_golden(source, conversation, results.at(which), name + " with " + which);
      texts += results.at(which).is_string() ? 1 : 0;
    }
  }
  EXPECT_GT(texts, 60);
}

TEST(ChatTemplate, EvaluatesAsJinja) {
  const Json expected = read_json(folder / "expected.json").at("snippets"),
             snippets = read_json(folder / "snippets.json");
  Json conversation = snippets;
  conversation["add_generation_prompt"] = true;
  ASSERT_EQ(expected.size(), snippets.at("sources").size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const std::string source = snippets.at("sources")[i];
    expect_golden(source, conversation, expected[i], source);
  }
}

TEST(ChatTemplate, NamesLineAndCause) {
  EXPECT_NE(error("a\nb\n{% if true %}", ErrorCode::bad_file).find("test, line 3"), std::string::npos);
  EXPECT_NE(error("\n{{ x.y }}", ErrorCode::bad_file).find("line 2: \"y\" of an undefined value"), std::string::npos);
  EXPECT_NE(error("{{ raise_exception('no \\n system') }}", ErrorCode::usage).find("refuses the messages: no   system"),
            std::string::npos);
  EXPECT_NE(error("{{ 1 | frobnicate }}", ErrorCode::unsupported).find("the filter frobnicate"), std::string::npos);
  EXPECT_NE(error("{% include 'x' %}", ErrorCode::unsupported).find("the statement include"), std::string::npos);
  error("", ErrorCode::usage, Json::array());
  error("", ErrorCode::usage, Json::parse(R"([{"content": "no role"}])"));
  error("", ErrorCode::usage, Json::parse(R"({"role": "user"})"));
  error("\xff", ErrorCode::bad_file);
}

TEST(ChatTemplate, KnowsTheTimeWhenTold) {
  const std::string source = "{{ strftime_now('%d %b %Y, %H:%M:%S') if strftime_now is defined else 'no time' }}";
  EXPECT_EQ(render(source), "no time");
  EXPECT_EQ(ChatTemplate::parse(source, "test", {}, {.now = 1'700'000'000}).render(hello), "14 Nov 2023, 22:13:20");
  error("{{ strftime_now('%d') }}", ErrorCode::bad_file);
}

// Each of these would not end, or would take all memory or the stack.
TEST(ChatTemplate, BoundsWhatATemplateCosts) {
  const TemplateOptions limits{.now = {}, .max_steps = 100'000'000, .max_bytes = 1 << 20};
  const std::string many = "{% for a in range(99999) %}{% for b in range(99999) %}";
  for (const std::string& source : {
           many + "{{ a }}{% endfor %}{% endfor %}",
           many + "{% endfor %}{% endfor %}",
           std::string(
               "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"),
           std::string(
               "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"),
           std::string("{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}"),
           std::string(
               "{% set ns = namespace(x={}) %}{% for i in range(9999) %}{% set ns.x = {1: ns.x} %}{% endfor %}"),
           std::string("{{ 'a' * 999999999 * 99 }}"),
           std::string("{{ [1] * 9223372036854775807 }}"),
           std::string("{{ '%s' % 'x' * 9 }}"),
           std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
           std::string("{% macro m() %}{{ m() ~ m() }}{% endmacro %}{{ m() }}"),
           std::string("{{ (('a' * 500000) in ('a' * 999999)) ~ ('a' * 250000 + 'b') in ('a' * 999999) }}"),
           "{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}",
           "{{ " + std::string(5000, '-') + "1 }}",
           "{{ " + std::string(5000, '[') + " }}",
           "{{ 1" +
               [] {
                 std::string s;
                 for (int i = 0; i < 5000; ++i) s += " + 1";
                 return s;
               }() +
               " }}",
           "{{ x" +
               [] {
                 std::string s;
                 for (int i = 0; i < 5000; ++i) s += ".y";
                 return s;
               }() +
               " }}",
           [] {
             std::string s;
             for (int i = 0; i < 5000; ++i) s += "{% if 1 %}";
             return s;
           }(),
           "{{ 'a' | map('map'" +
               [] {
                 std::string s;
                 for (int i = 0; i < 5000; ++i) s += ", 'map'";
                 return s;
               }() +
               ") }}",
           // Mappings whose keys stand in another order, compared again and again.
           [] {
             std::string up, down;
             for (int i = 0; i < 1000; ++i) {
               up += std::to_string(i) + ":0,";
               down = std::to_string(i) + ":0," + down;
             }
             return "{% set a = {" + up + "} %}{% set b = {" + down +
                    "} %}{% for i in range(99999) %}{% if a == b %}{% endif %}{% endfor %}";
           }(),
           std::string("{% set l = ['b'] * 40000 %}{% for i in range(99999) %}{% if 'a'.startswith(l) %}{% endif %}{% "
                       "endfor %}"),
           std::string("{{ range(100) | tojson(separators=('x' * 500000, ':')) }}"),
           std::string("{% set a = [0] * 900000 %}"),
       }) {
    EXPECT_THROW(ChatTemplate::parse(source, "test", {}, limits).render(hello), Error) << source.substr(0, 200);
  }
}

TEST(ChatTemplate, NothingRefersToItself) {
  error("{% set ns = namespace() %}{% set ns.x = ns %}", ErrorCode::unsupported);
  error("{% set ns = namespace() %}{% set ns.x = [ns] %}", ErrorCode::unsupported);
  error("{% for i in [1] %}{% set x = {'l': loop} %}{% endfor %}", ErrorCode::unsupported);
  error(
      "{% set ns = namespace() %}{% for i in [1] %}{% macro m() %}a{% endmacro %}{% set ns.m = m %}{% endfor %}{{ "
      "ns.m() }}",
      ErrorCode::unsupported);
}

class ChatTemplateFolder : public testing::Test {
 protected:
  ChatTemplateFolder() {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / (std::string("kedge_chat_") + info->name());
    std::filesystem::create_directories(folder_);
  }
  ~ChatTemplateFolder() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }
  std::filesystem::path folder_;
};

TEST_F(ChatTemplateFolder, OpensWhatCheckpointsHave) {
  EXPECT_FALSE(ChatTemplate::open(folder_).has_value());
  write("tokenizer_config.json", R"({"bos_token": {"content": "<B>"}})");
  EXPECT_FALSE(ChatTemplate::open(folder_).has_value());
  write("tokenizer_config.json", R"({"bos_token": {"content": "<B>"}, "eos_token": "<E>",
    "chat_template": "{{ bos_token + messages[0].content + eos_token }}"})");
  const std::string hash = ChatTemplate::open(folder_)->content_hash();
  EXPECT_EQ(ChatTemplate::open(folder_)->render(hello), "<B>Hello<E>");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"},
    {"name": "default", "template": "{{ messages|length }}"}]})");
  EXPECT_EQ(ChatTemplate::open(folder_)->render(hello), "1");
  EXPECT_NE(ChatTemplate::open(folder_)->content_hash(), hash);
  write("chat_template.jinja", "file");
  EXPECT_EQ(ChatTemplate::open(folder_)->render(hello), "file");
  std::filesystem::remove(folder_ / "chat_template.jinja");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "other", "template": "t"}]})");
  EXPECT_THROW(ChatTemplate::open(folder_), Error);
}

}  // namespace
}  // namespace kedge
