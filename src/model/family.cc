// Names of parameters, canonical and in the file.
#include "model/family.h"

#include <optional>

#include <fmt/format.h>

#include "kedge/error.h"

namespace kedge {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The end of `pattern` matched at `begin` of `name`, with the numbers that its stars stood for; nullopt without a
/// match.
std::optional<std::size_t> match_at(std::string_view name, std::size_t begin, std::string_view pattern,
                                    std::vector<std::string_view>& numbers) {
  numbers.clear();
  std::size_t i = begin;
  for (const char p : pattern) {
    if (p == '*') {
      const std::size_t first = i;
      while (i < name.size() && is_digit(name[i])) ++i;
      if (i == first) return std::nullopt;
      numbers.push_back(name.substr(first, i - first));
    } else {
      if (i >= name.size() || name[i] != p) return std::nullopt;
      ++i;
    }
  }
  // Only whole components: ".mlp.gate" is not a part of ".mlp.gate_proj".
  if (i < name.size() && name[i] != '.') return std::nullopt;
  return i;
}

std::string rewrite(std::string_view name, std::string_view from, std::string_view to) {
  std::vector<std::string_view> numbers;
  for (std::size_t begin = 0; begin < name.size(); ++begin) {
    const auto end = match_at(name, begin, from, numbers);
    if (!end) continue;
    std::string out(name.substr(0, begin));
    std::size_t next = 0;
    for (const char c : to) {
      if (c == '*') {
        out += numbers[next++];
      } else {
        out += c;
      }
    }
    out += name.substr(*end);
    return out;
  }
  return std::string(name);
}

class LinearLister {
 public:
  LinearLister(const ModelSpec& spec, const ModelFamily& family) : spec_(spec), family_(family) {}

  std::vector<LinearRef> list() {
    for (const BlockSpec& block : spec_.blocks) {
      layer_ = block.source_layer;
      prefix_ = fmt::format("model.layers.{}.", layer_);
      std::visit([&](const auto& mixer) { add(mixer); }, block.mixer);
    }
    layer_ = -1;
    prefix_.clear();
    if (!spec_.tie_word_embeddings) add("lm_head", spec_.vocab_size, spec_.hidden_size, LinearRole::lm_head);
    return std::move(linears_);
  }

 private:
  void add(const std::string& name, std::int64_t rows, std::int64_t cols, LinearRole role, int expert = -1) {
    LinearRef linear;
    linear.canonical = prefix_ + name;
    linear.module = to_file_name(family_, linear.canonical);
    linear.rows = rows;
    linear.cols = cols;
    linear.role = role;
    linear.layer = layer_;
    linear.expert = expert;
    linears_.push_back(std::move(linear));
  }

  void add(const Attention& a) {
    const std::int64_t q_size = a.num_attention_heads * a.head_dim, kv_size = a.num_key_value_heads * a.head_dim;
    add("self_attn.q_proj", q_size, spec_.hidden_size, LinearRole::attention);
    add("self_attn.k_proj", kv_size, spec_.hidden_size, LinearRole::attention);
    add("self_attn.v_proj", kv_size, spec_.hidden_size, LinearRole::attention);
    add("self_attn.o_proj", spec_.hidden_size, q_size, LinearRole::attention);
  }

  void add(const Mla& a) {
    const std::int64_t heads = a.num_attention_heads;
    const std::int64_t q_size = heads * (a.qk_nope_head_dim + a.qk_rope_head_dim);
    if (a.q_lora_rank == 0) {
      add("self_attn.q_proj", q_size, spec_.hidden_size, LinearRole::attention);
    } else {
      add("self_attn.q_a_proj", a.q_lora_rank, spec_.hidden_size, LinearRole::attention);
      add("self_attn.q_b_proj", q_size, a.q_lora_rank, LinearRole::attention);
    }
    add("self_attn.kv_a_proj_with_mqa", a.kv_lora_rank + a.qk_rope_head_dim, spec_.hidden_size, LinearRole::attention);
    add("self_attn.kv_b_proj", heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank, LinearRole::attention);
    add("self_attn.o_proj", spec_.hidden_size, heads * a.v_head_dim, LinearRole::attention);
  }

  void add_ffn(const std::string& name, std::int64_t inner, LinearRole role, int expert = -1, bool gated = true) {
    if (gated) add(name + ".gate_proj", inner, spec_.hidden_size, role, expert);
    add(name + ".up_proj", inner, spec_.hidden_size, role, expert);
    add(name + ".down_proj", spec_.hidden_size, inner, role, expert);
  }

  void add(const Mlp& mlp) { add_ffn("mlp", mlp.intermediate_size, LinearRole::mlp, -1, mlp.gated); }

  void add(const Moe& moe) {
    add("mlp.gate", moe.router.num_experts, spec_.hidden_size, LinearRole::router);
    for (int e = 0; e < moe.router.num_experts; ++e) {
      add_ffn(fmt::format("mlp.experts.{}", e), moe.moe_intermediate_size, LinearRole::expert, e);
    }
    if (moe.shared_expert_intermediate_size > 0) {
      add_ffn("mlp.shared_experts", moe.shared_expert_intermediate_size, LinearRole::shared_expert);
    }
  }

  void add(const ReconstructionMoe& moe) {
    const ErrorRouterSpec& router = moe.router;
    add("mlp.gate", router.num_experts * router.bottleneck, spec_.hidden_size, LinearRole::router);
    if (!router.tied) {
      add("mlp.gate.decoder", router.num_experts * spec_.hidden_size, router.bottleneck, LinearRole::router);
    }
    for (int e = 0; moe.output == ExpertOutput::ffn && e < router.num_experts; ++e) {
      add_ffn(fmt::format("mlp.experts.{}", e), moe.intermediate_size, LinearRole::expert, e, moe.gated);
    }
  }

  const ModelSpec& spec_;
  const ModelFamily& family_;
  int layer_ = -1;
  std::string prefix_;
  std::vector<LinearRef> linears_;
};

/// "model.layers.1.mlp.experts.3.gate_proj" in its parts.
struct ExpertName {
  std::string prefix;  ///< "model.layers.1.mlp.experts"
  std::int64_t expert = 0;
  std::string part;  ///< "gate_proj"
};

std::optional<ExpertName> parse_expert_name(std::string_view canonical) {
  constexpr std::string_view kExperts = ".experts.";
  const std::size_t at = canonical.find(kExperts);
  if (at == std::string_view::npos) return std::nullopt;
  ExpertName out;
  out.prefix = std::string(canonical.substr(0, at + kExperts.size() - 1));
  std::size_t i = at + kExperts.size();
  const std::size_t first = i;
  while (i < canonical.size() && is_digit(canonical[i]) && i - first < 9)
    out.expert = out.expert * 10 + (canonical[i++] - '0');
  if (i == first || i >= canonical.size() || canonical[i] != '.') return std::nullopt;
  out.part = std::string(canonical.substr(i + 1));
  return out;
}

[[noreturn]] void wrong_fused_shape(const std::string& name, const TensorView& tensor, const std::string& expected) {
  throw Error(ErrorCode::bad_file, "tensor '" + name + "' has the shape " + shape_string(tensor.shape), expected);
}

TensorView fused_slice(const TensorView& tensor, const std::string& name, const ExpertName& part,
                       const LinearRef& linear) {
  const bool is_down = part.part == "down_proj";
  const std::int64_t rows = is_down ? linear.rows : 2 * linear.rows;
  if (tensor.shape.size() != 3 || tensor.shape[1] != rows || tensor.shape[2] != linear.cols ||
      part.expert >= tensor.shape[0]) {
    wrong_fused_shape(name, tensor, fmt::format("[experts > {}, {}, {}]", part.expert, rows, linear.cols));
  }
  const TensorView expert = tensor[part.expert];
  if (is_down) return expert;
  return part.part == "gate_proj" ? expert.rows(0, linear.rows) : expert.rows(linear.rows, 2 * linear.rows);
}

}  // namespace

std::string to_file_name(const ModelFamily& family, std::string_view canonical) {
  std::string name(canonical);
  for (const NameRule& rule : family.rules) name = rewrite(name, rule.canonical, rule.file);
  return name;
}

std::string to_canonical_name(const ModelFamily& family, std::string_view file_name) {
  std::string name(file_name);
  for (auto rule = family.rules.rbegin(); rule != family.rules.rend(); ++rule) {
    name = rewrite(name, rule->file, rule->canonical);
  }
  return name;
}

const char* linear_role_name(LinearRole role) noexcept {
  switch (role) {
    case LinearRole::attention: return "attention";
    case LinearRole::mlp: return "mlp";
    case LinearRole::expert: return "expert";
    case LinearRole::shared_expert: return "shared_expert";
    case LinearRole::router: return "router";
    case LinearRole::lm_head: return "lm_head";
  }
  return "other";
}

std::vector<LinearRef> list_linears(const ModelSpec& spec, const ModelFamily& family) {
  return LinearLister(spec, family).list();
}

std::string fused_tensor_name(const Checkpoint& checkpoint, std::string_view canonical) {
  const auto part = parse_expert_name(canonical);
  if (!part) return {};
  std::string name = part->prefix;
  if (part->part == "down_proj") {
    name += ".down_proj";
  } else if (part->part == "gate_proj" || part->part == "up_proj") {
    name += ".gate_up_proj";
  } else {
    return {};
  }
  return checkpoint.has(name) ? name : std::string();
}

std::string stack_name(const LinearRef& expert) {
  const auto part = parse_expert_name(expert.canonical);
  return part ? part->prefix + "." + part->part : std::string();
}

WeightData load_linear(const Checkpoint& checkpoint, const LinearRef& linear) {
  if (checkpoint.has_weight(linear.module)) return checkpoint.weight(linear.module, linear.rows, linear.cols);
  if (linear.canonical != linear.module && checkpoint.has_weight(linear.canonical)) {
    return checkpoint.weight(linear.canonical, linear.rows, linear.cols);
  }
  const std::string fused = fused_tensor_name(checkpoint, linear.canonical);
  if (!fused.empty()) {
    return fused_slice(checkpoint.tensor(fused), fused, *parse_expert_name(linear.canonical), linear);
  }
  return checkpoint.weight(linear.module, linear.rows, linear.cols);  // throws Error(not_found), naming the module
}

}  // namespace kedge
