// The layer against PyTorch in fp64 (tools/make_mcqsmoe_goldens.py, tests/goldens/mcqsmoe), on the same quantized
// weights: the port's error is max |y - y'| <= 1e-4 and rms(y - y') / rms(y') <= 5e-5; and bit for bit over replays,
// threads and instruction sets.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/hash.h"
#include "moe/testing.h"

namespace {

std::atomic<long> allocations{0};

}  // namespace

// Counts every allocation of this test program, those of the arena (aligned) too.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  ++allocations;
  const auto align = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(align, (bytes + align - 1) / align * align)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace kedge {
namespace {

using namespace testing_moe;

struct Result {
  std::vector<float> y;
  RoutingAudit audit;
};

Result run(const McqsMoeGolden& golden, AnchorForm form, Isa isa, int threads, int replays = 1) {
  const auto block =
      ReconstructionMoeBlock::load(golden.spec, golden.weights(), form, {isa, Numerics::consistent, Activations::fp32});
  const auto x = golden.values<float>("x", DType::f32);
  ThreadPool pool(threads);
  Arena arena;
  Result first{std::vector<float>(x.size()), {}};
  block.forward({pool, arena}, 0, x.data(), golden.tokens, first.y.data(), &first.audit);
  for (int i = 1; i < replays; ++i) {
    std::vector<float> y(x.size());
    block.forward({pool, arena}, 0, x.data(), golden.tokens, y.data());
    EXPECT_EQ(std::memcmp(y.data(), first.y.data(), y.size() * sizeof(float)), 0) << "replay " << i;
  }
  return first;
}

/// |a - b|, over |b| where that is above 1: errors without a normalization have the size of ||x||^2.
double largest_error_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double difference = std::fabs(double{a[i]} - b[i]) / std::max(1.0, std::fabs(double{b[i]}));
    worst = difference > worst || difference != difference ? difference : worst;
  }
  return worst;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double difference = std::fabs(double{a[i]} - b[i]);
    worst = difference > worst || difference != difference ? difference : worst;
  }
  return worst;
}

double nrmse(const std::vector<float>& a, const std::vector<float>& reference) {
  double error = 0, total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(double{a[i]} - reference[i], 2);
    total += std::pow(double{reference[i]}, 2);
  }
  return std::sqrt(error / total);
}

TEST(McqsMoeGoldens, AreTheFrozenFiles) {
  const Json all = read_json(golden_folder() / "hashes.json");
  EXPECT_GE(all.size(), 10u);
  for (const auto& [name, hash] : all.items()) {
    EXPECT_EQ(sha256_file(golden_folder() / (name + ".safetensors")), hash.get<std::string>()) << name;
  }
}

TEST(McqsMoeGoldens, TheLayerComputesWhatPyTorchDoes) {
  for (const std::string& name : case_names()) {
    SCOPED_TRACE(name);
    const McqsMoeGolden golden(name);
    const auto y = golden.values<float>("y", DType::f32), errors = golden.values<float>("errors", DType::f32);
    const auto weights = golden.values<float>("weights", DType::f32);
    const auto norms = golden.values<float>("residual_norms", DType::f32);
    const auto ids = golden.values<std::int32_t>("ids", DType::i32);
    for (const AnchorForm form : {AnchorForm::fused, AnchorForm::split, AnchorForm::decoded}) {
      const Result out = run(golden, form, Isa::scalar, 1);
      EXPECT_EQ(out.audit.token_experts, ids);
      EXPECT_LE(largest_error_difference(out.audit.all_errors, errors), 1e-5);
      EXPECT_LE(largest_difference(out.audit.token_weights, weights), 1e-4);
      EXPECT_LE(largest_difference(out.audit.residual_norms, norms), 1e-4);
      EXPECT_LE(largest_difference(out.y, y), 1e-4);
      EXPECT_LE(nrmse(out.y, y), 5e-5);
      std::printf("%s, %s: max_abs %.1e, nrmse %.1e, errors %.1e\n", name.c_str(), anchor_form_name(form),
                  largest_difference(out.y, y), nrmse(out.y, y),
                  largest_error_difference(out.audit.all_errors, errors));
    }
  }
}

TEST(McqsMoeGoldens, EveryRowOfTheirWeightsIsOnItsManifold) {
  for (const std::string& name : case_names()) {
    for (const auto& [stack, weights] : McqsMoeGolden(name).stacks) {
      EXPECT_LE(manifold_error(weights), 1e-6) << name << " " << stack;
    }
  }
}

TEST(McqsMoeGoldens, ReplaysThreadsAndInstructionSetsGiveTheSameBits) {
  for (const std::string& name : case_names()) {
    SCOPED_TRACE(name);
    const McqsMoeGolden golden(name);
    for (const AnchorForm form : {AnchorForm::fused, AnchorForm::split, AnchorForm::decoded}) {
      const Result reference = run(golden, form, Isa::scalar, 1, 10);
      for (const Isa isa : available_isas()) {
        for (const int threads : {1, 2, 3}) {
          const Result out = run(golden, form, isa, threads);
          EXPECT_EQ(std::memcmp(out.y.data(), reference.y.data(), out.y.size() * sizeof(float)), 0)
              << isa_name(isa) << " " << threads;
          EXPECT_EQ(out.audit.all_errors, reference.audit.all_errors) << isa_name(isa) << " " << threads;
          EXPECT_EQ(out.audit.token_weights, reference.audit.token_weights) << isa_name(isa) << " " << threads;
        }
      }
    }
  }
}

TEST(McqsMoeGoldens, NothingIsAllocatedAfterTheFirstBatch) {
  for (const std::string& name : case_names()) {
    SCOPED_TRACE(name);
    const McqsMoeGolden golden(name);
    for (const AnchorForm form : {AnchorForm::fused, AnchorForm::split, AnchorForm::decoded}) {
      const auto block = ReconstructionMoeBlock::load(golden.spec, golden.weights(), form,
                                                      {detect_isa(), Numerics::consistent, Activations::fp32});
      const auto x = golden.values<float>("x", DType::f32);
      std::vector<float> y(x.size());
      ThreadPool pool(2);
      Arena arena;
      block.forward({pool, arena}, 0, x.data(), golden.tokens, y.data());
      const long before = allocations;
      EXPECT_GT(before, 0);
      for (const std::int64_t tokens : {golden.tokens, std::int64_t{1}, golden.tokens / 2}) {
        block.forward({pool, arena}, 0, x.data(), tokens, y.data());
      }
      EXPECT_EQ(allocations - before, 0) << anchor_form_name(form);
    }
  }
}

}  // namespace
}  // namespace kedge
