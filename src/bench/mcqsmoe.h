// The parts of kedge bench mcqsmoe (kedge/bench_mcqsmoe.h) that tests choose.
#pragma once

#include <memory>
#include <vector>

#include "kedge/bench_mcqsmoe.h"
#include "moe/reconstruction_moe.h"

namespace kedge {

struct McqsMoeCase {
  std::string name;
  ReconstructionMoe spec;
  std::int64_t tokens = 0;
  bool all_threads = true;
  ExpertRows rows = ExpertRows::in_place;
  bool keep_scratch = true;  ///< otherwise each batch takes its memory from the system
};

/// The papers' six. tokens: of each batch; 0: theirs.
std::vector<McqsMoeCase> mcqsmoe_cases(std::int64_t tokens);

/// A layer with random weights, that several cases may share.
class McqsMoeLayer {
 public:
  McqsMoeLayer(const ReconstructionMoe& spec, AnchorForm form, const LoadOptions& load, std::uint64_t seed);

  const ReconstructionMoeBlock& block() const noexcept { return block_; }
  const ReconstructionRouter& router() const noexcept { return router_; }
  std::int64_t parameters() const noexcept;
  /// Encoders and Gram products of all experts, and k experts, per token: no anchor's own product.
  double active_flops(std::int64_t tokens) const noexcept;

 private:
  ReconstructionMoe spec_;
  ReconstructionMoeBlock block_;
  ReconstructionRouter router_;
};

/// Batches of one case: x [tokens, d] of random values.
class McqsMoeSubject {
 public:
  McqsMoeSubject(const McqsMoeCase& c, const McqsMoeLayer& layer, int threads, std::uint64_t seed);

  void batch();    ///< the layer
  void routing();  ///< the router alone
  int threads() noexcept { return pool_.size(); }
  const std::vector<float>& y() const noexcept { return y_; }

 private:
  McqsMoeCase case_;
  const McqsMoeLayer& layer_;
  ThreadPool pool_;
  std::unique_ptr<Arena> arena_;
  std::vector<float> x_, y_;
};

/// Hidden units of a dense layer with as many stored parameters, or as many active_flops().
std::int64_t dense_of_stored(const McqsMoeLayer& layer, const McqsMoeCase& c) noexcept;
std::int64_t dense_of_active(const McqsMoeLayer& layer, const McqsMoeCase& c) noexcept;

enum class DenseWeights { int4, fp32 };

/// y = down gelu(up x) on a case's tokens, random weights (int4: in groups of 64). intermediate_size: a multiple of 64.
class McqsMoeDenseLayer {
 public:
  McqsMoeDenseLayer(const McqsMoeCase& c, std::int64_t intermediate_size, DenseWeights weights, int threads,
                    const LoadOptions& load);
  void batch();

 private:
  std::int64_t d_, f_, tokens_;
  Isa isa_;
  PackedWeight up_, down_;
  ThreadPool pool_;
  Arena arena_;
  std::vector<float> x_, y_;
};

/// One case; the same on one thread and the dense layers take turns with it.
McqsMoeBenchRow measure_case(const McqsMoeCase& c, const McqsMoeLayer& layer, const McqsMoeBenchOptions& options);

}  // namespace kedge
