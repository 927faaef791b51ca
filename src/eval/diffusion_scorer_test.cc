#include "eval/diffusion_scorer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "generate/score.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using Tokens = std::vector<std::int32_t>;

constexpr std::int32_t kMask = 4095;

// The bundled model, with its weights, as a masked-diffusion model. deaf: attention adds nothing, so that a masked token
// is predicted from its mask alone.
class Model {
 public:
  explicit Model(bool deaf) : folder_(fs::temp_directory_path() / ("kedge-diffusion-" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::copy(fs::path(KEDGE_SOURCE_DIR) / "models/demo-4m", folder_);
    Json config = read_json(folder_ / "config.json");
    config["mask_token_id"] = kMask;
    write_file_atomically(folder_ / "config.json", config.dump());
    if (deaf) silence_attention();
  }
  ~Model() { fs::remove_all(folder_); }
  LoadedModel load(ThreadPool& threads, const std::string& isa = "auto") const {
    return load_model(folder_, make_load_options({.threads = 1, .isa = isa}), threads);
  }

 private:
  void silence_attention() {
    const fs::path path = folder_ / "model.safetensors";
    std::string file = read_file(path);
    std::uint64_t size = 0;
    std::memcpy(&size, file.data(), sizeof size);
    const Json header = parse_json(std::string_view(file).substr(8, size), "the header");
    int silenced = 0;
    for (const auto& [name, tensor] : header.items()) {
      if (name.find("o_proj") == std::string::npos) continue;
      const auto begin = tensor["data_offsets"][0].get<std::size_t>(), end = tensor["data_offsets"][1].get<std::size_t>();
      std::fill_n(file.begin() + static_cast<std::ptrdiff_t>(8 + size + begin), end - begin, '\0');
      ++silenced;
    }
    ASSERT_GT(silenced, 0);
    write_file_atomically(path, file);
  }
  fs::path folder_;
};

Tokens random_tokens(Rng& rng, std::int64_t count) {
  Tokens out;
  for (std::int64_t i = 0; i < count; ++i) out.push_back(static_cast<std::int32_t>(1 + rng.below(4000)));
  return out;
}

std::vector<RequestScore> scores_of(const LoadedModel& model, const std::vector<ScoreRequest>& requests,
                                    std::int64_t samples = 128, std::uint64_t seed = 0) {
  DiffusionScorer scorer(model, samples, seed);
  std::vector<RequestScore> out(requests.size());
  scorer.score(requests, [&](std::size_t i, const RequestScore& score) { out[i] = score; }, [] {});
  return out;
}

// Each request alone, and after longer and shorter ones.
TEST(DiffusionScorer, LengthsInAnyOrder) {
  const Model files(/*deaf=*/true);
  ThreadPool threads(2);
  const LoadedModel model = files.load(threads);
  Rng rng(12);
  std::vector<ScoreRequest> requests;
  for (const std::int64_t length : {150, 60, 80, 20, 150}) {
    requests.push_back({random_tokens(rng, length - 4), random_tokens(rng, 4)});
  }
  const std::vector<RequestScore> together = scores_of(model, requests, 24);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].loglikelihood, scores_of(model, {requests[i]}, 24)[0].loglikelihood) << i;
  }
}

TEST(DiffusionScorer, BoundIsTheLikelihoodWhereContextSaysNothing) {
  const Model files(/*deaf=*/true);
  ThreadPool threads(2);
  const LoadedModel model = files.load(threads);
  Rng rng(11);
  const Tokens context = random_tokens(rng, 6), answer = random_tokens(rng, 7);
  std::vector<ScoreRequest> requests = {{context, answer}, {context, Tokens(5, answer[0])}};
  for (const std::int32_t token : answer) requests.push_back({random_tokens(rng, 3), {token}});
  const std::vector<RequestScore> scores = scores_of(model, requests);
  double exact = 0;
  for (std::size_t i = 0; i < answer.size(); ++i) {
    exact += scores[2 + i].loglikelihood;
    EXPECT_EQ(scores[2 + i].standard_error, 0.0);  // one mask, nothing to draw
  }
  EXPECT_GT(scores[0].standard_error, 0.0);
  EXPECT_NEAR(scores[0].loglikelihood, exact, 5 * scores[0].standard_error);
  // Equal tokens: each sample is exact.
  EXPECT_NEAR(scores[1].loglikelihood, 5 * scores[2].loglikelihood, 1e-4);
  EXPECT_LT(scores[1].standard_error, 1e-5);
  // More samples, a smaller error.
  const RequestScore more = scores_of(model, {requests[0]}, 512)[0];
  EXPECT_LT(more.standard_error, 0.7 * scores[0].standard_error);
  EXPECT_NEAR(more.loglikelihood, exact, 5 * more.standard_error);
}

TEST(DiffusionScorer, OneTokenIsTheRowOfItsMask) {
  const Model files(/*deaf=*/false);
  ThreadPool threads(2);
  const LoadedModel model = files.load(threads);
  Rng rng(5);
  const Tokens context = random_tokens(rng, 9);
  Tokens whole = context;
  whole.push_back(kMask);
  SequenceState state(model.model.spec(), static_cast<std::int64_t>(whole.size()));
  Arena scratch;
  std::vector<float> logits(whole.size() * 4096);
  const Segment segment{&state, whole};
  model.model.forward({threads, scratch, nullptr}, {&segment, 1}, LogitRows::all, logits.data());
  const std::span<const float> row = std::span(logits).last(4096);
  const std::int32_t best = argmax(row), other = best == 7 ? 8 : 7;
  const auto scores = scores_of(model, {{context, {best}}, {context, {other}}});
  EXPECT_TRUE(scores[0].is_greedy);
  EXPECT_FALSE(scores[1].is_greedy);
  EXPECT_EQ(scores[0].loglikelihood, -negative_log_likelihood(row, best, model.model.options().isa));
  EXPECT_EQ(scores[1].loglikelihood, -negative_log_likelihood(row, other, model.model.options().isa));
}

TEST(DiffusionScorer, OrderThreadsAndIsaChangeNothing) {
  const Model files(/*deaf=*/false);
  Rng rng(8);
  std::vector<ScoreRequest> requests;
  for (int i = 0; i < 4; ++i) requests.push_back({random_tokens(rng, 2 + 5 * i), random_tokens(rng, 1 + 2 * i)});
  std::vector<RequestScore> first;
  for (const Isa isa : available_isas()) {
    for (const int count : {1, 3}) {
      ThreadPool threads(count);
      const LoadedModel model = files.load(threads, isa_name(isa));
      std::vector<ScoreRequest> reversed(requests.rbegin(), requests.rend());
      std::vector<RequestScore> scores = scores_of(model, count == 1 ? requests : reversed, 4, 3);
      if (count != 1) std::reverse(scores.begin(), scores.end());
      if (first.empty()) first = scores;
      for (std::size_t i = 0; i < scores.size(); ++i) {
        EXPECT_EQ(scores[i].loglikelihood, first[i].loglikelihood) << isa_name(isa) << ' ' << count << ' ' << i;
      }
    }
  }
  ThreadPool threads(1);
  const LoadedModel model = files.load(threads);
  EXPECT_NE(scores_of(model, requests, 4, 4)[3].loglikelihood, first[3].loglikelihood);  // another seed
}

TEST(DiffusionScorer, LongContextsLoseTheirBeginningAndLongAnswersAreRefused) {
  const Model files(/*deaf=*/false);
  ThreadPool threads(1);
  const LoadedModel model = files.load(threads);
  Rng rng(2);
  const Tokens answer = random_tokens(rng, 2);
  Tokens context = random_tokens(rng, 1022);
  const double whole = scores_of(model, {{context, answer}}, 2)[0].loglikelihood;
  EXPECT_TRUE(std::isfinite(whole));
  EXPECT_THROW(scores_of(model, {{{1}, random_tokens(rng, 1024)}}, 1), Error);
  EXPECT_THROW(Session(model, 8), Error);  // it does not write from left to right
}

}  // namespace
}  // namespace kedge
