#include "kedge/inspect.h"

#include <fmt/format.h>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/result.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {{"MODEL", "a Hugging Face directory, quantized or not"}};

constexpr Flag kFlags[] = {
    {.name = "context",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "tokens that the memory figures are for; 0: the model's maximum",
     .minimum = 0,
     .maximum = 1e9},
};

std::string millions(std::int64_t count) {
  return count >= 1'000'000'000 ? fmt::format("{:.2f} B", double(count) / 1e9)
                                : fmt::format("{:.2f} M", double(count) / 1e6);
}

void print_text(const InspectReport& report) {
  const auto line = [](const char* name, const std::string& value) {
    if (!value.empty()) print(fmt::format("{:<16}{}\n", name, value));
  };
  line("family", report.model_type);
  line("quantization", report.quant_format.empty() ? "none" : report.quant_format);
  line("layers", fmt::format("{} ({} with experts)", report.layers, report.moe_layers));
  line("hidden size", std::to_string(report.hidden_size));
  line("vocabulary", std::to_string(report.vocab_size));
  line("context", fmt::format("{} at most", report.max_position_embeddings));
  line("attention", report.attention);
  line("router", report.router);
  if (report.experts > 0) {
    line("experts", fmt::format("{} of inner size {}{}", report.experts, report.expert_intermediate_size,
                                report.shared_expert_intermediate_size > 0
                                    ? fmt::format(", one shared of {}", report.shared_expert_intermediate_size)
                                    : ""));
  }
  line("parameters", fmt::format("{} ({} per token)", millions(report.parameters), millions(report.active_parameters)));
  line("bits per weight", fmt::format("{:.3f}", report.bits_per_weight));
  line("files", megabytes(report.file_bytes));
  line("memory", fmt::format("{} at {} tokens: files + {} of keys and values", megabytes(report.memory_bytes),
                             report.context, megabytes(report.kv_bytes)));
  print(fmt::format("\n{:<14}{:<16}{:>8}{:>16}{:>12}{:>8}\n", "role", "stored as", "modules", "weights", "MB", "bits"));
  for (const InspectGroup& group : report.groups) {
    print(fmt::format("{:<14}{:<16}{:>8}{:>16}{:>12.2f}{:>8.3f}\n", group.role, group.form, group.modules,
                      group.weights, double(group.bytes) / 1e6, group.bits_per_weight()));
  }
}

void print_json(const std::string& model, const InspectReport& report) {
  Json json;
  json["model_type"] = report.model_type;
  json["quant_format"] = report.quant_format.empty() ? Json(nullptr) : Json(report.quant_format);
  json["layers"] = report.layers;
  json["moe_layers"] = report.moe_layers;
  json["hidden_size"] = report.hidden_size;
  json["vocab_size"] = report.vocab_size;
  json["max_position_embeddings"] = report.max_position_embeddings;
  json["attention"] = report.attention;
  json["router"] = report.router;
  json["experts"] = report.experts;
  json["experts_per_token"] = report.experts_per_token;
  json["expert_intermediate_size"] = report.expert_intermediate_size;
  json["shared_expert_intermediate_size"] = report.shared_expert_intermediate_size;
  json["parameters"] = report.parameters;
  json["active_parameters"] = report.active_parameters;
  json["bits_per_weight"] = report.bits_per_weight;
  json["file_bytes"] = report.file_bytes;
  json["context"] = report.context;
  json["kv_bytes"] = report.kv_bytes;
  json["memory_bytes"] = report.memory_bytes;
  json["groups"] = Json::array();
  for (const InspectGroup& group : report.groups) {
    json["groups"].push_back({{"role", group.role},
                              {"form", group.form},
                              {"modules", group.modules},
                              {"weights", group.weights},
                              {"bytes", group.bytes},
                              {"bits_per_weight", group.bits_per_weight()}});
  }
  print(result_json("kedge.inspect/1", {}, 1, {{"model", model}, {"context", report.context}}, std::move(json)));
}

int run_inspect(const Arguments& arguments) {
  const InspectReport report = inspect(arguments.text("MODEL"), arguments.integer("context"));
  if (arguments.flag("json")) {
    print_json(arguments.text("MODEL"), report);
  } else {
    print_text(report);
  }
  return 0;
}

}  // namespace

constinit const Command inspect_command{.name = "inspect",
                                        .summary = "Show a checkpoint's family, shapes, experts, schemes and memory",
                                        .positionals = kPositionals,
                                        .flags = kFlags,
                                        .common = kPlainFlags,
                                        .example = "kedge inspect models/demo-4m --context 512",
                                        .run = run_inspect};

}  // namespace kedge::cli
