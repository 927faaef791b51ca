// States, errors of a call, single blocks and layers, random models, memory.
#include "model/decoder.h"

#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "kedge/error.h"
#include "model/family.h"
#include "model/testing.h"

namespace {

std::atomic<long> allocations{0};

}  // namespace

// Counts every allocation of this test program.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace kedge {
namespace {

using namespace testing_model;

LoadOptions options() { return {detect_isa(), Numerics::consistent, Activations::fp32}; }

class Decoder : public ::testing::Test {
 protected:
  Decoder() : checkpoint(Checkpoint::open(golden_dir("deepseek_v3"))), runner(checkpoint, options()) {}
  Checkpoint checkpoint;
  Runner runner;
  std::vector<std::int32_t> tokens = {5, 250, 3, 77, 5, 19, 0, 255};
};

TEST_F(Decoder, TruncateForgets) {
  SequenceState state = runner.state(16);
  const Segment all{&state, tokens};
  const auto expected = runner.forward({&all, 1}, LogitRows::all);
  EXPECT_EQ(state.length(), 8);
  state.truncate(3);
  const Segment rest{&state, std::span<const std::int32_t>(tokens).subspan(3)};
  const auto again = runner.forward({&rest, 1}, LogitRows::all);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), expected.end() - static_cast<std::ptrdiff_t>(again.size())));
  EXPECT_EQ(state.num_bytes(), SequenceState::bytes_for(runner.model.spec(), 16));
}

TEST_F(Decoder, WrongCallsAreErrors) {
  SequenceState state = runner.state(4);
  std::vector<float> logits(8 * 256);
  const ExecContext ctx{runner.threads, runner.arena, nullptr};
  const Segment too_long{&state, tokens};
  EXPECT_THROW(runner.model.forward(ctx, {&too_long, 1}, LogitRows::all, logits.data()), Error);
  for (const std::int32_t wrong : {-1, 256}) {
    const std::vector<std::int32_t> ids = {1, wrong};
    const Segment segment{&state, ids};
    try {
      runner.model.forward(ctx, {&segment, 1}, LogitRows::all, logits.data());
      ADD_FAILURE() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage);
      EXPECT_NE(std::string(error.what()).find(std::to_string(wrong)), std::string::npos);
    }
  }
  EXPECT_EQ(state.length(), 0) << "a refused call leaves the state alone";
  EXPECT_THROW(runner.state(0), Error);
  EXPECT_THROW(runner.state(std::int64_t{1} << 40), Error);
}

TEST_F(Decoder, LayersAndBlocksComposeToTheForwardPass) {
  Recorder recorder;
  const auto logits = runner.sequence(tokens, &recorder);
  const auto& spec = runner.model.spec();
  const ExecContext ctx{runner.threads, runner.arena, nullptr};

  SequenceState by_layer = runner.state(8), by_block = runner.state(8);
  const Segment layer_segment{&by_layer, tokens}, block_segment{&by_block, tokens};
  std::vector<float> h(8 * 64), g(8 * 64);
  runner.model.embed(ctx, {&layer_segment, 1}, h.data());
  g = h;
  EXPECT_EQ(h, recorder.hidden[0]);
  for (int layer = 0; layer < spec.num_hidden_layers; ++layer) {
    runner.model.forward_layer(ctx, layer, {&layer_segment, 1}, h.data());
    for (int b = 0; b < static_cast<int>(spec.blocks.size()); ++b) {
      if (spec.blocks[static_cast<std::size_t>(b)].source_layer != layer) continue;
      Block::load(checkpoint, spec, b, options())->forward(ctx, g.data(), {&block_segment, 1});
    }
    EXPECT_EQ(h, g);
    if (layer + 1 < spec.num_hidden_layers) {
      EXPECT_EQ(h, recorder.hidden[layer + 1]);
    }
  }
  EXPECT_EQ(by_layer.length(), 0);
  by_layer.advance(8);
  EXPECT_EQ(by_layer.length(), 8);
}

TEST_F(Decoder, LogitRowsOfEachKind) {
  const auto all = runner.sequence(tokens);
  SequenceState a = runner.state(8), b = runner.state(8), c = runner.state(8);
  const Segment for_last{&a, tokens}, for_none{&b, tokens}, empty{&c, {}};
  const auto last = runner.forward({&for_last, 1}, LogitRows::last_of_each_segment);
  EXPECT_TRUE(std::equal(last.begin(), last.end(), all.end() - 256));
  runner.model.forward({runner.threads, runner.arena, nullptr}, {&for_none, 1}, LogitRows::none, nullptr);
  EXPECT_EQ(b.length(), 8);
  const Segment with_empty[] = {empty, {&a, {}}};
  runner.model.forward({runner.threads, runner.arena, nullptr}, with_empty, LogitRows::none, nullptr);
  EXPECT_EQ(c.length(), 0);
  Recorder recorder;
  a.truncate(0);
  EXPECT_EQ(runner.forward({&for_last, 1}, LogitRows::last_of_each_segment, &recorder), last);
}

TEST(DecodeStep, AllocatesNothingAfterWarmUp) {
  for (const char* name : {"olmoe", "qwen3_moe", "mixtral", "deepseek_v3"}) {
    const Checkpoint checkpoint = Checkpoint::open(golden_dir(name));
    Runner runner(checkpoint, options());
    SequenceState state = runner.state(64);
    std::vector<float> logits(256);
    std::int32_t token = 1;
    const auto step = [&] {
      const Segment segment{&state, {&token, 1}};
      runner.model.forward({runner.threads, runner.arena, nullptr}, {&segment, 1}, LogitRows::all, logits.data());
      token = argmax(logits);
    };
    for (int i = 0; i < 3; ++i) step();
    const long before = allocations;
    const std::size_t arena_before = runner.arena.capacity();
    for (int i = 0; i < 60; ++i) step();
    EXPECT_EQ(allocations - before, 0) << name;
    EXPECT_EQ(runner.arena.capacity(), arena_before);
  }
}

TEST(RandomModel, EveryFamilyAndScheme) {
  for (const char* name : {"olmoe", "qwen3_moe", "mixtral", "deepseek_v3"}) {
    const ModelSpec spec = spec_for_groups(name);
    std::size_t bf16_active = 0;
    for (const char* scheme : {"bf16", "f32", "w4a16-g32", "w8a16-channel", "w4a16-g32-asym"}) {
      ThreadPool threads(2);
      Runner runner(DecoderModel::random(spec, scheme, 1, options(), threads), 2);
      const std::vector<std::int32_t> tokens = {1, 2, 3};
      const auto logits = runner.sequence(tokens);
      float largest = 0;
      for (const float x : logits) {
        ASSERT_TRUE(std::isfinite(x)) << name << ' ' << scheme;
        largest = std::max(largest, std::fabs(x));
      }
      EXPECT_GT(largest, 0.0f);
      const std::size_t active = runner.model.active_bytes_per_token();
      EXPECT_LT(active, runner.model.num_bytes());
      if (std::string(scheme) == "bf16") bf16_active = active;
      if (std::string(scheme) == "f32") {
        EXPECT_GT(active, bf16_active * 3 / 2);
      }
      EXPECT_NE(runner.model.explain().find("lm_head"), std::string::npos);
      ThreadPool more(3);
      Runner again(DecoderModel::random(spec, scheme, 1, options(), more), 1);
      EXPECT_EQ(again.sequence(tokens), logits) << "a seed gives one model";
      Runner other(DecoderModel::random(spec, scheme, 2, options(), more), 1);
      EXPECT_NE(other.sequence(tokens), logits);
    }
    ThreadPool threads(1);
    EXPECT_THROW(DecoderModel::random(spec, "w4a16-g128", 1, options(), threads), Error);
    EXPECT_THROW(DecoderModel::random(spec, "nonsense", 1, options(), threads), Error);
  }
}

}  // namespace
}  // namespace kedge
