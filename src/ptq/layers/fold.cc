#include "ptq/layers/fold.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace kedge {
namespace {

// Beyond these a bf16 or fp16 weight of ordinary size would leave its type's range.
constexpr float kLeastScale = 1.0f / 256, kLargestScale = 256.0f;

using Modules = std::vector<const PlannedModule*>;

std::string_view last_name(const PlannedModule& module) {
  const std::string_view name = module.linear.canonical;
  return name.substr(name.rfind('.') + 1);
}

std::vector<std::int32_t> identity(std::int64_t count) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(count));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

class Sites {
 public:
  Sites(const ModelSpec& spec, const BlockSpec& block, const Modules& modules)
      : spec_(spec),
        layer_("model.layers." + std::to_string(block.source_layer)),
        norm_(layer_ + "." + block.pre_norm) {
    for (const PlannedModule* module : modules) {
      (module->linear.role == LinearRole::attention ? attention_ : ffn_).push_back(module);
    }
  }

  void operator()(const Attention& a) {
    add_norm(norm_, select(attention_, {"q_proj", "k_proj", "v_proj"}), nullptr);
    if (a.qkv_bias || a.clip_qkv) return;
    FoldSite site;
    site.channels = a.num_key_value_heads * a.head_dim;
    site.row_of_channel = identity(site.channels);
    const std::int64_t shared = a.num_attention_heads / a.num_key_value_heads;
    for (std::int64_t c = 0; c < a.num_attention_heads * a.head_dim; ++c) {
      site.channel_of_column.push_back(
          static_cast<std::int32_t>(c / a.head_dim / shared * a.head_dim + c % a.head_dim));
    }
    add_rows(std::move(site), select(attention_, {"v_proj"}), select(attention_, {"o_proj"}));
  }

  void operator()(const Mla& m) {
    add_norm(norm_, select(attention_, {"q_proj", "q_a_proj", "kv_a_proj_with_mqa"}), nullptr);
    add_norm(layer_ + ".self_attn.q_a_layernorm", select(attention_, {"q_b_proj"}), nullptr);
    add_norm(layer_ + ".self_attn.kv_a_layernorm", select(attention_, {"kv_b_proj"}), nullptr);
    FoldSite site;
    site.channels = m.num_attention_heads * m.v_head_dim;
    site.channel_of_column = identity(site.channels);
    for (std::int64_t c = 0; c < site.channels; ++c) {
      const std::int64_t row = c / m.v_head_dim * (m.qk_nope_head_dim + m.v_head_dim) + m.qk_nope_head_dim;
      site.row_of_channel.push_back(static_cast<std::int32_t>(row + c % m.v_head_dim));
    }
    add_rows(std::move(site), select(attention_, {"kv_b_proj"}), select(attention_, {"o_proj"}));
  }

  void operator()(const Mlp& mlp) { add_ffn(nullptr, mlp.gated); }
  void operator()(const ReconstructionMoe&) { KEDGE_CHECK(!"calibration refuses layers routed by error"); }
  void operator()(const Moe&) {
    const auto at = std::find_if(ffn_.begin(), ffn_.end(),
                                 [](const PlannedModule* m) { return m->linear.role == LinearRole::router; });
    KEDGE_CHECK(at != ffn_.end());
    add_ffn(*at, true);
  }

  std::vector<FoldSite> sites;

 private:
  static Modules select(const Modules& from, std::initializer_list<std::string_view> names) {
    Modules out;
    std::copy_if(from.begin(), from.end(), std::back_inserter(out), [&](const PlannedModule* module) {
      return std::find(names.begin(), names.end(), last_name(*module)) != names.end();
    });
    return out;
  }
  static bool all_quantized(const Modules& modules) {
    return !modules.empty() && std::all_of(modules.begin(), modules.end(), [](auto* m) { return m->args.has_value(); });
  }

  void add_norm(const std::string& norm, const Modules& consumers, const PlannedModule* router) {
    if (!all_quantized(consumers)) return;
    FoldSite site;
    site.producer = norm + ".weight";
    site.is_norm = true;
    site.consumers = consumers;
    site.router = router;
    site.channels = consumers.front()->linear.cols;
    site.channel_of_column = identity(site.channels);
    sites.push_back(std::move(site));
  }

  void add_rows(FoldSite site, const Modules& producer, const Modules& consumers) {
    if (!all_quantized(producer) || !all_quantized(consumers)) return;
    site.producer = producer.front()->linear.canonical;
    site.consumers = consumers;
    sites.push_back(std::move(site));
  }

  void add_ffn(const PlannedModule* router, bool gated) {
    add_norm(norm_, select(ffn_, {"gate_proj", "up_proj"}), router);
    if (!gated) return;  // what follows an activation is no multiple of what precedes it
    const Modules downs = select(ffn_, {"down_proj"});
    for (const PlannedModule* up : select(ffn_, {"up_proj"})) {
      const std::string& name = up->linear.canonical;
      const std::string down = name.substr(0, name.rfind('.')) + ".down_proj";
      const auto at = std::find_if(downs.begin(), downs.end(), [&](auto* m) { return m->linear.canonical == down; });
      if (at == downs.end()) continue;
      FoldSite site;
      site.channels = up->linear.rows;
      site.channel_of_column = identity(site.channels);
      site.row_of_channel = identity(site.channels);
      add_rows(std::move(site), {up}, {*at});
    }
  }

  const ModelSpec& spec_;
  std::string layer_, norm_;
  Modules attention_, ffn_;
};

float stored(DType dtype, float value) {
  std::uint32_t narrow = 0;
  float out = 0;
  convert_from_float(dtype, &value, 1, &narrow);
  convert_to_float(dtype, &narrow, 1, &out);
  return out;
}

std::optional<DType> dtype_of(const LayerInput& input, const std::string& tensor) {
  const auto at = input.kept.find(tensor);
  return at == input.kept.end() || at->second == DType::f64 || !is_convertible_float(at->second)
             ? std::nullopt
             : std::optional(at->second);
}

float nearest_power_of_two(float x) {
  int exponent = 0;
  const float mantissa = std::frexp(x, &exponent);  // in [0.5, 1)
  return std::ldexp(1.0f, mantissa * mantissa < 0.5f ? exponent - 1 : exponent);
}

DType storable(DType dtype) { return dtype == DType::f64 ? DType::f32 : dtype; }

Tensor matrix(const BlockFold& fold, const PlannedModule& module) {
  return fold.overlay.plain(module.linear.canonical, module.linear.rows, module.linear.cols);
}

/// f(row, values) for all rows of a [rows, cols] matrix.
void each_row(const BlockFold& fold, Tensor& w, const std::function<void(std::int64_t, float*)>& f) {
  const std::int64_t rows = w.shape()[0], cols = w.shape()[1];
  float* data = w.data<float>();
  fold.input.threads.parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) f(r, data + r * cols);
  });
}

void scale_columns(const BlockFold& fold, const FoldSite& site, const PlannedModule& module,
                   const std::vector<float>& s, bool is_stored) {
  Tensor w = matrix(fold, module);
  const std::int64_t cols = module.linear.cols;
  each_row(fold, w, [&](std::int64_t, float* row) {
    for (std::int64_t c = 0; c < cols; ++c) {
      row[c] *= s[static_cast<std::size_t>(site.channel_of_column[static_cast<std::size_t>(c)])];
    }
  });
  const std::string name = module.linear.canonical + ".weight";
  fold.overlay.replace(name, std::move(w));
  if (is_stored) fold.out.replaced.insert_or_assign(name, matrix(fold, module));
}

}  // namespace

std::vector<FoldSite> fold_sites(const ModelSpec& spec, const BlockSpec& block, const Modules& modules) {
  Sites sites(spec, block, modules);
  std::visit([&](const auto& mixer) { sites(mixer); }, block.mixer);
  return std::move(sites.sites);
}

std::vector<float> exact_scales(const BlockFold& fold, const FoldSite& site, const std::vector<float>& s) {
  std::vector<float> out(s.size());
  std::transform(s.begin(), s.end(), out.begin(), [](float x) { return std::clamp(x, kLeastScale, kLargestScale); });
  if (!site.is_norm) return out;
  const std::optional<DType> dtype = dtype_of(fold.input, site.producer);
  if (!dtype) return std::vector<float>(s.size(), 1.0f);
  const std::vector<float> norm = fold.overlay.vector(site.producer, site.channels);
  for (std::size_t c = 0; c < out.size(); ++c) {
    if (site.router != nullptr) out[c] = nearest_power_of_two(out[c]);
    const float moved = stored(*dtype, norm[c] / out[c]);
    out[c] = moved != 0 && std::isfinite(moved) ? norm[c] / moved : 1.0f;
  }
  if (site.router == nullptr) return out;
  const Tensor router = matrix(fold, *site.router);
  const DType router_dtype = storable(site.router->dtype);
  for (std::int64_t e = 0; e < site.router->linear.rows; ++e) {
    const float* row = router.data<float>() + e * site.channels;
    for (std::size_t c = 0; c < out.size(); ++c) {
      int exponent = 0;
      const bool power = std::frexp(out[c], &exponent) == 0.5f;  // else the norm's weight was rounded
      if (!power || stored(router_dtype, row[c] * out[c]) != row[c] * out[c]) out[c] = 1.0f;
    }
  }
  return out;
}

void apply_scales(const BlockFold& fold, const FoldSite& site, const std::vector<float>& s) {
  KEDGE_CHECK(static_cast<std::int64_t>(s.size()) == site.channels);
  if (std::all_of(s.begin(), s.end(), [](float x) { return x == 1.0f; })) return;
  if (site.is_norm) {
    const DType dtype = dtype_of(fold.input, site.producer).value();
    const std::vector<float> norm = fold.overlay.vector(site.producer, site.channels);
    Tensor moved(DType::f32, {site.channels}), copy(DType::f32, {site.channels});
    for (std::size_t c = 0; c < s.size(); ++c) moved.data<float>()[c] = stored(dtype, norm[c] / s[c]);
    std::copy_n(moved.data<float>(), site.channels, copy.data<float>());
    fold.overlay.replace(site.producer, std::move(moved));
    fold.out.replaced.insert_or_assign(site.producer, std::move(copy));
  } else {
    const auto at = std::find_if(fold.input.modules.begin(), fold.input.modules.end(),
                                 [&](const PlannedModule* m) { return m->linear.canonical == site.producer; });
    KEDGE_CHECK(at != fold.input.modules.end());
    Tensor w = matrix(fold, **at);
    const std::int64_t cols = (*at)->linear.cols;
    for (std::size_t c = 0; c < s.size(); ++c) {
      float* row = w.data<float>() + site.row_of_channel[c] * cols;
      for (std::int64_t k = 0; k < cols; ++k) row[k] /= s[c];
    }
    fold.overlay.replace(site.producer + ".weight", std::move(w));
  }
  for (const PlannedModule* module : site.consumers) scale_columns(fold, site, *module, s, false);
  if (site.router != nullptr) scale_columns(fold, site, *site.router, s, true);
}

}  // namespace kedge
