#include "eval/scorer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/rng.h"
#include "eval/answer.h"
#include "generate/score.h"
#include "generate/session.h"
#include "kedge/error.h"

namespace kedge {
namespace {

struct Fixture {
  ThreadPool threads{2};
  LoadedModel model = load_model(std::filesystem::path(KEDGE_SOURCE_DIR) / "models/demo-4m",
                                 make_load_options({.threads = 2}), threads);
};

// Token by token, nothing shared.
RequestScore one_by_one(const LoadedModel& model, std::vector<std::int32_t> context,
                        const std::vector<std::int32_t>& continuation) {
  const std::size_t longest = static_cast<std::size_t>(model.model.spec().max_position_embeddings) + 1;
  while (context.size() + continuation.size() > longest) context.erase(context.begin());
  Session session(model, static_cast<std::int64_t>(context.size() + continuation.size()) - 1);
  session.prefill(context);
  RequestScore score{0, true, {}, {}};
  for (std::size_t i = 0; i < continuation.size(); ++i) {
    score.token_logprobs.push_back(
        -negative_log_likelihood(session.logits(), continuation[i], model.model.options().isa));
    score.loglikelihood += score.token_logprobs.back();
    score.is_greedy = score.is_greedy && argmax(session.logits()) == continuation[i];
    if (i + 1 < continuation.size()) session.decode(continuation[i]);
  }
  return score;
}

std::vector<std::int32_t> random_tokens(Rng& rng, std::int64_t count) {
  std::vector<std::int32_t> out;
  for (std::int64_t i = 0; i < count; ++i) out.push_back(static_cast<std::int32_t>(rng.below(4096)));
  return out;
}

TEST(LoglikelihoodScorer, SharingChangesNoBit) {
  const Fixture f;
  Rng rng(3);
  std::vector<ScoreRequest> requests;
  const std::vector<std::int32_t> examples = random_tokens(rng, 30);
  for (int question = 0; question < 9; ++question) {
    std::vector<std::int32_t> context = question % 2 == 0 ? examples : std::vector<std::int32_t>{};
    const std::vector<std::int32_t> own = random_tokens(rng, 1 + question);
    context.insert(context.end(), own.begin(), own.end());
    for (int choice = 0; choice < 4; ++choice) requests.push_back({context, random_tokens(rng, 1 + choice * question)});
    requests.push_back({context, {requests.back().continuation.front()}});
  }
  requests.push_back({random_tokens(rng, 1500), random_tokens(rng, 3)});  // beyond the context of 1024
  requests.push_back({{5}, random_tokens(rng, 1024)});
  // What the model itself would say: greedy.
  Session session(f.model, 8);
  session.prefill(examples.size() > 4 ? std::span(examples).first(4) : std::span(examples));
  requests.push_back({{examples.begin(), examples.begin() + 4}, {argmax(session.logits())}});

  for (const std::size_t memory : {std::size_t{1}, std::size_t{1} << 24}) {  // one lane, and several
    LoglikelihoodScorer scorer(f.model, memory);
    std::vector<RequestScore> scores(requests.size());
    int rounds = 0, done = 0;
    scorer.score(
        requests, [&](std::size_t i, const RequestScore& score) { scores[i] = score, ++done; }, [&] { ++rounds; });
    EXPECT_EQ(done, static_cast<int>(requests.size()));
    EXPECT_GT(rounds, 0);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const RequestScore expected = one_by_one(f.model, requests[i].context, requests[i].continuation);
      EXPECT_EQ(scores[i].loglikelihood, expected.loglikelihood) << i;
      EXPECT_EQ(scores[i].is_greedy, expected.is_greedy) << i;
      EXPECT_EQ(scores[i].token_logprobs, expected.token_logprobs) << i;
    }
    EXPECT_TRUE(scores.back().is_greedy);
    EXPECT_LT(scorer.tokens_computed(), scorer.tokens_asked());
  }
}

TEST(LoglikelihoodScorer, RefusesWhatDoesNotFit) {
  const Fixture f;
  LoglikelihoodScorer scorer(f.model);
  const std::vector<ScoreRequest> requests = {{{1}, std::vector<std::int32_t>(1025, 2)}};
  EXPECT_THROW(scorer.score(requests, [](std::size_t, const RequestScore&) {}, [] {}), Error);
}

RequestScore with_tokens(std::vector<double> logprobs) {
  RequestScore score;
  for (const double value : logprobs) score.loglikelihood += value;
  score.token_logprobs = std::move(logprobs);
  return score;
}

TEST(Answer, ByLikelihoodPerCharacter) {
  const std::vector<RequestScore> scores = {with_tokens({-4}), with_tokens({-6})};
  const Answer answer = answer_by_likelihood(scores, std::vector<std::string>{"ab",
                                                                              "\xC3\xA4"
                                                                              "bcd"});  // 2 and 4 characters
  EXPECT_EQ(answer.choice, 1u);
  EXPECT_NEAR(answer.confidence, 1 / (1 + std::exp(-2 + 1.5)), 1e-12);
  EXPECT_NEAR(answer.probabilities[0] + answer.probabilities[1], 1, 1e-12);
}

TEST(Answer, VotesFollowTheTreeOfTokens) {
  // Choices 7 8, 7 9 and 5: first 7 (p .6) or 5 (.3), then 8 (.1) or 9 (.3). At temperature 1: 2/3 * (1/4, 3/4), 1/3.
  const std::vector<RequestScore> scores = {with_tokens({std::log(.6), std::log(.1)}),
                                            with_tokens({std::log(.6), std::log(.3)}), with_tokens({std::log(.3)})};
  const std::vector<std::vector<std::int32_t>> tokens = {{7, 8}, {7, 9}, {5}};
  const VoteOptions options{.votes = 60000, .temperature = 1, .seed = 5};
  const Answer answer = answer_by_votes(scores, tokens, options, 2);
  EXPECT_EQ(answer.choice, 1u);
  EXPECT_NEAR(answer.probabilities[0], 1.0 / 6, 0.01);
  EXPECT_NEAR(answer.probabilities[1], 1.0 / 2, 0.01);
  EXPECT_NEAR(answer.probabilities[2], 1.0 / 3, 0.01);
  EXPECT_EQ(answer_by_votes(scores, tokens, options, 2).probabilities, answer.probabilities);
  EXPECT_NE(answer_by_votes(scores, tokens, options, 3).probabilities, answer.probabilities);
  // Temperature 1/2 squares each step: 4/5 * (1/10, 9/10), 1/5.
  const Answer cold = answer_by_votes(scores, tokens, {.votes = 60000, .temperature = 0.5, .seed = 5}, 2);
  EXPECT_NEAR(cold.probabilities[1], 0.72, 0.01);
}

TEST(Answer, VotesWhereOneChoiceBeginsAnother) {
  // 7 and 7 8 are told apart by their whole likelihoods, .6 and .06; choices without tokens of their own too.
  const std::vector<RequestScore> scores = {with_tokens({std::log(.6)}), with_tokens({std::log(.6), std::log(.1)})};
  const VoteOptions options{.votes = 60000, .temperature = 1, .seed = 5};
  EXPECT_NEAR(answer_by_votes(scores, std::vector<std::vector<std::int32_t>>{{7}, {7, 8}}, options, 0).confidence,
              10.0 / 11, 0.01);
  EXPECT_NEAR(answer_by_votes(scores, std::vector<std::vector<std::int32_t>>{{}, {}}, options, 0).confidence, 10.0 / 11,
              0.01);
}

}  // namespace
}  // namespace kedge
