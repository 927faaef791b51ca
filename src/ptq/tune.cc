#include "ptq/tune.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "kedge/error.h"
#include "ptq/named_values.h"

namespace kedge {
namespace {

constexpr std::pair<const char*, ObjectiveTerm> kTerms[] = {
    {"mse", ObjectiveTerm::mse},          {"topk-mse", ObjectiveTerm::topk_mse}, {"kl", ObjectiveTerm::kl},
    {"kl-full", ObjectiveTerm::kl_full},  {"value", ObjectiveTerm::value},       {"order", ObjectiveTerm::order},
    {"boundary", ObjectiveTerm::boundary}};
constexpr std::pair<const char*, TuneRouter> kRouters[] = {
    {"same", TuneRouter::same}, {"next", TuneRouter::next}, {"both", TuneRouter::both}};
constexpr std::pair<const char*, TuneBase> kBases[] = {{"rounding", TuneBase::rounding},
                                                       {"clipping", TuneBase::clipping}};
constexpr std::pair<const char*, DType> kComputeTypes[] = {{"float32", DType::f32}, {"bfloat16", DType::bf16}};
constexpr std::pair<const char*, HingeShape> kShapes[] = {{"hinge", HingeShape::hinge},
                                                          {"softplus", HingeShape::softplus}};
constexpr std::pair<const char*, ValueWeights> kValueWeights[] = {
    {"none", ValueWeights::none}, {"sensitivity", ValueWeights::sensitivity}, {"boundary", ValueWeights::boundary}};

// Ratios of 0.05 to 0.1 kept more tokens with their experts than 1, whose errors add up in later layers.
constexpr TunePreset kPresets[] = {
    {"autoround", "mse=1", TuneRouter::same},
    {"topk-mse", "mse=1,topk-mse=0.1", TuneRouter::same},
    {"eaquant-kl", "mse=1,kl=0.1", TuneRouter::same},
    {"vsraq", "mse=1,value=0.1,order=0.05,boundary=0.05", TuneRouter::both},
};

WeightedTerm parse_term(std::string_view part, std::string_view whole) {
  const std::size_t equals = part.find('=');
  const std::string_view number = equals == std::string_view::npos ? "" : part.substr(equals + 1);
  double weight = 0;
  const auto [end, failed] = std::from_chars(number.data(), number.data() + number.size(), weight);
  if (number.empty() || failed != std::errc() || end != number.data() + number.size() || !(weight >= 0) ||
      weight > 1e6) {
    throw Error(ErrorCode::usage, fmt::format("\"{}\" in the objective \"{}\" is malformed", part, whole),
                "TERM=WEIGHT with a weight from 0 to a million, and commas between terms: mse=1,value=0.05");
  }
  return {value_in(kTerms, part.substr(0, equals), "term of an objective"), weight};
}

}  // namespace

const char* objective_term_name(ObjectiveTerm term) noexcept { return name_in(kTerms, term); }
const char* tune_router_name(TuneRouter router) noexcept { return name_in(kRouters, router); }
const char* tune_base_name(TuneBase base) noexcept { return name_in(kBases, base); }
const char* compute_dtype_name(DType dtype) noexcept { return name_in(kComputeTypes, dtype); }
const char* hinge_shape_name(HingeShape shape) noexcept { return name_in(kShapes, shape); }
const char* value_weights_name(ValueWeights weights) noexcept { return name_in(kValueWeights, weights); }
TuneRouter parse_tune_router(std::string_view name) { return value_in(kRouters, name, "choice of routers"); }
TuneBase parse_tune_base(std::string_view name) { return value_in(kBases, name, "base"); }
DType parse_compute_dtype(std::string_view name) { return value_in(kComputeTypes, name, "type of matrix products"); }
HingeShape parse_hinge_shape(std::string_view name) { return value_in(kShapes, name, "shape phi"); }
ValueWeights parse_value_weights(std::string_view name) { return value_in(kValueWeights, name, "value weights"); }

bool is_routing_term(ObjectiveTerm term) noexcept { return term != ObjectiveTerm::mse; }

bool TuneParameters::routes() const noexcept {
  return std::any_of(objective.begin(), objective.end(),
                     [](const WeightedTerm& t) { return is_routing_term(t.term) && t.weight > 0; });
}

std::vector<WeightedTerm> parse_objective(std::string_view text) {
  std::vector<WeightedTerm> out;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const WeightedTerm term = parse_term(text.substr(begin, end - begin), text);
    for (const WeightedTerm& other : out) {
      if (other.term != term.term) continue;
      throw Error(ErrorCode::usage,
                  fmt::format("the objective \"{}\" has \"{}\" twice", text, objective_term_name(term.term)),
                  "each term once");
    }
    out.push_back(term);
    begin = end + 1;
  }
  const auto mse = std::find_if(out.begin(), out.end(), [](const auto& t) { return t.term == ObjectiveTerm::mse; });
  if (mse == out.end() || mse->weight <= 0) {
    throw Error(ErrorCode::usage, fmt::format("the objective \"{}\" has no mse", text),
                "a weight above 0 for mse: some layers have no router in view");
  }
  return out;
}

std::string objective_text(std::span<const WeightedTerm> objective) {
  std::string out;
  for (const WeightedTerm& term : objective) {
    out += fmt::format("{}{}={}", out.empty() ? "" : ",", objective_term_name(term.term), term.weight);
  }
  return out;
}

const TunePreset& tune_preset(std::string_view method) {
  for (const TunePreset& preset : kPresets) {
    if (method == preset.method) return preset;
  }
  KEDGE_CHECK(!"a method without a preset");
  std::abort();
}

}  // namespace kedge
