#include "kedge/error.h"

namespace kedge {
namespace {

// "what: expected this; do that", whichever parts there are.
std::string sentence(const std::string& what, const std::string& expected, const std::string& to_do) {
  std::string text = what;
  if (!expected.empty()) text += ": expected " + expected;
  if (!to_do.empty()) text += "; " + to_do;
  return text;
}

}  // namespace

Error::Error(ErrorCode code, const std::string& what_happened, const std::string& expected, const std::string& to_do)
    : std::runtime_error(sentence(what_happened, expected, to_do)), code_(code) {}

}  // namespace kedge
