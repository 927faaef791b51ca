// The papers' rows in small: the same bits on every path, no allocation with a kept workspace, figures that add up.
#include "bench/mcqsmoe.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "base/json.h"
#include "kedge/error.h"

namespace {
std::atomic<std::int64_t> allocations{0};
}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto to = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(to, (size + to - 1) / to * to)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace kedge {
namespace {

/// The papers' cases at an eighth of their width.
std::vector<McqsMoeCase> small_cases() {
  std::vector<McqsMoeCase> cases = mcqsmoe_cases(0);
  for (McqsMoeCase& c : cases) {
    c.spec.router.hidden_size = std::max<std::int64_t>(64, c.spec.router.hidden_size / 8);
    c.spec.router.bottleneck /= 8;
    c.spec.intermediate_size /= 32;
  }
  return cases;
}

TEST(McqsMoeBench, HasThePapersRows) {
  std::vector<std::string> names;
  for (const McqsMoeCase& c : mcqsmoe_cases(0)) names.push_back(c.name);
  EXPECT_EQ(names, (std::vector<std::string>{"serial", "parallel", "zero-copy", "workspace", "small", "large"}));
  EXPECT_EQ(mcqsmoe_cases(0).front().tokens, 32);
  EXPECT_EQ(mcqsmoe_cases(0).back().tokens, 64);
  for (const McqsMoeCase& c : mcqsmoe_cases(128)) EXPECT_EQ(c.tokens, 128) << c.name;
}

TEST(McqsMoeBench, ThePathsGiveTheSameBitsOnEveryIsa) {
  std::vector<float> expected;
  for (const Isa isa : available_isas()) {
    for (const McqsMoeCase& c : small_cases()) {
      if (c.spec.output != ExpertOutput::ffn) continue;
      const McqsMoeLayer layer(c.spec, AnchorForm::fused, {isa}, 1);
      McqsMoeSubject subject(c, layer, 3, 1);
      subject.batch();
      if (expected.empty()) expected = subject.y();
      EXPECT_EQ(subject.y(), expected) << c.name << ", " << isa_name(isa);
    }
  }
}

TEST(McqsMoeBench, AKeptWorkspaceTakesNoMemoryAfterTheFirstBatch) {
  for (const AnchorForm form : {AnchorForm::fused, AnchorForm::split, AnchorForm::decoded}) {
    for (const McqsMoeCase& c : small_cases()) {
      const McqsMoeLayer layer(c.spec, form, {detect_isa()}, 1);
      McqsMoeSubject subject(c, layer, 2, 1);
      subject.batch();
      const std::int64_t before = allocations;
      for (int i = 0; i < 3; ++i) subject.batch();
      const std::int64_t taken = allocations - before;
      if (c.keep_scratch) {
        EXPECT_EQ(taken, 0) << c.name << ", " << anchor_form_name(form);
      } else {
        EXPECT_GT(taken, 0) << c.name;
      }
    }
  }
}

TEST(McqsMoeBench, FiguresAddUp) {
  McqsMoeBenchOptions options;
  options.repetitions = 2;
  options.runtime.threads = 2;
  McqsMoeBenchReport report;
  report.options = options;
  report.isa = "scalar";
  for (const McqsMoeCase& c : small_cases()) {
    const McqsMoeLayer layer(c.spec, AnchorForm::fused, {detect_isa()}, 1);
    report.rows.push_back(measure_case(c, layer, options));
  }
  for (const McqsMoeBenchRow& row : report.rows) {
    EXPECT_EQ(row.threads, row.name == "serial" ? 1 : 2);
    EXPECT_EQ(row.rate.samples.size(), 2u);
    EXPECT_EQ(row.one_thread.samples.size(), 2u);
    EXPECT_EQ(row.active_fp32.rate.samples.size(), 2u);
    EXPECT_EQ(row.active_fp32.flops, row.active.flops);
    if (row.name == "serial") {
      EXPECT_EQ(row.over_one_thread(), 1.0);
    } else {
      EXPECT_GT(row.over_one_thread(), 0);
    }
    EXPECT_GT(row.routing_share, 0);
    EXPECT_LT(row.routing_share, 1.5);  // measured apart, on a machine that others use
    EXPECT_NEAR(double(row.stored.parameters), double(row.parameters), 64.0 * 2 * double(row.hidden_size));
    EXPECT_NEAR(row.active.flops, row.active_flops, 2.0 * double(row.tokens) * 64 * 2 * double(row.hidden_size));
    EXPECT_NEAR(row.gigaflops() * 1e9, row.rate.median / double(row.tokens) * (row.routing_flops + row.expert_flops),
                1);
  }
  // k = 2 of E = 8 experts: routing E (d r + r^2), experts 2 k d f, per token and times two.
  const McqsMoeBenchRow& row = report.rows.front();
  EXPECT_EQ(row.active_flops, 2.0 * 32 * (8 * (128 * 16 + 16 * 16) + 2 * 2 * 128 * 128));
  EXPECT_EQ(row.parameters, 8 * 128 * (16 + 2 * 128));
  const Json json = parse_json(mcqsmoe_json(report), "report");
  EXPECT_EQ(json["schema"], "kedge.bench-mcqsmoe/1");
  EXPECT_EQ(json["results"]["rows"].size(), 6u);
  EXPECT_NE(mcqsmoe_text(report).find("zero-copy"), std::string::npos);
}

TEST(McqsMoeBench, RefusesOtherForms) {
  McqsMoeBenchOptions options;
  options.form = "folded";
  EXPECT_THROW(bench_mcqsmoe(options), Error);
  options = {};
  options.tokens = -1;
  EXPECT_THROW(bench_mcqsmoe(options), Error);
}

}  // namespace
}  // namespace kedge
