#include "quant/manifold.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// A row is dependent on the rows before it where Gram-Schmidt leaves less of it than this: below it, fp32 input carries
// no direction. The same bound, squared, holds for the eigenvalues of M M^T.
constexpr double kDependent = 1e-6;
constexpr int kMaxSweeps = 60;  ///< Jacobi needs about ten

struct Row {
  Manifold manifold;
  const char* name;
};
constexpr Row kRows[] = {
    {Manifold::none, "none"},
    {Manifold::sphere, "sphere"},
    {Manifold::stiefel_polar, "stiefel-polar"},
    {Manifold::stiefel_qr, "stiefel-qr"},
};

double dot(const double* a, const double* b, std::int64_t count) noexcept {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

double norm(const float* row, std::int64_t cols) noexcept {
  double sum = 0;
  for (std::int64_t k = 0; k < cols; ++k) sum += static_cast<double>(row[k]) * row[k];
  return std::sqrt(sum);
}

[[noreturn]] void fail_row(const std::string& where, std::int64_t row, const char* what) {
  throw Error(ErrorCode::bad_file, where + ": row " + std::to_string(row) + " " + what,
              "rows that have a direction of their own, before they are put on a manifold",
              "check the weights, or use the manifold none");
}

void gram_schmidt(std::int64_t rows, std::int64_t cols, const std::string& where, std::vector<double>& w) {
  for (std::int64_t i = 0; i < rows; ++i) {
    double* row = w.data() + i * cols;
    const double before = std::sqrt(dot(row, row, cols));
    if (!(before > 0) || !std::isfinite(before)) fail_row(where, i, "is zero or not finite");
    for (int pass = 0; pass < 2; ++pass) {  // once more takes out what rounding of the first pass left
      for (std::int64_t j = 0; j < i; ++j) {
        const double* other = w.data() + j * cols;
        const double along = dot(other, row, cols);
        for (std::int64_t k = 0; k < cols; ++k) row[k] -= along * other[k];
      }
    }
    const double after = std::sqrt(dot(row, row, cols));
    if (!(after > kDependent * before)) fail_row(where, i, "depends linearly on the rows before it");
    for (std::int64_t k = 0; k < cols; ++k) row[k] /= after;
  }
}

/// a [n, n] symmetric -> its eigenvalues on the diagonal; v: eigenvectors in columns.
void jacobi(std::int64_t n, std::vector<double>& a, std::vector<double>& v) {
  v.assign(static_cast<std::size_t>(n * n), 0);
  for (std::int64_t i = 0; i < n; ++i) v[static_cast<std::size_t>(i * n + i)] = 1;
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    bool rotated = false;
    for (std::int64_t p = 0; p < n; ++p) {
      for (std::int64_t q = p + 1; q < n; ++q) {
        double* ap = a.data() + p * n;
        double* aq = a.data() + q * n;
        if (std::fabs(ap[q]) <= 1e-16 * std::sqrt(std::fabs(ap[p] * aq[q]))) continue;
        rotated = true;
        const double theta = (aq[q] - ap[p]) / (2 * ap[q]);
        const double t = (theta >= 0 ? 1.0 : -1.0) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (std::int64_t k = 0; k < n; ++k) {
          const double x = ap[k], y = aq[k];
          ap[k] = c * x - s * y;
          aq[k] = s * x + c * y;
        }
        for (std::vector<double>* m : {&a, &v}) {
          for (std::int64_t k = 0; k < n; ++k) {
            double* row = m->data() + k * n;
            const double x = row[p], y = row[q];
            row[p] = c * x - s * y;
            row[q] = s * x + c * y;
          }
        }
      }
    }
    if (!rotated) return;
  }
}

/// out = s w for s [rows, rows].
std::vector<double> multiply(const std::vector<double>& s, const std::vector<double>& w, std::int64_t rows,
                             std::int64_t cols) {
  std::vector<double> out(w.size(), 0);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < rows; ++j) {
      const double factor = s[static_cast<std::size_t>(i * rows + j)];
      const double* source = w.data() + j * cols;
      double* to = out.data() + i * cols;
      for (std::int64_t k = 0; k < cols; ++k) to[k] += factor * source[k];
    }
  }
  return out;
}

std::vector<double> gram(const std::vector<double>& w, std::int64_t rows, std::int64_t cols) {
  std::vector<double> g(static_cast<std::size_t>(rows * rows));
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = i; j < rows; ++j) {
      const double value = dot(w.data() + i * cols, w.data() + j * cols, cols);
      g[static_cast<std::size_t>(i * rows + j)] = g[static_cast<std::size_t>(j * rows + i)] = value;
    }
  }
  return g;
}

void polar(std::int64_t rows, std::int64_t cols, const std::string& where, std::vector<double>& w) {
  const auto at = [rows](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * rows + j); };
  for (std::int64_t i = 0; i < rows; ++i) {
    const double square = dot(w.data() + i * cols, w.data() + i * cols, cols);
    if (!(square > 0) || !std::isfinite(square)) fail_row(where, i, "is zero or not finite");
  }
  std::vector<double> g = gram(w, rows, cols), v, root(static_cast<std::size_t>(rows * rows), 0);
  jacobi(rows, g, v);
  double largest = 0;
  for (std::int64_t i = 0; i < rows; ++i) largest = std::max(largest, g[at(i, i)]);
  for (std::int64_t l = 0; l < rows; ++l) {
    const double value = g[at(l, l)];
    if (!(value > kDependent * kDependent * largest)) {
      throw Error(ErrorCode::bad_file, where + ": the rows are linearly dependent",
                  "rows that have directions of their own, before they are put on a manifold",
                  "check the weights, or use the manifold sphere");
    }
    const double inverse = 1 / std::sqrt(value);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < rows; ++j) root[at(i, j)] += v[at(i, l)] * inverse * v[at(j, l)];
    }
  }
  w = multiply(root, w, rows, cols);
  // Newton-Schulz: W <- (3 I - W W^T) W / 2 squares what the eigenvectors left of the error.
  std::vector<double> step = gram(w, rows, cols);
  for (double& value : step) value *= -0.5;
  for (std::int64_t i = 0; i < rows; ++i) step[at(i, i)] += 1.5;
  w = multiply(step, w, rows, cols);
}

}  // namespace

const char* manifold_name(Manifold manifold) noexcept {
  for (const Row& row : kRows) {
    if (row.manifold == manifold) return row.name;
  }
  return "?";
}

Manifold parse_manifold(std::string_view name) {
  for (const Row& row : kRows) {
    if (name == row.name) return row.manifold;
  }
  throw Error(ErrorCode::usage, "\"" + std::string(name.substr(0, 80)) + "\" is no manifold",
              "none, sphere, stiefel-polar or stiefel-qr");
}

bool is_stiefel(Manifold manifold) noexcept {
  return manifold == Manifold::stiefel_polar || manifold == Manifold::stiefel_qr;
}

void row_norms(std::span<const float> w, std::int64_t rows, std::int64_t cols, std::span<float> norms) noexcept {
  for (std::int64_t i = 0; i < rows; ++i) {
    norms[static_cast<std::size_t>(i)] = static_cast<float>(norm(w.data() + i * cols, cols));
  }
}

void sphere_row_scales(std::span<const float> m, std::int64_t rows, std::int64_t cols,
                       std::span<const float> target_norm, const std::string& where, std::span<float> scales) {
  KEDGE_CHECK(static_cast<std::int64_t>(m.size()) == rows * cols);
  KEDGE_CHECK(static_cast<std::int64_t>(scales.size()) == rows &&
              (target_norm.empty() || target_norm.size() == scales.size()));
  for (std::int64_t i = 0; i < rows; ++i) {
    const double length = norm(m.data() + i * cols, cols);
    const double target = target_norm.empty() ? 1.0 : target_norm[static_cast<std::size_t>(i)];
    const float scale = static_cast<float>(target / length);
    if (!(length > 0) || !std::isfinite(length) || !std::isfinite(scale)) fail_row(where, i, "is zero or not finite");
    scales[static_cast<std::size_t>(i)] = scale;
  }
}

void retract(Manifold manifold, std::int64_t rows, std::int64_t cols, const std::string& where, std::span<float> w) {
  KEDGE_CHECK(static_cast<std::int64_t>(w.size()) == rows * cols);
  if (manifold == Manifold::none) return;
  if (manifold == Manifold::sphere) {
    std::vector<float> scales(static_cast<std::size_t>(rows));
    sphere_row_scales(w, rows, cols, {}, where, scales);
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      w[static_cast<std::size_t>(i)] *= scales[static_cast<std::size_t>(i / cols)];
    }
    return;
  }
  KEDGE_CHECK(rows <= cols);
  std::vector<double> wide(w.begin(), w.end());
  if (manifold == Manifold::stiefel_qr) {
    gram_schmidt(rows, cols, where, wide);
  } else {
    polar(rows, cols, where, wide);
  }
  std::transform(wide.begin(), wide.end(), w.begin(), [](double value) { return static_cast<float>(value); });
}

double orthonormality_error(std::span<const float> w, std::int64_t rows, std::int64_t cols) noexcept {
  double worst = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = i; j < rows; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < cols; ++k) {
        sum +=
            static_cast<double>(w[static_cast<std::size_t>(i * cols + k)]) * w[static_cast<std::size_t>(j * cols + k)];
      }
      const double error = std::fabs(sum - (i == j ? 1.0 : 0.0));
      worst = error > worst || error != error ? error : worst;
    }
  }
  return worst;
}

}  // namespace kedge
