#include "moe/error_router.h"

#include <cmath>

#include "base/check.h"
#include "kedge/error.h"
#include "kernels/softmax/softmax.h"
#include "kernels/topk/topk.h"
#include "moe/router.h"

namespace kedge {
namespace {

template <class T>
struct Name {
  T value;
  const char* name;
};
constexpr Name<ErrorMeasure> kMeasures[] = {{ErrorMeasure::squared, "squared"},
                                            {ErrorMeasure::cosine, "cosine"},
                                            {ErrorMeasure::huber, "huber"},
                                            {ErrorMeasure::linear, "linear"}};
constexpr Name<ErrorNormalization> kNormalizations[] = {
    {ErrorNormalization::none, "none"}, {ErrorNormalization::width, "width"}, {ErrorNormalization::input, "input"}};
constexpr Name<CombineMethod> kCombineMethods[] = {{CombineMethod::softmin, "softmin"},
                                                   {CombineMethod::residual, "residual"},
                                                   {CombineMethod::best, "best"},
                                                   {CombineMethod::uniform, "uniform"}};

template <class T, std::size_t N>
const char* name_of(const Name<T> (&names)[N], T value) noexcept {
  for (const Name<T>& row : names) {
    if (row.value == value) return row.name;
  }
  return "?";
}

template <class T, std::size_t N>
T parse(const Name<T> (&names)[N], std::string_view text, const char* what) {
  std::string known;
  for (const Name<T>& row : names) {
    if (text == row.name) return row.value;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(ErrorCode::usage, "\"" + std::string(text.substr(0, 80)) + "\" is no " + what, "one of " + known);
}

[[noreturn]] void fail(const std::string& what, const std::string& expected) {
  throw Error(ErrorCode::usage, "routing by error: " + what, expected);
}

}  // namespace

const char* error_measure_name(ErrorMeasure value) noexcept { return name_of(kMeasures, value); }
const char* error_normalization_name(ErrorNormalization value) noexcept { return name_of(kNormalizations, value); }
const char* combine_method_name(CombineMethod value) noexcept { return name_of(kCombineMethods, value); }
ErrorMeasure parse_error_measure(std::string_view name) { return parse(kMeasures, name, "error measure"); }
ErrorNormalization parse_error_normalization(std::string_view name) {
  return parse(kNormalizations, name, "normalization of errors");
}
CombineMethod parse_combine_method(std::string_view name) { return parse(kCombineMethods, name, "combine method"); }

void check_error_router(const ErrorRouterSpec& spec) {
  const std::int64_t experts = spec.num_experts, k = spec.num_experts_per_tok;
  if (experts < 1 || experts > kMaxExperts) {
    fail(std::to_string(experts) + " experts", "1 to " + std::to_string(kMaxExperts));
  }
  if (k < 1 || k > experts) {
    fail(std::to_string(k) + " of " + std::to_string(experts) + " experts per token", "at least 1, at most all");
  }
  if (spec.hidden_size < 1 || spec.bottleneck < 1 || spec.bottleneck > spec.hidden_size) {
    fail("a bottleneck of " + std::to_string(spec.bottleneck) + " for a width of " + std::to_string(spec.hidden_size),
         "at least 1, at most the width");
  }
  if (!(spec.temperature > 0) || !std::isfinite(spec.temperature)) {
    fail("a temperature of " + std::to_string(spec.temperature), "a positive number");
  }
  if (spec.measure == ErrorMeasure::huber && (!(spec.huber_delta > 0) || !std::isfinite(spec.huber_delta))) {
    fail("a Huber delta of " + std::to_string(spec.huber_delta), "a positive number");
  }
  if (spec.is_learned() && (spec.bottleneck != 1 || spec.normalization != ErrorNormalization::none || spec.activation ||
                            !spec.tied || spec.orthonormal)) {
    fail("the measure linear with a bottleneck, a normalization, an activation, decoders or orthonormal rows",
         "one row per expert, and none of these");
  }
  if (spec.measure == ErrorMeasure::cosine && spec.normalization != ErrorNormalization::none) {
    fail("the cosine error, normalized by " + std::string(error_normalization_name(spec.normalization)),
         "the normalization none, for a cosine has no unit");
  }
}

void select_by_error(const ErrorRouterSpec& spec, const float* errors, std::int64_t tokens, std::int32_t* ids,
                     float* weights, Isa isa) {
  const std::int64_t experts = spec.num_experts, k = spec.slots();
  KEDGE_CHECK(experts <= kMaxExperts && k <= experts);
  float scores[kMaxExperts];
  for (std::int64_t t = 0; t < tokens; ++t, errors += experts, ids += k, weights += k) {
    for (std::int64_t e = 0; e < experts; ++e) scores[e] = -errors[e];
    topk(scores, experts, k, ids);
    for (std::int64_t s = 0; s < k; ++s) {
      weights[s] = spec.combine == CombineMethod::uniform ? 1.0f / static_cast<float>(k)
                                                          : (errors[ids[0]] - errors[ids[s]]) / spec.temperature;
    }
    if (spec.combine != CombineMethod::uniform) softmax(weights, 1, k, isa);
  }
}

}  // namespace kedge
