// One OLMoE layer (64 experts, top-8, 2048 x 1024, 4 bits): microseconds per token over a ring of layers larger than
// the caches, and the dense layer of equal active parameters (one expert of 8 x 1024).
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/moe_ffn/moe_ffn.h"

namespace kedge {
namespace {

constexpr std::int64_t kHidden = 2048, kSize = 1024, kTopK = 8;

PackedWeight make_weight(std::int64_t n, std::int64_t k, std::int64_t group, const LoadOptions& options) {
  QuantTensor q;
  q.args.num_bits = 4;
  q.args.group_size = group;
  q.rows = n;
  q.cols = k;
  q.codes.assign(static_cast<std::size_t>(n * k), 9);
  q.scales.assign(static_cast<std::size_t>(n * q.groups()), 0.0078125f);
  return pack_weight(q, options);
}

void run(benchmark::State& state, std::int64_t experts, std::int64_t size, std::int64_t top_k, std::int64_t group,
         Activations activations, std::int64_t tokens, int threads) {
  const LoadOptions options{detect_isa(), Numerics::consistent, activations};
  std::vector<PackedExperts> ring;
  const std::int64_t layers = tokens > 64 ? 1 : 4;
  for (std::int64_t l = 0; l < layers; ++l) {
    PackedExperts packed;
    for (std::int64_t e = 0; e < experts; ++e) {
      ExpertWeights weights{make_weight(size, kHidden, group, options), make_weight(size, kHidden, group, options),
                            make_weight(kHidden, size, group, options)};
      if (e == 0) {
        packed = PackedExperts(experts, std::move(weights));
      } else {
        packed.set(e, std::move(weights));
      }
    }
    ring.push_back(std::move(packed));
  }
  std::mt19937 engine(3);
  std::vector<std::vector<std::int32_t>> offsets, token, pair_of;
  constexpr std::size_t kRoutings = 16;
  for (std::size_t r = 0; r < kRoutings; ++r) {
    std::vector<std::vector<std::int64_t>> of(static_cast<std::size_t>(experts));
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::vector<bool> taken(static_cast<std::size_t>(experts), false);
      for (std::int64_t s = 0; s < top_k;) {
        const std::size_t e = engine() % static_cast<std::size_t>(experts);
        if (!taken[e]) {
          taken[e] = true;
          of[e].push_back(t * top_k + s++);
        }
      }
    }
    offsets.push_back({0});
    token.push_back({});
    pair_of.push_back(std::vector<std::int32_t>(static_cast<std::size_t>(tokens * top_k)));
    for (const auto& rows : of) {
      for (std::int64_t at : rows) {
        pair_of[r][static_cast<std::size_t>(at)] = static_cast<std::int32_t>(token[r].size());
        token[r].push_back(static_cast<std::int32_t>(at / top_k));
      }
      offsets[r].push_back(static_cast<std::int32_t>(token[r].size()));
    }
  }
  ThreadPool pool(threads);
  Arena arena;
  std::vector<float> x(static_cast<std::size_t>(tokens * kHidden), 0.25f), y(x.size());
  const std::vector<float> weights(static_cast<std::size_t>(tokens * top_k), 0.125f);
  const ExpertFfnDesc desc{experts, kHidden, size, FfnActivation::silu};
  std::size_t turn = 0;
  for (auto _ : state) {
    const std::size_t r = turn % kRoutings;
    moe_ffn({pool, arena}, x.data(), {offsets[r], token[r], pair_of[r], tokens, top_k}, weights.data(), desc,
            ring[turn % ring.size()], y.data());
    ++turn;
    benchmark::ClobberMemory();
  }
  state.counters["us/token"] = benchmark::Counter(static_cast<double>(state.iterations() * tokens) * 1e-6,
                                                  benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  const double bytes = static_cast<double>(ring[0].num_bytes()) / static_cast<double>(experts * 3);
  state.counters["GB/s at T=1"] = benchmark::Counter(
      static_cast<double>(state.iterations() * top_k * 3) * bytes * 1e-9, benchmark::Counter::kIsRate);
}

const bool registered = [] {
  for (Activations activations : {Activations::int8, Activations::fp32}) {
    for (std::int64_t group : {32, 128}) {
      for (std::int64_t tokens : {1, 4, 32, 128, 512}) {
        for (int threads : {1, 2}) {
          for (bool moe : {true, false}) {
            const std::string name = std::string(moe ? "moe" : "dense") + "/" + activations_name(activations) + "/g" +
                                     std::to_string(group) + "/tokens:" + std::to_string(tokens) +
                                     "/threads:" + std::to_string(threads);
            benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
              run(state, moe ? 64 : 1, moe ? kSize : kSize * kTopK, moe ? kTopK : 1, group, activations, tokens,
                  threads);
            })->UseRealTime()->MinTime(0.2)->Unit(benchmark::kMicrosecond);
          }
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace kedge
