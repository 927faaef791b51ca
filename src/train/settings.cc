#include "train/settings.h"

#include <cmath>

#include <fmt/format.h>

#include "base/json.h"
#include "kedge/error.h"

namespace kedge::training {
namespace {

void check_range(const char* name, double value, double low, double high) {
  if (std::isfinite(value) && value >= low && value <= high) return;
  throw Error(ErrorCode::usage, fmt::format("{} is {}", name, value), fmt::format("from {} to {}", low, high));
}

void check_word(const char* name, const std::string& value, std::initializer_list<const char*> words) {
  std::string known;
  for (const char* word : words) {
    if (value == word) return;
    known += (known.empty() ? "" : ", ") + std::string(word);
  }
  throw Error(ErrorCode::usage, fmt::format("{} is \"{}\"", name, value), "one of " + known);
}

constexpr double kMaxCount = 1e12;
constexpr double kLeastEps = 1e-30;  // with 0, what got no gradient becomes 0 / 0

}  // namespace

void check(const TrainOptions& o) {
  check_range("steps", static_cast<double>(o.steps), 1, kMaxCount);
  check_range("batch_size", static_cast<double>(o.batch_size), 1, 1e6);
  check_range("seqlen", static_cast<double>(o.seqlen), 2, 1e7);
  check_word("objective", o.objective, {"auto", "next-token", "masked-diffusion"});
  check_word("optimizer", o.optimizer, {"adamw", "muon"});
  check_range("lr", o.lr, 0, 1e3);
  check_range("min_lr_ratio", o.min_lr_ratio, 0, 1);
  check_range("warmup_ratio", o.warmup_ratio, 0, 1);
  parse_decay(o.schedule);
  check_range("weight_decay", o.weight_decay, 0, 1e3);
  check_range("beta1", o.beta1, 0, 0.999999);
  check_range("beta2", o.beta2, 0, 0.999999);
  check_range("eps", o.eps, kLeastEps, 1);
  check_range("momentum", o.momentum, 0, 0.999999);
  check_range("clip", o.clip, 0, 1e9);
  check_range("balance_loss", o.balance_loss, 0, 1e6);
  check_range("z_loss", o.z_loss, 0, 1e6);
  check_range("bias_update_speed", o.bias_update_speed, 0, 1e3);
  check_range("reconstruction_loss", o.reconstruction_loss, 0, 1e6);
  check_range("round_after", o.round_after, 0, 1);
  check_word("dtype", o.dtype, {"float32", "bfloat16"});
  check_word("save_dtype", o.save_dtype, {"auto", "float32", "bfloat16", "float16"});
  check_range("save_every", static_cast<double>(o.save_every), 0, kMaxCount);
  check_range("eval_every", static_cast<double>(o.eval_every), 0, kMaxCount);
  check_range("eval_sequences", static_cast<double>(o.eval_sequences), 0, kMaxCount);
  check_range("keep", static_cast<double>(o.keep), 1, 1e6);
  if (o.config.empty() && o.init.empty()) {
    throw Error(ErrorCode::usage, "there is no model to train", "--config FILE, or --init DIR");
  }
  if (o.tokenizer.empty() && o.init.empty()) throw Error(ErrorCode::usage, "there is no tokenizer", "--tokenizer PATH");
  if (o.texts.empty()) throw Error(ErrorCode::usage, "no text is given", "--text FILE...");
  if (o.out.empty()) throw Error(ErrorCode::usage, "there is no place for the result", "--out DIR");
}

Schedule schedule_of(const TrainOptions& o) {
  return {o.lr, o.min_lr_ratio, o.warmup_ratio, o.steps, parse_decay(o.schedule)};
}

TrainerSettings trainer_settings(const TrainOptions& o) {
  return {
      .muon = o.optimizer == "muon",
      .optimizer = {o.weight_decay, o.beta1, o.beta2, o.eps, o.momentum},
      .clip = o.clip,
      .balance_loss = o.balance_loss,
      .z_loss = o.z_loss,
      .reconstruction_loss = o.reconstruction_loss,
      .round_from = o.round_after < 1 ? static_cast<std::int64_t>(o.round_after * static_cast<double>(o.steps)) + 1 : 0,
      .bias_update_speed = o.bias_update_speed,
      .mask_seed = o.seed};
}

twin::Options model_options(const TrainOptions& o) {
  return {.device = twin::parse_device(o.device),
          .dtype = at::kFloat,
          .compute_dtype = o.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat,
          .stacked_experts = true};
}

Json settings_json(const TrainOptions& o, const Json& config, const ModelSpec& spec, const InputHashes& hashes,
                   const std::string& device) {
  Json settings = {{"kind", o.kind},
                   {"config", config},
                   {"text", hashes.text},
                   {"tokenizer", hashes.tokenizer},
                   {"init", hashes.init.empty() ? Json(nullptr) : Json(hashes.init)},
                   {"steps", o.steps},
                   {"batch_size", o.batch_size},
                   {"seqlen", o.seqlen},
                   {"shuffle", o.shuffle},
                   {"optimizer", o.optimizer},
                   {"lr", o.lr},
                   {"min_lr_ratio", o.min_lr_ratio},
                   {"warmup_ratio", o.warmup_ratio},
                   {"schedule", o.schedule},
                   {"weight_decay", o.weight_decay},
                   {"beta1", o.beta1},
                   {"beta2", o.beta2},
                   {"eps", o.eps},
                   {"momentum", o.momentum},
                   {"clip", o.clip},
                   {"balance_loss", o.balance_loss},
                   {"z_loss", o.z_loss},
                   {"bias_update_speed", o.bias_update_speed},
                   {"dtype", o.dtype},
                   {"device", device},
                   {"seed", o.seed}};
  if (o.data_seed) settings["data_seed"] = *o.data_seed;
  if (o.routing_seed) settings["routing_seed"] = *o.routing_seed;
  if (spec.routes_by_error()) {
    settings["reconstruction_loss"] = o.reconstruction_loss;
    settings["round_after"] = o.round_after;
  }
  return settings;
}

void check_same_settings(const Json& recorded, const Json& wanted, const std::string& where) {
  for (const auto& [key, value] : wanted.items()) {
    const Json* before = recorded.is_object() && recorded.contains(key) ? &recorded[key] : nullptr;
    if (before != nullptr && *before == value) continue;
    const auto text = [](const Json& json) { return json.is_structured() ? std::string("of its own") : json.dump(); };
    throw Error(ErrorCode::mismatch,
                before == nullptr ? fmt::format("{} is of a run without {}", where, key)
                                  : fmt::format("{} is of a run with {} {}", where, key, text(*before)),
                before == nullptr || value.is_structured() ? "the same settings" : key + " " + text(value),
                "choose another --out, or give the settings in that folder's trainer_state.json");
  }
  if (!recorded.is_object()) return;
  for (const auto& [key, value] : recorded.items()) {
    if (wanted.contains(key)) continue;
    throw Error(ErrorCode::mismatch, fmt::format("{} is of a run with {} {}", where, key, value.dump()),
                "the same settings", "choose another --out, or give the settings in that folder's trainer_state.json");
  }
}

}  // namespace kedge::training
