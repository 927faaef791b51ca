// kedge inspect: what a checkpoint holds, and the memory that running it takes. Reads no weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace kedge {

/// Matrices of one role stored in one form; role "other": embeddings, norms, biases.
struct InspectGroup {
  std::string role;
  std::string form;  ///< a scheme ("w4a16-g128") or a type ("bf16")
  std::int64_t modules = 0;
  std::int64_t weights = 0;
  std::uint64_t bytes = 0;
  double bits_per_weight() const noexcept { return weights == 0 ? 0 : 8.0 * double(bytes) / double(weights); }
};

struct InspectReport {
  std::string model_type;
  std::string quant_format;  ///< empty: not quantized
  int layers = 0;
  int moe_layers = 0;
  std::int64_t hidden_size = 0, vocab_size = 0, max_position_embeddings = 0;
  std::string attention;  ///< "4 heads of 32, 2 key-value heads"
  std::string router;     ///< "softmax over 16, 2 per token"; empty: a dense model
  std::int64_t experts = 0, experts_per_token = 0;
  std::int64_t expert_intermediate_size = 0, shared_expert_intermediate_size = 0;
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;  ///< used for one token, embeddings included
  std::vector<InspectGroup> groups;
  double bits_per_weight = 0;
  std::uint64_t file_bytes = 0;
  std::int64_t context = 0;
  std::uint64_t kv_bytes = 0;      ///< keys and values of one sequence of `context` tokens
  std::uint64_t memory_bytes = 0;  ///< weight files + keys and values
};

/// context: tokens; 0 takes the model's own maximum. Error(usage) above that maximum; else as Checkpoint.
InspectReport inspect(const std::filesystem::path& model, std::int64_t context = 0);

}  // namespace kedge
