#include "ptq/layers/input_groups.h"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace kedge {
namespace {

using Kind = InputGroup::Kind;

struct Place {
  std::string_view part;   ///< the last name of a module
  std::string_view reads;  ///< the part that stands for its input
  std::size_t wave;
  bool writes_residual = false;
};

constexpr std::array kAttention = {
    Place{"q_proj", "q_proj", 0},       Place{"k_proj", "q_proj", 0},
    Place{"v_proj", "q_proj", 0},       Place{"q_a_proj", "q_a_proj", 0},
    Place{"q_b_proj", "q_b_proj", 1},   Place{"kv_a_proj_with_mqa", "kv_a_proj_with_mqa", 0},
    Place{"kv_b_proj", "kv_b_proj", 1}, Place{"o_proj", "o_proj", 2, true},
};
constexpr std::array kFfn = {
    // up_proj is there in FFNs without a gate, too.
    Place{"gate_proj", "up_proj", 0},
    Place{"up_proj", "up_proj", 0},
    Place{"down_proj", "down_proj", 1, true},
};
constexpr std::size_t kWaves = 3;

const Place& place_of(std::string_view part, bool is_attention) {
  const std::span<const Place> table = is_attention ? std::span<const Place>(kAttention) : std::span<const Place>(kFfn);
  const auto at = std::find_if(table.begin(), table.end(), [&](const Place& place) { return place.part == part; });
  KEDGE_CHECK(at != table.end());
  return *at;
}

Kind kind_of(LinearRole role, std::size_t wave) {
  if (role == LinearRole::expert) return wave == 0 ? Kind::expert : Kind::expert_intermediate;
  if (role == LinearRole::shared_expert && wave == 0) return Kind::moe;
  return Kind::linear;
}

std::int64_t statistics_bytes(const InputGroup& group, bool cross, bool with_residual) {
  const LinearRef& linear = group.modules.front()->linear;
  std::int64_t values = linear.cols * linear.cols * (cross ? 2 : 1);
  if (with_residual && group.writes_residual) values += linear.rows * linear.cols;
  return values * static_cast<std::int64_t>(sizeof(float));
}

bool has_anchor(const InputGroup& group) {
  return std::any_of(group.modules.begin(), group.modules.end(),
                     [](const PlannedModule* module) { return module->anchor.has_value(); });
}

}  // namespace

std::vector<Wave> parts_of(Wave wave, std::int64_t bytes, bool cross, bool with_residual) {
  std::vector<Wave> parts;
  if (std::any_of(wave.begin(), wave.end(), has_anchor)) {
    parts.push_back(std::move(wave));
    return parts;
  }
  std::int64_t taken = 0;
  for (InputGroup& group : wave) {
    const std::int64_t own = statistics_bytes(group, cross, with_residual);
    if (parts.empty() || taken + own > bytes) {
      parts.emplace_back();
      taken = 0;
    }
    taken += own;
    parts.back().push_back(std::move(group));
  }
  return parts;
}

std::vector<Wave> input_waves(const std::vector<const PlannedModule*>& modules, bool is_attention) {
  std::vector<Wave> waves(kWaves);
  for (const PlannedModule* module : modules) {
    const LinearRef& linear = module->linear;
    if (!module->args || (linear.role == LinearRole::attention) != is_attention) continue;
    const std::size_t dot = linear.canonical.rfind('.');
    const Place& place = place_of(std::string_view(linear.canonical).substr(dot + 1), is_attention);
    const Kind kind = kind_of(linear.role, place.wave);
    const std::string observed = linear.canonical.substr(0, dot + 1) + std::string(place.reads);
    Wave& wave = waves[place.wave];
    auto at = std::find_if(wave.begin(), wave.end(), [&](const InputGroup& g) { return g.observed == observed; });
    if (at == wave.end()) at = wave.insert(wave.end(), {kind, observed, linear.expert, place.writes_residual, {}});
    at->modules.push_back(module);
  }
  std::erase_if(waves, [](const Wave& wave) { return wave.empty(); });
  return waves;
}

}  // namespace kedge
