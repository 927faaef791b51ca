// Copies of what the linears of one block read in a pass.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/probe.h"

namespace kedge {

class Capture : public ForwardProbe {
 public:
  struct Rows {
    std::int64_t rows = 0, size = 0;
    std::vector<float> values;  ///< [rows, size]
  };

  enum class Pass { whole, until_complete };
  /// linears: canonical modules whose input is kept. sites: what else. pass: of one block; until_complete: its output
  /// is not wanted.
  Capture(std::set<std::string, std::less<>> linears, unsigned sites, Pass pass = Pass::whole);

  unsigned sites() const noexcept override { return sites_; }
  bool complete_after(unsigned sites) const noexcept override;
  void linear_input(std::string_view module, std::int64_t rows, std::int64_t size, const float* x,
                    std::int64_t ld) override;
  void moe_input(int layer, std::int64_t tokens, std::int64_t hidden_size, const float* x) override;
  void routing(int layer, const RoutingDecision& decision) override;
  void expert_intermediate(int layer, std::span<const std::int32_t> offsets, std::int64_t size, const float* h) override;

  std::map<std::string, Rows, std::less<>> inputs;  ///< by module
  Rows moe;                                         ///< the router's and experts' input
  Rows logits, scores;                              ///< [T, E]
  std::vector<std::int32_t> expert_ids;             ///< [T, k]
  std::vector<float> expert_weights;                ///< [T, k]
  Rows intermediate;                                ///< [P, I] in permutation order
  std::vector<std::int32_t> offsets;                ///< [E + 1]

 private:
  std::set<std::string, std::less<>> linears_;
  unsigned sites_;
  unsigned seen_ = 0;  ///< of sites_, linear_input when all linears_ were
  Pass pass_;
};

}  // namespace kedge
