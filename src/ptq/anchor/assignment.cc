#include "ptq/anchor/assignment.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace kedge {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Costs are negated gains; prices are those of the costs while solving.
class Solver {
 public:
  Solver(std::span<const float> gain, std::int64_t n)
      : gain_(gain), n_(n), u_(at(n), 0), v_(at(n), 0), row_of_(at(n), -1), column_of_(at(n), -1) {}

  Assignment run() {
    take_least_columns();
    for (std::int64_t i = 0; i < n_; ++i) {
      if (column_of_[at(i)] < 0) augment(i);
    }
    Assignment out;
    out.column_of.assign(column_of_.begin(), column_of_.end());
    for (const double u : u_) out.row_price.push_back(-u);
    for (const double v : v_) out.column_price.push_back(-v);
    return out;
  }

 private:
  double cost(std::int64_t i, std::int64_t j) const { return -static_cast<double>(gain_[at(i * n_ + j)]); }

  /// Column reduction, then each row its cheapest column where that is free.
  void take_least_columns() {
    for (std::int64_t j = 0; j < n_; ++j) {
      double least = cost(0, j);
      for (std::int64_t i = 1; i < n_; ++i) least = std::min(least, cost(i, j));
      v_[at(j)] = least;
    }
    for (std::int64_t i = 0; i < n_; ++i) {
      std::int64_t best = 0;
      for (std::int64_t j = 1; j < n_; ++j) {
        if (cost(i, j) - v_[at(j)] < cost(i, best) - v_[at(best)]) best = j;
      }
      u_[at(i)] = cost(i, best) - v_[at(best)];
      if (row_of_[at(best)] >= 0) continue;
      row_of_[at(best)] = i;
      column_of_[at(i)] = best;
    }
  }

  /// Dijkstra over reduced costs from one free row to the nearest free column.
  void augment(std::int64_t start) {
    constexpr double kFar = std::numeric_limits<double>::infinity();
    std::vector<double> distance(at(n_), kFar);
    std::vector<std::int64_t> from(at(n_), -1);
    std::vector<bool> done(at(n_), false);
    std::vector<std::int64_t> scanned;
    std::int64_t row = start, end = -1;
    double reached = 0;
    while (end < 0) {
      std::int64_t nearest = -1;
      for (std::int64_t j = 0; j < n_; ++j) {
        if (done[at(j)]) continue;
        const double through = reached + (cost(row, j) - u_[at(row)] - v_[at(j)]);
        if (through < distance[at(j)]) {
          distance[at(j)] = through;
          from[at(j)] = row;
        }
        if (nearest < 0 || distance[at(j)] < distance[at(nearest)]) nearest = j;
      }
      KEDGE_CHECK(nearest >= 0);
      reached = distance[at(nearest)];
      done[at(nearest)] = true;
      scanned.push_back(nearest);
      if (row_of_[at(nearest)] < 0) {
        end = nearest;
      } else {
        row = row_of_[at(nearest)];
      }
    }
    u_[at(start)] += reached;
    for (const std::int64_t j : scanned) {
      if (j == end) continue;
      v_[at(j)] -= reached - distance[at(j)];
      u_[at(row_of_[at(j)])] += reached - distance[at(j)];
    }
    for (std::int64_t j = end;;) {
      const std::int64_t i = from[at(j)], next = column_of_[at(i)];
      row_of_[at(j)] = i;
      column_of_[at(i)] = j;
      if (i == start) break;
      j = next;
    }
  }

  std::span<const float> gain_;
  std::int64_t n_;
  std::vector<double> u_, v_;
  std::vector<std::int64_t> row_of_, column_of_;
};

}  // namespace

Assignment solve_assignment(std::span<const float> gain, std::int64_t n) {
  KEDGE_CHECK(n > 0 && static_cast<std::int64_t>(gain.size()) == n * n);
  return Solver(gain, n).run();
}

}  // namespace kedge
