// Manifolds on which the rows of a matrix lie, and the retractions onto them: W = R(M), M [rows, cols].
//
//   none           W = M
//   sphere         w_i = t_i m_i / ||m_i||            t_i = 1, or a stored target norm
//   stiefel_polar  W = (M M^T)^(-1/2) M               orthonormal rows, the nearest such matrix to M
//   stiefel_qr     W = L^(-1) M, M M^T = L L^T        orthonormal rows by Gram-Schmidt in row order, L's diagonal > 0
//
// Computed in double by plain loops in a fixed order and rounded once to fp32: the same bits everywhere. The polar
// factor comes from the eigenvectors of M M^T (cyclic Jacobi) and one Newton-Schulz step.
// Source: Absil, Mahony, Sepulchre, Optimization Algorithms on Matrix Manifolds (2008), section 4.1.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kedge {

enum class Manifold : std::uint8_t { none, sphere, stiefel_polar, stiefel_qr };

const char* manifold_name(Manifold manifold) noexcept;  ///< "none", "sphere", "stiefel-polar", "stiefel-qr"
Manifold parse_manifold(std::string_view name);         ///< Error(usage)
bool is_stiefel(Manifold manifold) noexcept;

/// Norms of the rows of w [rows, cols], summed in double, rounded once.
void row_norms(std::span<const float> w, std::int64_t rows, std::int64_t cols, std::span<float> norms) noexcept;

/// s with w_i = s_i m_i on the sphere: t_i / ||m_i||, the norm in double. target_norm: [rows], or empty (1).
/// Error(bad_file) names `where` and the first row without a direction (zero or not finite).
void sphere_row_scales(std::span<const float> m, std::int64_t rows, std::int64_t cols,
                       std::span<const float> target_norm, const std::string& where, std::span<float> scales);

/// In place, rows <= cols for the Stiefel manifolds. Error(bad_file) as above; for the Stiefel manifolds also where
/// rows are linearly dependent.
void retract(Manifold manifold, std::int64_t rows, std::int64_t cols, const std::string& where, std::span<float> w);

/// Largest |w_i . w_j - (i == j)| over the rows, in double.
double orthonormality_error(std::span<const float> w, std::int64_t rows, std::int64_t cols) noexcept;

}  // namespace kedge
