// jinja2's tests: what stands behind "is".
#include <cmath>

#include "generate/template/functions.h"
#include "generate/template/text.h"

namespace kedge::jinja {
namespace {

bool is_number(const Value& v) { return v.integer() != nullptr || v.real() != nullptr || v.boolean() != nullptr; }
bool is_iterable(const Value& v) {
  return v.string() != nullptr || v.list() != nullptr || v.dict() != nullptr || v.is_undefined();
}

struct Plain {
  const char* name;
  bool (*holds)(const Value&);
};
constexpr Plain plain[] = {
    {"defined", [](const Value& v) { return !v.is_undefined(); }},
    {"undefined", [](const Value& v) { return v.is_undefined(); }},
    {"none", [](const Value& v) { return v.is_none(); }},
    {"string", [](const Value& v) { return v.string() != nullptr; }},
    {"mapping", [](const Value& v) { return v.dict() != nullptr; }},
    {"iterable", is_iterable},
    {"sequence", is_iterable},
    {"number", is_number},
    {"integer", [](const Value& v) { return v.integer() != nullptr; }},
    {"float", [](const Value& v) { return v.real() != nullptr; }},
    {"boolean", [](const Value& v) { return v.boolean() != nullptr; }},
    {"true", [](const Value& v) { return v.boolean() != nullptr && *v.boolean(); }},
    {"false", [](const Value& v) { return v.boolean() != nullptr && !*v.boolean(); }},
    {"callable", [](const Value& v) { return v.callable() != nullptr; }},
    {"odd", [](const Value& v) { return integer_argument(v, 0, "odd") % 2 != 0; }},
    {"even", [](const Value& v) { return integer_argument(v, 0, "even") % 2 == 0; }},
    {"lower", [](const Value& v) { return to_text(v) == to_lower(to_text(v)) && to_text(v) != to_upper(to_text(v)); }},
    {"upper", [](const Value& v) { return to_text(v) == to_upper(to_text(v)) && to_text(v) != to_lower(to_text(v)); }},
};

bool divisible(Meter&, const Value& a, const Value& b) {
  const std::int64_t divisor = integer_argument(b, 0, "divisibleby");
  if (divisor == 0) fail("a division by zero");
  return divisor == -1 || integer_argument(a, 0, "divisibleby") % divisor == 0;
}
bool same_as(Meter& meter, const Value& a, const Value& b) {
  return a.is_none() == b.is_none() && (a.boolean() != nullptr) == (b.boolean() != nullptr) && equal(meter, a, b);
}

struct WithOther {
  const char* name;
  bool (*holds)(Meter&, const Value&, const Value&);
};
constexpr WithOther with_other[] = {
    {"==", equal},
    {"eq", equal},
    {"equalto", equal},
    {"!=", [](Meter& meter, const Value& a, const Value& b) { return !equal(meter, a, b); }},
    {"ne", [](Meter& meter, const Value& a, const Value& b) { return !equal(meter, a, b); }},
    {"<", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) < 0; }},
    {"lt", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) < 0; }},
    {"lessthan", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) < 0; }},
    {"<=", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) <= 0; }},
    {"le", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) <= 0; }},
    {">", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) > 0; }},
    {"gt", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) > 0; }},
    {"greaterthan", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) > 0; }},
    {">=", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) >= 0; }},
    {"ge", [](Meter& meter, const Value& a, const Value& b) { return compare(meter, a, b) >= 0; }},
    {"divisibleby", divisible},
    {"sameas", same_as},
};

}  // namespace

bool Interpreter::test(const std::string& name, const Value& subject, const Arguments& arguments) {
  meter_.work(subject.weight());
  for (const Plain& test : plain) {
    if (name != test.name) continue;
    bind(test.name, "", arguments);
    return test.holds(subject);
  }
  if (name == "in") return contains(bind("in", "seq", arguments)[0], subject);
  for (const WithOther& test : with_other) {
    if (name == test.name) return test.holds(meter_, subject, bind(test.name, "other", arguments)[0]);
  }
  fail_unsupported("the test " + name);
}

}  // namespace kedge::jinja
