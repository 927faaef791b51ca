// Post-processors of tokenizer.json: which tokens are set around a text. ByteLevel (offsets only: no effect here),
// TemplateProcessing (its "single" template), Sequence.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace kedge {

class PostProcessor {
 public:
  /// json: the "post_processor" value, null for none. Error(unsupported), Error(bad_file).
  static PostProcessor parse(const nlohmann::ordered_json& json, const std::string& where);
  std::vector<std::int32_t> apply(std::vector<std::int32_t> ids) const;
  std::int64_t highest_id() const noexcept { return highest_id_; }  ///< that it may add; -1: none

 private:
  /// Ids before and behind the text.
  struct Template {
    std::vector<std::int32_t> before, behind;
  };
  void add(const nlohmann::ordered_json& json, const std::string& where);
  void add_template(const nlohmann::ordered_json& json, const std::string& where);
  std::vector<Template> templates_;
  std::int64_t highest_id_ = -1;
};

}  // namespace kedge
