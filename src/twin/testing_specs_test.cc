#include "twin/testing_specs.h"
#include "base/rng.h"

namespace kedge::twin::testing {
namespace {

// Each line names all fields of a struct: a new one does not compile until it is here and has its mutation below.
[[maybe_unused]] void every_field() {
  [[maybe_unused]] const auto [pre_norm, mixer, residual_scale, source_layer] = BlockSpec{};
  [[maybe_unused]] const auto [heads, kv_heads, head_dim, qkv_bias, o_bias, qk_norm, clip_qkv, window, causal, rope] =
      Attention{};
  [[maybe_unused]] const auto [mla_heads, q_rank, kv_rank, nope, rot, value, bias, mla_causal, mla_rope] = Mla{};
  [[maybe_unused]] const auto [theta, rotary_dim, interleaved, type, factor, original, low, high, fast, slow, mscale,
                               mscale_all, attention_factor, truncate] = RopeSpec{};
  [[maybe_unused]] const auto [intermediate, act, mlp_gated] = Mlp{};
  [[maybe_unused]] const auto [error_router, output, error_intermediate, error_act, gated, trained_form,
                               trained_manifold] =
      ReconstructionMoe{};  // the last two say how training makes the matrices
  [[maybe_unused]] const auto [error_hidden, bottleneck, error_experts, error_per_tok, measure, normalization, huber,
                               temperature, trained_temperature, combine, router_act, tied, orthonormal, direct] =
      ErrorRouterSpec{};
  [[maybe_unused]] const auto [router, moe_intermediate, moe_act, shared] = Moe{};
  [[maybe_unused]] const auto [scoring, experts, per_tok, groups, topk_group, norm_topk, scaling, selection_bias] =
      RouterSpec{};
}

template <class T>
T* find(ModelSpec& spec) {
  for (BlockSpec& block : spec.blocks) {
    if (auto* found = std::get_if<T>(&block.mixer)) return found;
  }
  return nullptr;
}

RopeSpec* find_rope(ModelSpec& spec) {
  if (auto* a = find<Attention>(spec)) return &a->rope;
  if (auto* a = find<Mla>(spec)) return &a->rope;
  return nullptr;
}

/// A change of a mixer of one kind.
template <class T>
std::function<bool(ModelSpec&)> in(std::function<bool(T&)> change) {
  return [change](ModelSpec& spec) {
    T* found = find<T>(spec);
    return found != nullptr && change(*found);
  };
}

std::function<bool(ModelSpec&)> in_rope(std::function<bool(RopeSpec&)> change) {
  return [change](ModelSpec& spec) {
    RopeSpec* rope = find_rope(spec);
    return rope != nullptr && change(*rope);
  };
}

template <class T>
T pick(Rng& rng, std::initializer_list<T> values) {
  return *(values.begin() + static_cast<std::ptrdiff_t>(rng.below(values.size())));
}

RopeSpec rope_spec(RopeSpec::Type type, std::int64_t dim, Rng& rng) {
  RopeSpec rope;
  rope.theta = pick(rng, {50.0f, 100.0f, 200.0f});
  rope.rotary_dim = dim;
  rope.type = type;
  if (type == RopeSpec::Type::standard) return rope;
  rope.factor = pick(rng, {3.0f, 5.0f});
  rope.original_max_position_embeddings = type == RopeSpec::Type::llama3 ? 64 : 512;
  return rope;
}

Attention attention_spec(RopeSpec::Type type, Rng& rng) {
  Attention a;
  a.num_attention_heads = 4;
  a.num_key_value_heads = pick<std::int64_t>(rng, {1, 2, 4});
  a.head_dim = 16;
  a.qkv_bias = rng.below(2) == 0;
  a.o_bias = rng.below(2) == 0;
  a.qk_norm = pick(rng, {QkNorm::none, QkNorm::per_head, QkNorm::full});
  if (rng.below(2) == 0) a.clip_qkv = 1.5f;
  a.sliding_window = pick<std::int64_t>(rng, {0, 5});
  a.rope = rope_spec(type, 16, rng);
  a.rope.interleaved = rng.below(2) == 0;
  return a;
}

Mla mla_spec(RopeSpec::Type type, Rng& rng) {
  Mla a;
  a.num_attention_heads = pick<std::int64_t>(rng, {2, 3});
  a.q_lora_rank = pick<std::int64_t>(rng, {0, 24});
  a.kv_lora_rank = 20;
  a.qk_nope_head_dim = pick<std::int64_t>(rng, {8, 12});
  a.qk_rope_head_dim = 16;
  a.v_head_dim = pick<std::int64_t>(rng, {8, 16});
  a.bias = rng.below(2) == 0;
  a.rope = rope_spec(type, 16, rng);
  a.rope.interleaved = rng.below(2) == 0;
  if (type == RopeSpec::Type::yarn) {
    a.rope.mscale = 0.7f;
    a.rope.mscale_all_dim = 1.0f;
  }
  return a;
}

FfnActivation any_activation(Rng& rng) {
  return pick(rng, {FfnActivation::silu, FfnActivation::gelu, FfnActivation::gelu_tanh, FfnActivation::relu2});
}

Moe moe_spec(ScoringFunc scoring, bool groups, Rng& rng) {
  Moe m;
  m.router.scoring_func = scoring;
  m.router.num_experts = 12;
  m.router.num_experts_per_tok = pick<std::int64_t>(rng, {2, 3});
  m.router.norm_topk_prob = rng.below(2) == 0;
  if (scoring == ScoringFunc::sigmoid) {
    m.router.selection_bias = groups || rng.below(2) == 0;
    m.router.routed_scaling_factor = pick(rng, {1.0f, 2.5f});
    if (groups) m.router.n_group = 4, m.router.topk_group = 2;
    m.shared_expert_intermediate_size = pick<std::int64_t>(rng, {0, 16});
  }
  m.moe_intermediate_size = pick<std::int64_t>(rng, {16, 24});
  m.hidden_act = any_activation(rng);
  return m;
}

/// FFN experts by a squared error, its Gram form; autoencoders alone, untied; a learned router.
std::vector<ReconstructionMoe> error_specs(Rng& rng) {
  ReconstructionMoe ffn;
  ffn.router.bottleneck = pick<std::int64_t>(rng, {4, 6});
  ffn.router.num_experts = 6;
  ffn.router.num_experts_per_tok = pick<std::int64_t>(rng, {2, 3});
  ffn.router.temperature = pick(rng, {0.1f, 0.3f});
  if (rng.below(2) == 0) ffn.router.activation = FfnActivation::gelu;
  ffn.output = ExpertOutput::ffn;
  ffn.intermediate_size = pick<std::int64_t>(rng, {16, 24});
  ffn.hidden_act = any_activation(rng);
  ffn.gated = rng.below(2) == 0;

  ReconstructionMoe untied = ffn;
  untied.router.tied = false;
  untied.router.measure = pick(rng, {ErrorMeasure::cosine, ErrorMeasure::huber});
  untied.router.normalization = ErrorNormalization::none;
  untied.router.temperature = 5.0f;
  untied.router.combine = pick(rng, {CombineMethod::softmin, CombineMethod::residual});
  untied.output = ExpertOutput::reconstruction;

  ReconstructionMoe learned = ffn;
  learned.router.measure = ErrorMeasure::linear;
  learned.router.normalization = ErrorNormalization::none;
  learned.router.bottleneck = 1;
  learned.router.activation.reset();
  learned.router.temperature = 1.0f;
  return {ffn, untied, learned};
}

/// The router of a ReconstructionMoe has a width of its own.
void set_router_width(ModelSpec& spec) {
  if (auto* moe = find<ReconstructionMoe>(spec)) moe->router.hidden_size = spec.hidden_size;
}

template <class Mixer, class Ffn>
ModelSpec model_spec_of(const Mixer& mixer, const Ffn& ffn, Rng& rng) {
  ModelSpec spec;
  spec.model_type = "olmoe";
  spec.vocab_size = 32;
  spec.hidden_size = pick<std::int64_t>(rng, {32, 40});
  spec.max_position_embeddings = 64;
  spec.num_hidden_layers = 1;
  spec.rms_norm_eps = 1e-5f;
  spec.blocks.push_back({"input_layernorm", mixer, 1.0f, 0});
  spec.blocks.push_back({"post_attention_layernorm", ffn, 1.0f, 0});
  return spec;
}

void add_attention_mutations(std::vector<Mutation>& out) {
  const auto add = [&](const char* name, std::function<bool(Attention&)> change) {
    out.push_back({std::string("Attention.") + name, in<Attention>(std::move(change))});
  };
  add("num_attention_heads", [](Attention& a) { return a.num_attention_heads = 8, true; });
  add("num_key_value_heads",
      [](Attention& a) { return a.num_key_value_heads = a.num_key_value_heads == 4 ? 2 : 4, true; });
  add("head_dim", [](Attention& a) { return a.head_dim = 24, true; });
  add("qkv_bias", [](Attention& a) { return a.qkv_bias = !a.qkv_bias, true; });
  add("o_bias", [](Attention& a) { return a.o_bias = !a.o_bias, true; });
  for (const QkNorm norm : {QkNorm::none, QkNorm::per_head, QkNorm::full}) {
    add("qk_norm", [norm](Attention& a) { return a.qk_norm != norm && (a.qk_norm = norm, true); });
  }
  add("clip_qkv", [](Attention& a) { return a.clip_qkv = 0.8f, true; });
  add("sliding_window", [](Attention& a) { return a.sliding_window = 3, true; });
  add("causal", [](Attention& a) { return a.sliding_window == 0 && (a.causal = false, true); });
}

void add_mla_mutations(std::vector<Mutation>& out) {
  const auto add = [&](const char* name, std::function<bool(Mla&)> change) {
    out.push_back({std::string("Mla.") + name, in<Mla>(std::move(change))});
  };
  add("num_attention_heads", [](Mla& a) { return a.num_attention_heads = 4, true; });
  add("q_lora_rank", [](Mla& a) { return a.q_lora_rank = a.q_lora_rank == 0 ? 24 : 0, true; });
  add("kv_lora_rank", [](Mla& a) { return a.kv_lora_rank = 28, true; });
  add("qk_nope_head_dim", [](Mla& a) { return a.qk_nope_head_dim = 16, true; });
  add("qk_rope_head_dim", [](Mla& a) { return a.qk_rope_head_dim = a.rope.rotary_dim = 8, true; });
  add("v_head_dim", [](Mla& a) { return a.v_head_dim = 12, true; });
  add("bias", [](Mla& a) { return a.bias = !a.bias, true; });
  add("causal", [](Mla& a) { return a.causal = false, true; });
}

void add_rope_mutations(std::vector<Mutation>& out) {
  using Type = RopeSpec::Type;
  const auto add = [&](const char* name, std::function<bool(RopeSpec&)> change) {
    out.push_back({std::string("RopeSpec.") + name, in_rope(std::move(change))});
  };
  // Latent attention rotates all of qk_rope_head_dim: its rotary_dim changes with that, above.
  out.push_back({"RopeSpec.rotary_dim", in<Attention>([](Attention& a) { return a.rope.rotary_dim = 8, true; })});
  add("theta", [](RopeSpec& r) { return r.theta = 1000.0f, true; });
  add("interleaved", [](RopeSpec& r) { return r.interleaved = !r.interleaved, true; });
  for (const Type type : {Type::standard, Type::linear, Type::llama3, Type::yarn}) {
    add("type", [type](RopeSpec& r) {
      if (r.type == type || r.type == Type::standard) return false;
      r.type = type;
      return true;
    });
  }
  add("factor", [](RopeSpec& r) { return r.type != Type::standard && (r.factor = 9.0f, true); });
  add("original_max_position_embeddings", [](RopeSpec& r) {
    const bool used = r.type == Type::llama3 || r.type == Type::yarn;
    return used && (r.original_max_position_embeddings = 24, true);
  });
  add("low_freq_factor", [](RopeSpec& r) { return r.type == Type::llama3 && (r.low_freq_factor = 3.0f, true); });
  add("high_freq_factor", [](RopeSpec& r) { return r.type == Type::llama3 && (r.high_freq_factor = 20.0f, true); });
  add("beta_fast", [](RopeSpec& r) { return r.type == Type::yarn && (r.beta_fast = 4.0f, true); });
  add("beta_slow", [](RopeSpec& r) { return r.type == Type::yarn && (r.beta_slow = 12.0f, true); });
  add("mscale", [](RopeSpec& r) { return r.type == Type::yarn && r.mscale != 0 && (r.mscale = 2.0f, true); });
  add("mscale_all_dim", [](RopeSpec& r) { return r.mscale_all_dim != 0 && (r.mscale_all_dim = 0.4f, true); });
  add("attention_factor", [](RopeSpec& r) { return r.type == Type::yarn && (r.attention_factor = 0.6f, true); });
  add("truncate", [](RopeSpec& r) { return r.type == Type::yarn && (r.truncate = false, true); });
}

void add_ffn_mutations(std::vector<Mutation>& out) {
  out.push_back({"Mlp.intermediate_size", in<Mlp>([](Mlp& m) { return m.intermediate_size = 56, true; })});
  out.push_back({"Mlp.gated", in<Mlp>([](Mlp& m) { return m.gated = !m.gated, true; })});
  out.push_back({"Moe.moe_intermediate_size", in<Moe>([](Moe& m) { return m.moe_intermediate_size = 40, true; })});
  out.push_back({"Moe.shared_expert_intermediate_size", in<Moe>([](Moe& m) {
                   return m.shared_expert_intermediate_size = m.shared_expert_intermediate_size == 0 ? 24 : 0, true;
                 })});
  for (const FfnActivation act :
       {FfnActivation::silu, FfnActivation::gelu, FfnActivation::gelu_tanh, FfnActivation::relu2}) {
    const auto change = [act](auto& m) { return m.hidden_act != act && (m.hidden_act = act, true); };
    out.push_back({"Mlp.hidden_act", in<Mlp>(change)});
    out.push_back({"Moe.hidden_act", in<Moe>(change)});
  }
}

void add_router_mutations(std::vector<Mutation>& out) {
  const auto add = [&](const char* name, std::function<bool(RouterSpec&)> change) {
    out.push_back({std::string("RouterSpec.") + name, in<Moe>([change](Moe& m) { return change(m.router); })});
  };
  const auto is_sigmoid = [](const RouterSpec& r) { return r.scoring_func == ScoringFunc::sigmoid; };
  add("scoring_func", [=](RouterSpec& r) {
    if (is_sigmoid(r) && (r.selection_bias || r.n_group > 1)) return false;
    r.scoring_func = is_sigmoid(r) ? ScoringFunc::softmax : ScoringFunc::sigmoid;
    return true;
  });
  add("num_experts", [](RouterSpec& r) { return r.num_experts = 16, true; });
  add("num_experts_per_tok", [](RouterSpec& r) { return r.num_experts_per_tok = 5, true; });
  add("n_group", [](RouterSpec& r) { return r.n_group > 1 && (r.n_group = 3, true); });
  add("topk_group", [](RouterSpec& r) { return r.n_group > 1 && (r.topk_group = 1, r.num_experts_per_tok = 2, true); });
  add("norm_topk_prob", [](RouterSpec& r) { return r.norm_topk_prob = !r.norm_topk_prob, true; });
  add("routed_scaling_factor", [](RouterSpec& r) { return r.routed_scaling_factor = 1.7f, true; });
  add("selection_bias", [=](RouterSpec& r) { return is_sigmoid(r) && (r.selection_bias = !r.selection_bias, true); });
}

void add_error_mutations(std::vector<Mutation>& out) {
  const auto add = [&](const char* name, std::function<bool(ReconstructionMoe&)> change) {
    out.push_back({std::string("ReconstructionMoe.") + name, in<ReconstructionMoe>(std::move(change))});
  };
  const auto has_ffn = [](const ReconstructionMoe& m) { return m.output == ExpertOutput::ffn; };
  const auto is_error = [](const ReconstructionMoe& m) { return !m.router.is_learned(); };
  add("output", [=](ReconstructionMoe& m) {
    m.output = has_ffn(m) ? ExpertOutput::reconstruction : ExpertOutput::ffn;
    return is_error(m);
  });
  add("intermediate_size", [=](ReconstructionMoe& m) { return has_ffn(m) && (m.intermediate_size = 40, true); });
  for (const FfnActivation act :
       {FfnActivation::silu, FfnActivation::gelu, FfnActivation::gelu_tanh, FfnActivation::relu2}) {
    add("hidden_act",
        [=](ReconstructionMoe& m) { return has_ffn(m) && m.hidden_act != act && (m.hidden_act = act, true); });
  }
  add("gated", [=](ReconstructionMoe& m) { return has_ffn(m) && (m.gated = !m.gated, true); });
  add("bottleneck", [=](ReconstructionMoe& m) { return is_error(m) && (m.router.bottleneck = 8, true); });
  add("num_experts", [](ReconstructionMoe& m) { return m.router.num_experts = 9, true; });
  add("num_experts_per_tok", [](ReconstructionMoe& m) { return m.router.num_experts_per_tok = 5, true; });
  for (const ErrorMeasure measure : {ErrorMeasure::squared, ErrorMeasure::cosine, ErrorMeasure::huber}) {
    add("measure", [=](ReconstructionMoe& m) {
      if (!is_error(m) || m.router.measure == measure) return false;
      m.router.measure = measure;
      if (measure == ErrorMeasure::cosine) m.router.normalization = ErrorNormalization::none;
      return true;
    });
  }
  for (const auto normalization : {ErrorNormalization::none, ErrorNormalization::width, ErrorNormalization::input}) {
    add("normalization", [=](ReconstructionMoe& m) {
      if (!is_error(m) || m.router.measure == ErrorMeasure::cosine || m.router.normalization == normalization)
        return false;
      m.router.normalization = normalization;
      return true;
    });
  }
  add("huber_delta", [](ReconstructionMoe& m) {
    return m.router.measure == ErrorMeasure::huber && (m.router.huber_delta = 0.3f, true);
  });
  add("temperature", [](ReconstructionMoe& m) { return m.router.temperature *= 4, true; });
  add("trained_temperature",
      [=](ReconstructionMoe& m) { return is_error(m) && (m.router.trained_temperature = true); });
  for (const auto combine :
       {CombineMethod::softmin, CombineMethod::residual, CombineMethod::best, CombineMethod::uniform}) {
    add("combine",
        [=](ReconstructionMoe& m) { return m.router.combine != combine && (m.router.combine = combine, true); });
  }
  add("activation",
      [=](ReconstructionMoe& m) { return is_error(m) && (m.router.activation = FfnActivation::silu, true); });
  add("tied", [=](ReconstructionMoe& m) { return is_error(m) && (m.router.tied = !m.router.tied, true); });
}

}  // namespace

std::vector<NamedSpec> base_specs(std::uint64_t seed) {
  using Type = RopeSpec::Type;
  Rng rng(seed);
  const Mlp dense{48, any_activation(rng), rng.below(2) == 0};
  const Moe softmax = moe_spec(ScoringFunc::softmax, false, rng), sigmoid = moe_spec(ScoringFunc::sigmoid, false, rng);
  const Moe grouped = moe_spec(ScoringFunc::sigmoid, true, rng);
  const std::vector<ReconstructionMoe> by_error = error_specs(rng);
  std::vector<NamedSpec> out = {
      {"attention_dense", model_spec_of(attention_spec(Type::standard, rng), dense, rng)},
      {"attention_linear_softmax", model_spec_of(attention_spec(Type::linear, rng), softmax, rng)},
      {"attention_llama3_sigmoid", model_spec_of(attention_spec(Type::llama3, rng), sigmoid, rng)},
      {"attention_yarn_grouped", model_spec_of(attention_spec(Type::yarn, rng), grouped, rng)},
      {"latent_softmax", model_spec_of(mla_spec(Type::standard, rng), softmax, rng)},
      {"latent_yarn_grouped", model_spec_of(mla_spec(Type::yarn, rng), grouped, rng)},
  };
  for (std::size_t i = 0; i < by_error.size(); ++i) {
    ModelSpec spec = model_spec_of(attention_spec(Type::standard, rng), by_error[i], rng);
    set_router_width(spec);
    out.push_back({"attention_by_error_" + std::to_string(i), std::move(spec)});
  }
  return out;
}

std::vector<Mutation> mutations() {
  std::vector<Mutation> out;
  out.push_back({"ModelSpec.hidden_size", [](ModelSpec& spec) {
                   spec.hidden_size = 48;
                   set_router_width(spec);
                   return true;
                 }});
  out.push_back({"ModelSpec.rms_norm_eps", [](ModelSpec& spec) { return spec.rms_norm_eps = 0.1f, true; }});
  for (const std::size_t b : {0u, 1u}) {
    out.push_back(
        {"BlockSpec.pre_norm", [b](ModelSpec& spec) { return spec.blocks[b].pre_norm = "other_layernorm", true; }});
    out.push_back(
        {"BlockSpec.residual_scale", [b](ModelSpec& spec) { return spec.blocks[b].residual_scale = 0.5f, true; }});
  }
  out.push_back({"BlockSpec.source_layer", [](ModelSpec& spec) {
                   for (BlockSpec& block : spec.blocks) block.source_layer = 1;
                   return spec.num_hidden_layers = 2, true;
                 }});
  add_attention_mutations(out);
  add_mla_mutations(out);
  add_rope_mutations(out);
  add_ffn_mutations(out);
  add_router_mutations(out);
  add_error_mutations(out);
  return out;
}

}  // namespace kedge::twin::testing
