#include "train/mnist_network.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include <ATen/ops/baddbmm.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/relu.h>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "kernels/topk/topk.h"
#include "twin/reconstruction_moe.h"

namespace kedge::training {
namespace {

constexpr const char* kExperts = "moe.experts.";

at::Tensor from_floats(const std::vector<float>& values, at::IntArrayRef shape) {
  at::Tensor out = at::empty(shape, at::kFloat);
  std::memcpy(out.mutable_data_ptr<float>(), values.data(), values.size() * sizeof(float));
  return out;
}

at::Tensor from_indices(const std::vector<std::int64_t>& values) {
  at::Tensor out = at::empty({static_cast<std::int64_t>(values.size())}, at::kLong);
  std::memcpy(out.mutable_data_ptr<std::int64_t>(), values.data(), values.size() * sizeof(std::int64_t));
  return out;
}

/// Each element is 0 with the probability `rate`, else divided by 1 - rate. 32 random bits serve an element.
at::Tensor drop(const at::Tensor& x, double rate, Rng& rng) {
  if (rate <= 0) return x;
  std::vector<float> mask(static_cast<std::size_t>(x.numel()));
  const auto limit = static_cast<std::uint64_t>(rate * 0x1p32);
  const auto kept = static_cast<float>(1 / (1 - rate));
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    bits = i % 2 == 0 ? rng.next() : bits >> 32;
    mask[i] = (bits & 0xFFFFFFFFu) < limit ? 0.0f : kept;
  }
  return x * from_floats(mask, x.sizes());
}

}  // namespace

void write_mnist_model(const MnistNetwork& network, const std::filesystem::path& folder) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, value] : network.parameters()) {
    const at::Tensor whole = value.contiguous();
    Tensor tensor(DType::f32, Shape(whole.sizes().begin(), whole.sizes().end()));
    std::memcpy(tensor.data<float>(), whole.const_data_ptr<float>(), tensor.num_bytes());
    tensors.emplace(name, std::move(tensor));
  }
  write_file_atomically(folder / "config.json", classifier_config(network.spec()).dump(2) + "\n");
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
}

std::int64_t expert_capacity(double factor, std::int64_t batch, std::int64_t top_k, std::int64_t experts) {
  if (factor <= 0) return batch;
  const double wanted = factor * static_cast<double>(batch * top_k) / static_cast<double>(experts);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(wanted), 1, batch);
}

MnistNetwork::MnistNetwork(const ClassifierSpec& spec, std::uint64_t seed) : spec_(spec) {
  std::int64_t elements = 0;
  const auto add = [&](std::string name, Shape shape, std::int64_t inputs) {
    leaves_.push_back({std::move(name), shape, elements, inputs, {}});
    elements += num_elements(shape);
  };
  for (const ClassifierLinear& l : list_linears(spec)) {
    if (l.expert > 0) continue;
    if (l.expert < 0) {
      add(l.module + ".weight", {l.rows, l.cols}, l.cols);
      if (l.bias) add(l.module + ".bias", {l.rows}, l.cols);
      continue;
    }
    const std::int64_t experts = spec.router.num_experts;
    const std::string module = kExperts + l.module.substr(l.module.rfind('.') + 1);
    add(module + ".weight", {experts, l.rows, l.cols}, l.cols);
    add(module + ".bias", {experts, 1, l.rows}, l.cols);
  }
  values_ = at::empty({elements}, at::kFloat);
  gradients_ = at::zeros({elements}, at::kFloat);
  Rng rng(seed);
  auto* first = values_.mutable_data_ptr<float>();
  for (Leaf& leaf : leaves_) {
    const std::int64_t size = num_elements(leaf.shape);
    const double bound = 1 / std::sqrt(static_cast<double>(leaf.inputs));
    for (std::int64_t i = 0; i < size; ++i)
      first[leaf.offset + i] = static_cast<float>(bound * (2 * rng.uniform() - 1));
    const auto view_of = [&](const at::Tensor& flat) {
      return flat.narrow(0, leaf.offset, size).view(leaf.shape).detach();
    };
    leaf.value = view_of(values_).set_requires_grad(true);
    leaf.value.mutable_grad() = view_of(gradients_);
  }
}

const at::Tensor& MnistNetwork::leaf(const std::string& name) const {
  const auto at = std::find_if(leaves_.begin(), leaves_.end(), [&](const Leaf& l) { return l.name == name; });
  KEDGE_CHECK(at != leaves_.end());
  return at->value;
}

std::vector<std::pair<std::string, at::Tensor>> MnistNetwork::by_file_name(const at::Tensor& flat) const {
  std::vector<std::pair<std::string, at::Tensor>> out;
  for (const Leaf& leaf : leaves_) {
    const at::Tensor value = flat.narrow(0, leaf.offset, num_elements(leaf.shape)).view(leaf.shape);
    if (!leaf.name.starts_with(kExperts)) {
      out.emplace_back(leaf.name, value);
      continue;
    }
    const std::string rest = leaf.name.substr(std::strlen(kExperts));
    for (std::int64_t e = 0; e < leaf.shape[0]; ++e) {
      const at::Tensor own = value.select(0, e);
      out.emplace_back(kExperts + std::to_string(e) + "." + rest, own.size(0) == 1 ? own.select(0, 0) : own);
    }
  }
  return out;
}

std::vector<std::pair<std::string, at::Tensor>> MnistNetwork::parameters() const { return by_file_name(values_); }
std::vector<std::pair<std::string, at::Tensor>> MnistNetwork::gradients() const { return by_file_name(gradients_); }

at::Tensor MnistNetwork::linear(const at::Tensor& x, const std::string& module) const {
  return at::linear(x, leaf(module + ".weight"), leaf(module + ".bias"));
}

MnistOutput MnistNetwork::forward(const at::Tensor& x, const MnistNetworkSettings& settings, Rng& rng) const {
  MnistOutput out;
  at::Tensor h = x;
  const std::size_t hidden = spec_.hidden_sizes.size();
  for (std::size_t i = 0; i < hidden; ++i) {
    h = drop(at::relu(linear(h, "fc" + std::to_string(i + 1))), settings.dropout, rng);
  }
  if (spec_.has_moe()) h = drop(h + forward_moe(h, settings, rng, out), settings.dropout, rng);
  out.logits = linear(h, "fc" + std::to_string(hidden + 1));
  return out;
}

at::Tensor MnistNetwork::router_logits(const at::Tensor& h, const MnistNetworkSettings& settings, Rng& rng) const {
  if (spec_.routes_by_error()) {
    const ErrorRouterSpec router = error_router(spec_);
    twin::ReconstructionMoeTensors w;
    w.encoder = leaf("moe.gate.weight").view({router.num_experts, router.bottleneck, router.hidden_size});
    return -twin::reconstruction_errors(router, w, h) / static_cast<double>(router.temperature);
  }
  const at::Tensor z = linear(h, "moe.gate");
  if (!settings.noisy_gating) return z;
  std::vector<float> noise(static_cast<std::size_t>(z.numel()));
  for (float& n : noise) n = static_cast<float>(rng.normal());
  return z + from_floats(noise, z.sizes());
}

at::Tensor MnistNetwork::forward_moe(const at::Tensor& h, const MnistNetworkSettings& settings, Rng& rng,
                                     MnistOutput& out) const {
  const std::int64_t batch = h.size(0), experts = spec_.router.num_experts, k = spec_.router.num_experts_per_tok;
  const at::Tensor z = router_logits(h, settings, rng), p = at::softmax(z, -1);

  const std::int64_t capacity = expert_capacity(settings.capacity_factor, batch, k, experts);
  std::vector<std::int64_t> image(static_cast<std::size_t>(experts * capacity), batch);
  std::vector<std::int64_t> gate(image.size(), batch * experts);
  std::vector<std::int64_t> used(static_cast<std::size_t>(experts), 0);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(k));
  std::vector<float> left_out(static_cast<std::size_t>(batch * experts), -std::numeric_limits<float>::infinity());
  out.load.assign(static_cast<std::size_t>(experts), 0);
  const at::Tensor ranked = z.detach().contiguous();
  const auto* scores = ranked.const_data_ptr<float>();
  for (std::int64_t b = 0; b < batch; ++b) {
    topk(scores + b * experts, experts, k, ids.data());
    for (const std::int32_t e : ids) {
      ++out.load[static_cast<std::size_t>(e)];
      left_out[static_cast<std::size_t>(b * experts + e)] = 0;
      std::int64_t& count = used[static_cast<std::size_t>(e)];
      if (count == capacity) {
        ++out.over_capacity;
        continue;
      }
      const auto slot = static_cast<std::size_t>(e * capacity + count++);
      image[slot] = b;
      gate[slot] = b * experts + e;
    }
  }
  std::vector<float> share(out.load.begin(), out.load.end());
  for (float& s : share) s /= static_cast<float>(batch * k);
  out.balance = (from_floats(share, {experts}) * p.mean(at::IntArrayRef({0}))).sum() * static_cast<double>(experts);

  at::Tensor weights = p;
  if (spec_.routes_by_error()) {
    weights = at::softmax(z + from_floats(left_out, z.sizes()), -1);
    out.reconstruction = (z * from_floats(left_out, z.sizes()).exp()).sum() *
                         (-static_cast<double>(spec_.router_temperature) / static_cast<double>(batch * k));
  }

  // Slots without an image read a row of zeros with a gate of 0, and write to a row that is dropped.
  const at::Tensor which = from_indices(image);
  const at::Tensor rows = at::cat({h, at::zeros({1, h.size(1)}, h.options())});
  const at::Tensor in = at::index_select(rows, 0, which).view({experts, capacity, h.size(1)});
  const auto layer = [&](const at::Tensor& a, const char* name) {
    const std::string module = std::string(kExperts) + name;
    return at::baddbmm(leaf(module + ".bias"), a, leaf(module + ".weight").transpose(1, 2));
  };
  const at::Tensor result = layer(at::relu(layer(in, "fc1")), "fc2").view({experts * capacity, h.size(1)});
  const at::Tensor gates =
      at::index_select(at::cat({weights.flatten(), at::zeros({1}, p.options())}), 0, from_indices(gate)).view({-1, 1});
  return at::index_add(at::zeros_like(rows), 0, which, result * gates).narrow(0, 0, batch);
}

}  // namespace kedge::training
