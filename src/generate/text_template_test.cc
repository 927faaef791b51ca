#include "generate/text_template.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

std::string text(const char* source, const char* record) {
  return TextTemplate::parse(source, "t").text(parse_json(record, "record"));
}
Json value(const char* source, const char* record) {
  return TextTemplate::parse(source, "t").value(parse_json(record, "record"));
}

TEST(TextTemplate, KeepsItsWhitespace) {
  EXPECT_EQ(text("{{q.strip()}}\nA. {{c[0]}}\n", R"({"q": " why ", "c": ["so"]})"), "why\nA. so\n");
  EXPECT_EQ(text("{% if true %}\n  x\n  {% endif %}\n", "{}"), "\n  x\n  \n");
}

TEST(TextTemplate, GivesValues) {
  EXPECT_EQ(value("{{[a, b]}}", R"({"a": "x", "b": 1})").dump(), R"(["x",1])");
  EXPECT_EQ(value("{{c.label.index(k)}}", R"({"c": {"label": ["A", "B"]}, "k": "B"})"), 1);
  EXPECT_EQ(value("{% set i = s.find('_') %}\n{{[s[:i] + a]}}", R"({"s": "the _ one", "a": "red"})").dump(),
            R"(["the red"])");
  EXPECT_THROW(value("{{a}} and {{a}}", R"({"a": 1})"), Error);
  EXPECT_THROW(value("no value", "{}"), Error);
}

TEST(TextTemplate, NamesWhatIsMissing) {
  try {
    text("Question: {{question}}", R"({"query": "x"})");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_file);
    EXPECT_NE(std::string(error.what()).find("question is undefined"), std::string::npos) << error.what();
  }
  EXPECT_EQ(text("{{'none' if question is not defined else question}}", "{}"), "none");
  EXPECT_THROW(TextTemplate::parse("{{", "t"), Error);
  EXPECT_THROW(TextTemplate::parse("{% include 'x' %}", "t"), Error);
}

}  // namespace
}  // namespace kedge
