#include "eval/answer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"
#include "eval/metrics.h"
#include "generate/template/text.h"

namespace kedge {
namespace {

// exp of the values over their temperature, relative to the greatest, summing to 1.
std::vector<double> normalised(std::span<const double> logs, double temperature) {
  std::vector<double> out(logs.begin(), logs.end());
  const double greatest = *std::max_element(out.begin(), out.end());
  double sum = 0;
  for (double& value : out) sum += value = std::exp((value - greatest) / temperature);
  for (double& value : out) value /= sum;
  return out;
}

std::size_t draw(std::span<const double> probabilities, Rng& rng) {
  double left = rng.uniform();
  for (std::size_t i = 0; i + 1 < probabilities.size(); ++i) {
    left -= probabilities[i];
    if (left < 0) return i;
  }
  return probabilities.size() - 1;
}

// One answer: the choices still in question are narrowed down token by token.
class Sampling {
 public:
  Sampling(std::span<const RequestScore> scores, std::span<const std::vector<std::int32_t>> continuations,
           double temperature)
      : scores_(scores), continuations_(continuations), temperature_(temperature) {}

  std::size_t run(Rng& rng) const {
    std::vector<std::size_t> open(scores_.size());
    std::iota(open.begin(), open.end(), std::size_t{0});
    for (std::size_t position = 0; open.size() > 1; ++position) {
      if (std::any_of(open.begin(), open.end(), [&](std::size_t i) { return continuations_[i].size() <= position; })) {
        return by_whole(open, rng);
      }
      open = step(open, position, rng);
    }
    return open.front();
  }

 private:
  std::size_t by_whole(const std::vector<std::size_t>& open, Rng& rng) const {
    std::vector<double> logs;
    for (const std::size_t i : open) logs.push_back(scores_[i].loglikelihood);
    return open[draw(normalised(logs, temperature_), rng)];
  }

  std::vector<std::size_t> step(const std::vector<std::size_t>& open, std::size_t position, Rng& rng) const {
    std::vector<std::int32_t> tokens;
    std::vector<double> logs;
    for (const std::size_t i : open) {
      const std::int32_t token = continuations_[i][position];
      if (std::find(tokens.begin(), tokens.end(), token) != tokens.end()) continue;
      tokens.push_back(token);
      logs.push_back(scores_[i].token_logprobs[position]);
    }
    const std::int32_t token = tokens.size() == 1 ? tokens.front() : tokens[draw(normalised(logs, temperature_), rng)];
    std::vector<std::size_t> left;
    for (const std::size_t i : open) {
      if (continuations_[i][position] == token) left.push_back(i);
    }
    return left;
  }

  std::span<const RequestScore> scores_;
  std::span<const std::vector<std::int32_t>> continuations_;
  double temperature_;
};

Answer answer_of(std::vector<double> probabilities) {
  Answer out;
  out.choice = first_greatest(probabilities);
  out.confidence = probabilities[out.choice];
  out.probabilities = std::move(probabilities);
  return out;
}

}  // namespace

Answer answer_by_likelihood(std::span<const RequestScore> scores, std::span<const std::string> choices) {
  KEDGE_CHECK(scores.size() == choices.size() && !scores.empty());
  std::vector<double> logs;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    logs.push_back(scores[i].loglikelihood / static_cast<double>(jinja::count_code_points(choices[i])));
  }
  return answer_of(normalised(logs, 1));
}

Answer answer_by_votes(std::span<const RequestScore> scores, std::span<const std::vector<std::int32_t>> continuations,
                       const VoteOptions& options, std::uint64_t record) {
  KEDGE_CHECK(scores.size() == continuations.size() && !scores.empty() && options.votes > 0 && options.temperature > 0);
  // Neighbouring seeds and records start far apart: both go through the generator's own mixing.
  Rng rng(Rng(options.seed).next() ^ (record * 0x9E3779B97F4A7C15u));
  const Sampling sampling(scores, continuations, options.temperature);
  std::vector<double> shares(scores.size(), 0.0);
  for (std::int64_t v = 0; v < options.votes; ++v) shares[sampling.run(rng)] += 1;
  for (double& share : shares) share /= static_cast<double>(options.votes);
  return answer_of(std::move(shares));
}

}  // namespace kedge
