// The table of model families. A new family: a file in families/ and a row here.
#include <string>

#include "base/json.h"
#include "kedge/error.h"
#include "model/families/families.h"
#include "model/family.h"

namespace kedge {
namespace {

constexpr NameRule kMixtralRules[] = {
    {".mlp.experts.*.gate_proj", ".block_sparse_moe.experts.*.w1"},
    {".mlp.experts.*.up_proj", ".block_sparse_moe.experts.*.w3"},
    {".mlp.experts.*.down_proj", ".block_sparse_moe.experts.*.w2"},
    {".mlp.gate", ".block_sparse_moe.gate"},
};

constexpr ModelFamily kFamilies[] = {
    {"olmoe", families::olmoe, {}},
    {"qwen3_moe", families::qwen3_moe, {}},
    {"mixtral", families::mixtral, kMixtralRules},
    {"deepseek_v3", families::deepseek_v3, {}},
    {"kedge_mcqsmoe", families::kedge_mcqsmoe, {}},
};

}  // namespace

std::span<const ModelFamily> model_families() noexcept { return kFamilies; }

const ModelFamily& family_of(const nlohmann::ordered_json& config, const std::string& where) {
  const std::string type = json_get<std::string>(config, "model_type", where);
  std::string known;
  for (const ModelFamily& family : kFamilies) {
    if (type == family.model_type) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  throw Error(ErrorCode::unsupported, "model_type '" + type.substr(0, 60) + "' in " + where + " is not known",
              "one of " + known);
}

ModelSpec model_spec(const Checkpoint& checkpoint) {
  const std::string where = (checkpoint.directory() / "config.json").string();
  return family_of(checkpoint.config(), where).spec(checkpoint.config(), where);
}

}  // namespace kedge
