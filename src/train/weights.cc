#include "train/weights.h"

#include <fmt/format.h>

#include "base/check.h"

namespace kedge::training {
namespace {

using twin::ParameterInfo;
using twin::ParameterKind;

UpdateRule rule_of(const ParameterInfo& info, bool muon) {
  if (info.shape.size() == 1) return UpdateRule::plain;
  const bool in_layer = info.kind == ParameterKind::matrix && info.layer >= 0;
  return muon && in_layer ? UpdateRule::muon : UpdateRule::decayed;
}

}  // namespace

Weights::Weights(const ModelSpec& spec, const twin::Parameters& first, bool muon, const at::Device& device) {
  const auto place = at::TensorOptions().dtype(at::kFloat).device(device);
  std::unordered_map<std::string, std::size_t> index;
  for (const ParameterInfo& info : twin::list_parameters(spec)) {
    if (info.kind == ParameterKind::selection_bias) {
      parameters_.insert(info.name, first[info.name].to(place, /*non_blocking=*/false, /*copy=*/true));
      continue;
    }
    const std::string stacked = twin::stacked_name(info.name);
    const std::string& name = stacked.empty() ? info.name : stacked;
    const auto [at, is_new] = index.emplace(name, trained_.size());
    if (is_new) trained_.push_back({name, {}, info.shape, rule_of(info, muon), info.layer, {}, 0});
    trained_[at->second].members.push_back(info.name);
  }
  std::array<std::int64_t, kUpdateRules.size()> sizes{};
  for (TrainedWeight& weight : trained_) {
    if (weight.name != weight.members[0]) {
      weight.shape.insert(weight.shape.begin(), static_cast<std::int64_t>(weight.members.size()));
    }
    weight.offset = sizes[static_cast<std::size_t>(weight.rule)];
    sizes[static_cast<std::size_t>(weight.rule)] += num_elements(weight.shape);
  }
  for (const UpdateRule rule : kUpdateRules) {
    if (sizes[static_cast<std::size_t>(rule)] == 0) continue;
    group(rule) = {at::empty({sizes[static_cast<std::size_t>(rule)]}, place),
                   at::zeros({sizes[static_cast<std::size_t>(rule)]}, place)};
  }
  for (TrainedWeight& weight : trained_) {
    const auto view_of = [&](const at::Tensor& flat) {
      return flat.narrow(0, weight.offset, num_elements(weight.shape)).view(weight.shape).detach();
    };
    weight.value = view_of(group(weight.rule).value).set_requires_grad(true);
    weight.value.mutable_grad() = view_of(group(weight.rule).gradient);
    parameters_.insert(weight.name, weight.value);
  }
  const at::NoGradGuard no_gradients;
  for (const TrainedWeight& weight : trained_) {
    for (const std::string& name : weight.members) value(name).copy_(first[name]);
  }
}

at::Tensor Weights::selection_bias(int layer) const {
  const std::string name = fmt::format("model.layers.{}.mlp.gate.e_score_correction_bias", layer);
  return parameters_.contains(name) ? parameters_[name] : at::Tensor();
}

at::Tensor Weights::value(const std::string& canonical) const {
  const std::string stacked = twin::stacked_name(canonical);
  if (stacked.empty()) return parameters_[canonical].detach();
  constexpr std::string_view kExperts = ".mlp.experts.";
  const std::string number = canonical.substr(canonical.find(kExperts) + kExperts.size());
  return parameters_[stacked].detach().select(0, std::stoll(number));
}

void Weights::clear_gradients() {
  for (WeightGroup& group : groups_) {
    if (group.gradient.defined()) group.gradient.zero_();
  }
}

std::int64_t Weights::elements() const noexcept {
  std::int64_t total = 0;
  for (const WeightGroup& group : groups_) total += group.value.defined() ? group.value.numel() : 0;
  return total;
}

}  // namespace kedge::training
