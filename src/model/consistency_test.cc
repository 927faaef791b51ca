// The numerics contract end to end: the same bits in any batch, chunking, thread count and ISA.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "model/testing.h"

namespace kedge {
namespace {

using namespace testing_model;

/// What a run leaves: logits and routing of every layer, compared bit by bit.
struct Outcome {
  std::vector<float> logits;
  std::map<int, std::vector<std::int32_t>> ids;
  std::map<int, std::vector<float>> weights, router_logits, scores;

  bool operator==(const Outcome&) const = default;
};

Outcome outcome(const Recorder& recorder, std::vector<float> logits) {
  return {std::move(logits), recorder.ids, recorder.weights, recorder.router_logits, recorder.scores};
}

class Consistency : public ::testing::TestWithParam<const char*> {
 protected:
  Consistency()
      : ids(integers(SafetensorsFile(golden_dir(GetParam()) / "golden.safetensors"), "input_ids")),
        checkpoint(Checkpoint::open(golden_dir(GetParam()))) {}

  std::span<const std::int32_t> row(std::size_t r) const {
    return std::span<const std::int32_t>(ids).subspan(r * 24, 24);
  }

  Outcome run(const LoadOptions& options, int threads, std::size_t chunk = 0) const {
    Runner runner(checkpoint, options, threads);
    Recorder recorder;
    auto logits = runner.sequence(row(0), &recorder, chunk);
    return outcome(recorder, std::move(logits));
  }

  std::vector<std::int32_t> ids;
  Checkpoint checkpoint;
};

TEST_P(Consistency, BatchChunksAndDecodeGiveTheBitsOfOneRow) {
  Runner runner(checkpoint, {detect_isa(), Numerics::consistent, Activations::fp32}, 2);
  const auto first = runner.sequence(row(0)), second = runner.sequence(row(1));
  EXPECT_NE(first, second);
  for (const std::size_t chunk : {1, 5, 16, 23}) EXPECT_EQ(runner.sequence(row(0), nullptr, chunk), first) << chunk;

  SequenceState a = runner.state(24), b = runner.state(30);
  const Segment both[] = {{&a, row(0)}, {&b, row(1)}};
  auto expected = first;
  expected.insert(expected.end(), second.begin(), second.end());
  EXPECT_EQ(runner.forward(both, LogitRows::all), expected);

  // Ragged: one row in decode while the other is in prefill.
  SequenceState c = runner.state(24), d = runner.state(24);
  const Segment head{&c, row(0).first(23)};
  runner.forward({&head, 1}, LogitRows::all);
  const Segment ragged[] = {{&c, row(0).subspan(23)}, {&d, row(1)}};
  const auto last = runner.forward(ragged, LogitRows::last_of_each_segment);
  const auto vocab = static_cast<std::ptrdiff_t>(runner.model.spec().vocab_size);
  EXPECT_TRUE(std::equal(last.begin(), last.begin() + vocab, first.end() - vocab));
  EXPECT_TRUE(std::equal(last.begin() + vocab, last.end(), second.end() - vocab));
}

TEST_P(Consistency, ThreadsAndIsasGiveTheSameBits) {
  const Outcome reference = run({Isa::scalar, Numerics::consistent, Activations::fp32}, 1);
  for (const Isa isa : available_isas()) {
    for (const int threads : {1, 2, 3}) {
      if (threads == 2 && isa != detect_isa()) continue;
      const Outcome other = run({isa, Numerics::consistent, Activations::fp32}, threads);
      EXPECT_TRUE(other == reference) << isa_name(isa) << ", " << threads << " threads, max abs difference "
                                      << max_abs_difference(other.logits, reference.logits);
    }
    EXPECT_TRUE(run({isa, Numerics::consistent, Activations::fp32}, 2, 7) == reference) << isa_name(isa) << ", chunks";
  }
}

TEST_P(Consistency, FastStaysNear) {
  const Outcome reference = run({detect_isa(), Numerics::consistent, Activations::fp32}, 1);
  const Outcome fast = run({detect_isa(), Numerics::fast, Activations::fp32}, 2);
  EXPECT_LE(max_abs_difference(fast.logits, reference.logits), 1e-3);
}

TEST_P(Consistency, ProbesChangeNothing) {
  Runner runner(checkpoint, {detect_isa(), Numerics::consistent, Activations::fp32}, 2);
  Recorder recorder;
  EXPECT_EQ(runner.sequence(row(0)), runner.sequence(row(0), &recorder));
}

TEST_P(Consistency, QuantizedWeightsWithEitherActivations) {
  const ModelSpec spec = spec_for_groups(GetParam());
  for (const char* scheme : {"w4a16-g32-asym", "w8a16-channel"}) {
    for (const Activations activations : {Activations::fp32, Activations::int8}) {
      Outcome reference;
      for (const Isa isa : available_isas()) {
        for (const int threads : {1, 3}) {
          ThreadPool pool(threads);
          Runner runner(DecoderModel::random(spec, scheme, 5, {isa, Numerics::consistent, activations}, pool), threads);
          Recorder recorder;
          auto logits = runner.sequence(row(0), &recorder, threads == 3 ? 7 : 0);
          const Outcome other = outcome(recorder, std::move(logits));
          if (reference.logits.empty()) reference = other;
          EXPECT_TRUE(other == reference)
              << scheme << ' ' << activations_name(activations) << ' ' << isa_name(isa) << ' ' << threads << " threads "
              << max_abs_difference(other.logits, reference.logits);
        }
      }
      for (const float x : reference.logits) ASSERT_TRUE(std::isfinite(x));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Consistency, ::testing::Values("olmoe", "qwen3_moe", "mixtral", "deepseek_v3"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace kedge
