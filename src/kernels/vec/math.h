// Elementary functions in double by plain IEEE operations: no libm, so the same bits on every machine.
// Errors are of the order of 1e-15 relative (sin and cos: absolute), far below one fp32 ulp after rounding.
#pragma once

namespace kedge::math {

double exp(double x) noexcept;             ///< 0 below -745.2, inf above 709.8
double log(double x) noexcept;             ///< -inf at 0, NaN below
double sin(double x) noexcept;             ///< |x| <= 1e8; NaN beyond and for infinities
double cos(double x) noexcept;
double pow(double x, double y) noexcept;   ///< x > 0; exact for y = 0 and y = 1; NaN for x <= 0

}  // namespace kedge::math
