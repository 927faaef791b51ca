#include "generate/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>

#include "base/json.h"
#include "kedge/error.h"
#include "kedge/generate.h"

// GCC sees malloc and free through the inlined operators and takes them for a mismatch.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

namespace {

std::atomic<long> allocations{0};

void* counted(std::size_t size, std::size_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  const std::size_t rounded = (std::max<std::size_t>(size, 1) + alignment - 1) / alignment * alignment;
  void* p = alignment > alignof(std::max_align_t) ? std::aligned_alloc(alignment, rounded) : std::malloc(rounded);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(std::size_t size) { return counted(size, 1); }
void* operator new[](std::size_t size) { return counted(size, 1); }
void* operator new(std::size_t size, std::align_val_t a) { return counted(size, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t size, std::align_val_t a) { return counted(size, static_cast<std::size_t>(a)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(size);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace kedge {
namespace {

using Ids = std::vector<std::int32_t>;

const std::filesystem::path root = KEDGE_SOURCE_DIR;
const std::filesystem::path demo = root / "models/demo-4m";

template <class F>
ErrorCode error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::io;
}

GenerateOptions demo_options(const std::string& prompt, std::int64_t new_tokens) {
  GenerateOptions options;
  options.model = demo;
  options.prompt = prompt;
  options.max_new_tokens = new_tokens;
  options.runtime.threads = 2;
  return options;
}

TEST(Generate, ContinuesGreedilyAsTransformers) {
  const Json expected = read_json(root / "tests/goldens/demo-4m.expected.json");
  for (const Json& entry : expected["greedy"]) {
    const Ids ids = entry["greedy_ids"].get<Ids>();
    GenerateOptions options = demo_options(entry["prompt"].get<std::string>(), static_cast<std::int64_t>(ids.size()));
    std::string streamed;
    options.on_text = [&](std::string_view text) { streamed += text; };
    const GenerateResult result = generate(options);
    EXPECT_EQ(result.prompt_ids, entry["prompt_ids"].get<Ids>());
    EXPECT_EQ(result.token_ids, ids);
    EXPECT_EQ(result.text, entry["text"].get<std::string>());
    EXPECT_EQ(streamed, result.text);
    EXPECT_EQ(result.finish_reason, "length");
  }
}

TEST(Generate, SamplingRepeatsWithItsSeed) {
  const auto run = [](std::uint64_t seed, int threads) {
    GenerateOptions options = demo_options("The captain", 24);
    options.sampling = {.temperature = 0.9f, .top_k = 50, .top_p = 0.95f, .min_p = 0.01f, .seed = seed};
    options.runtime.threads = threads;
    return generate(options).token_ids;
  };
  EXPECT_EQ(run(1, 1), run(1, 2));
  EXPECT_NE(run(1, 1), run(2, 1));
}

TEST(Generate, StopsAtTheContextsEnd) {
  std::string prompt;
  for (int i = 0; i < 1020; ++i) prompt += " the";
  GenerateOptions options = demo_options(prompt, 50);
  options.ignore_eos = true;
  const GenerateResult result = generate(options);
  ASSERT_EQ(result.prompt_ids.size(), 1020u);
  EXPECT_EQ(result.token_ids.size(), 5u);  // 1024 positions; nothing follows from the last token
  EXPECT_EQ(result.finish_reason, "length");
}

TEST(Generate, AnEmptyPromptStartsFromBos) {
  const GenerateResult result = generate(demo_options("", 3));
  EXPECT_EQ(result.prompt_ids, Ids{0});
  EXPECT_FALSE(result.token_ids.empty());
}

TEST(Generate, Complains) {
  std::string prompt;
  for (int i = 0; i < 1024; ++i) prompt += " the";
  EXPECT_EQ(error_of([&] { generate(demo_options(prompt, 1)); }), ErrorCode::usage);
  EXPECT_EQ(error_of([&] { generate(demo_options("a", 0)); }), ErrorCode::usage);
  const auto broken = [](auto&& edit) {
    return error_of([&] {
      GenerateOptions options = demo_options("a", 1);
      edit(options);
      generate(options);
    });
  };
  EXPECT_EQ(broken([](auto& o) { o.sampling.top_p = 2; }), ErrorCode::usage);
  EXPECT_EQ(broken([](auto& o) { o.prefill_batch = 0; }), ErrorCode::usage);
  EXPECT_EQ(broken([](auto& o) { o.runtime.threads = -1; }), ErrorCode::usage);
  EXPECT_EQ(broken([](auto& o) { o.runtime.isa = "mmx"; }), ErrorCode::usage);
  EXPECT_EQ(broken([](auto& o) { o.runtime.numerics = "exact"; }), ErrorCode::usage);
  EXPECT_EQ(broken([](auto& o) { o.model = root / "no-such-model"; }), ErrorCode::not_found);
}

TEST(Tokenize, RoundTrip) {
  const TokenizeResult result = tokenize(demo, "Hello, world!");
  EXPECT_EQ(result.ids, (Ids{40, 421, 79, 12, 1127, 1}));
  EXPECT_EQ(result.tokens.size(), result.ids.size());
  EXPECT_EQ(result.tokens[0], "H");
  EXPECT_EQ(detokenize(demo, result.ids), "Hello, world!");
  EXPECT_EQ(error_of([] { detokenize(demo, {5000}); }), ErrorCode::usage);
}

class Sessions : public testing::Test {
 protected:
  static const LoadedModel& model() {
    static ThreadPool pool(2);
    static const LoadedModel loaded = load_model(demo, make_load_options({}), pool);
    return loaded;
  }
  static Ids tokens(std::int64_t n) {
    Ids ids;
    for (std::int64_t i = 0; i < n; ++i) ids.push_back(static_cast<std::int32_t>((i * 7919 + 13) % 4096));
    return ids;
  }
  static std::vector<float> copy(std::span<const float> x) { return {x.begin(), x.end()}; }
};

TEST_F(Sessions, ChunksAndStepsGiveTheSameBits) {
  const Ids ids = tokens(50);
  Session whole(model(), 64);
  whole.prefill(ids);
  const auto expected = copy(whole.logits());
  EXPECT_EQ(whole.length(), 50);
  for (const std::int64_t batch : {1, 7, 49}) {
    Session session(model(), 64);
    session.prefill(ids, batch);
    EXPECT_EQ(copy(session.logits()), expected) << batch;
  }
  Session steps(model(), 64);
  for (const auto id : ids) steps.decode(id);
  EXPECT_EQ(copy(steps.logits()), expected);
  steps.reset();
  EXPECT_EQ(steps.length(), 0);
  steps.prefill(ids, 16);
  EXPECT_EQ(copy(steps.logits()), expected);
}

TEST_F(Sessions, ContextIsBounded) {
  EXPECT_EQ(error_of([] { Session session(model(), 0); }), ErrorCode::usage);
  EXPECT_EQ(error_of([] { Session session(model(), 1025); }), ErrorCode::usage);
  EXPECT_EQ(error_of([] {
              Session session(model(), 4);
              session.prefill(tokens(5));
            }),
            ErrorCode::usage);
}

TEST_F(Sessions, DecodingDoesNotAllocate) {
  for (const int threads : {1, 2}) {
    for (const char* activations : {"fp32", "int8"}) {
      ThreadPool pool(threads);
      RuntimeOptions runtime;
      runtime.activations = activations;
      const LoadedModel loaded = load_model(demo, make_load_options(runtime), pool);
      Session session(loaded, 128);
      Sampler sampler({.temperature = 1, .top_k = 40, .top_p = 0.9f}, 4096);
      session.prefill(tokens(20));
      session.decode(sampler.sample(session.logits()));
      session.decode(sampler.sample(session.logits()));
      const long before = allocations.load();
      for (int i = 0; i < 64; ++i) session.decode(sampler.sample(session.logits()));
      EXPECT_EQ(allocations.load() - before, 0) << threads << " threads, " << activations;
      EXPECT_GT(before, 0);
    }
  }
}

TEST_F(Sessions, EndOfTextIdsComeFromTheGenerationConfig) { EXPECT_EQ(eos_token_ids(model().checkpoint), Ids{0}); }

}  // namespace
}  // namespace kedge
