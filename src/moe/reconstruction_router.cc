#include "moe/reconstruction_router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kedge/error.h"
#include "kernels/reduce/reduce.h"
#include "kernels/swiglu/activation.h"

namespace kedge {
namespace {

constexpr double kOrthonormal = 1e-5;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

LoadOptions exact_options(LoadOptions options) {
  options.numerics = Numerics::consistent;
  options.activations = Activations::fp32;
  return options;
}

/// U_e U_e^T in double, rounded once.
std::vector<float> gram_of(const float* u, std::int64_t r, std::int64_t d) {
  std::vector<float> g(index(r * r));
  for (std::int64_t i = 0; i < r; ++i) {
    for (std::int64_t j = i; j < r; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < d; ++k) sum += static_cast<double>(u[i * d + k]) * u[j * d + k];
      g[index(i * r + j)] = g[index(j * r + i)] = static_cast<float>(sum);
    }
  }
  return g;
}

float normalized(const ErrorRouterSpec& spec, float error, float xx) noexcept {
  if (error < 0) error = 0;
  switch (spec.normalization) {
    case ErrorNormalization::none: return error;
    case ErrorNormalization::width: return error / static_cast<float>(spec.hidden_size);
    case ErrorNormalization::input: return error / std::max(xx, std::numeric_limits<float>::min());
  }
  return error;
}

float cosine_error(float dot, float xx, float yy) noexcept {
  const float norms = std::sqrt(xx) * std::sqrt(yy < 0 ? 0.0f : yy);
  const float error = norms == 0 ? 1.0f : 1.0f - dot / norms;
  return error < 0 ? 0.0f : error;
}

void check_orthonormal(const std::vector<float>& encoders, const ErrorRouterSpec& spec) {
  const std::int64_t r = spec.bottleneck, d = spec.hidden_size;
  for (std::int64_t e = 0; e < spec.num_experts; ++e) {
    const double error = orthonormality_error(std::span(encoders).subspan(index(e * r * d), index(r * d)), r, d);
    if (error <= kOrthonormal) continue;
    throw Error(ErrorCode::mismatch,
                "encoder " + std::to_string(e) + ": the rows are " + std::to_string(error) + " from orthonormal",
                "orthonormal rows, as the router's spec says", "retract the weights or load them without the claim");
  }
}

}  // namespace

const char* error_path_name(ErrorPath path) noexcept {
  switch (path) {
    case ErrorPath::gram: return "gram";
    case ErrorPath::stiefel: return "stiefel";
    case ErrorPath::direct: return "direct";
    case ErrorPath::linear: return "linear";
  }
  return "?";
}

ErrorPath error_path(const ErrorRouterSpec& spec) noexcept {
  if (spec.is_learned()) return ErrorPath::linear;
  if (spec.always_direct || !spec.tied || spec.measure == ErrorMeasure::huber) return ErrorPath::direct;
  return spec.orthonormal ? ErrorPath::stiefel : ErrorPath::gram;
}

std::vector<float> transpose_experts(const std::vector<float>& encoders, std::int64_t experts, std::int64_t r,
                                     std::int64_t d) {
  KEDGE_CHECK(static_cast<std::int64_t>(encoders.size()) == experts * r * d);
  std::vector<float> out(encoders.size());
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t i = 0; i < r; ++i) {
      for (std::int64_t k = 0; k < d; ++k) out[index((e * d + k) * r + i)] = encoders[index((e * r + i) * d + k)];
    }
  }
  return out;
}

ReconstructionRouter ReconstructionRouter::load(const ErrorRouterSpec& spec, const ExpertMatrices& encoders,
                                                const ExpertMatrices& decoders, AnchorForm form,
                                                const LoadOptions& options) {
  check_error_router(spec);
  const std::int64_t experts = spec.num_experts, r = spec.bottleneck, d = spec.hidden_size;
  if (spec.tied != decoders.empty()) {
    throw Error(ErrorCode::mismatch,
                spec.tied ? "tied decoders that have weights of their own" : "there are no decoders",
                "decoders exactly where the spec is not tied");
  }
  const LoadOptions exact = exact_options(options);
  ReconstructionRouter router;
  router.spec_ = spec;
  router.isa_ = options.isa;
  router.path_ = error_path(spec);
  router.encoders_ = PackedExpertMatrices(encoders, experts, r, d, true, form, exact, "encoders");
  if (!spec.tied) router.decoders_ = PackedExpertMatrices(decoders, experts, d, r, false, form, exact, "decoders");
  if (!spec.tied && !spec.orthonormal) return router;

  const std::vector<float> plain = decode_experts(encoders, experts, r, d, "encoders");
  if (spec.orthonormal) check_orthonormal(plain, spec);
  if (spec.tied && router.path_ == ErrorPath::direct) {
    const std::vector<float> transposed = transpose_experts(plain, experts, r, d);
    router.decoders_ = PackedExpertMatrices({transposed, nullptr}, experts, d, r, false, form, exact, "decoders");
  }
  for (std::int64_t e = 0; router.path_ == ErrorPath::gram && e < experts; ++e) {
    const std::vector<float> gram = gram_of(plain.data() + e * r * d, r, d);
    router.grams_.push_back(
        pack_weight(TensorView{DType::f32, {r, r}, reinterpret_cast<const std::byte*>(gram.data())}, exact));
  }
  return router;
}

void ReconstructionRouter::errors_from_codes(const ExecContext& ctx, const float* x, std::int64_t tokens,
                                             const float* p, const float* h, float* errors) const {
  const std::int64_t experts = spec_.num_experts, r = spec_.bottleneck, d = spec_.hidden_size, width = experts * r;
  const float* q = h;
  if (path_ == ErrorPath::gram) {
    float* products = ctx.scratch.take<float>(tokens * width);
    for (std::int64_t e = 0; e < experts; ++e) {
      gemm(ctx, h + e * r, width, tokens, grams_[index(e)], products + e * r, width);
    }
    q = products;
  }
  const ReduceKernels& reduce = reduce_kernels(isa_);
  ctx.threads.parallel_for(tokens, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float xx = reduce.dot(x + t * d, x + t * d, d);
      for (std::int64_t e = 0; e < experts; ++e) {
        const std::int64_t at = t * width + e * r;
        errors[t * experts + e] = spec_.measure == ErrorMeasure::cosine
                                      ? cosine_error(reduce.dot(p + at, h + at, r), xx, reduce.dot(h + at, q + at, r))
                                      : normalized(spec_, xx + reduce.dot_minus_twice(h + at, q + at, p + at, r), xx);
      }
    }
  });
}

void ReconstructionRouter::errors_from_reconstructions(const ExecContext& ctx, const float* x, std::int64_t tokens,
                                                       const float* h, float* errors) const {
  const std::int64_t experts = spec_.num_experts, r = spec_.bottleneck, d = spec_.hidden_size;
  float* y = ctx.scratch.take<float>(tokens * d);
  const ReduceKernels& reduce = reduce_kernels(isa_);
  for (std::int64_t e = 0; e < experts; ++e) {
    anchor_gemm_one(ctx, h + e * r, experts * r, tokens, decoders_, e, y);
    ctx.threads.parallel_for(tokens, 4, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t t = begin; t < end; ++t) {
        const float *a = x + t * d, *b = y + t * d;
        const float xx = reduce.dot(a, a, d);
        float error = 0;
        switch (spec_.measure) {
          case ErrorMeasure::squared: error = normalized(spec_, reduce.squared_distance(a, b, d), xx); break;
          case ErrorMeasure::huber:
            error = normalized(spec_, reduce.huber_distance(a, b, d, spec_.huber_delta), xx);
            break;
          case ErrorMeasure::cosine: error = cosine_error(reduce.dot(a, b, d), xx, reduce.dot(b, b, d)); break;
          case ErrorMeasure::linear: KEDGE_CHECK(!"a learned router reconstructs nothing");
        }
        errors[t * experts + e] = error;
      }
    });
  }
}

ErrorRouting ReconstructionRouter::route(const ExecContext& ctx, const float* x, std::int64_t tokens) const {
  const std::int64_t experts = spec_.num_experts, slots = spec_.slots(), width = experts * spec_.bottleneck;
  float* errors = ctx.scratch.take<float>(tokens * experts);
  float* weights = ctx.scratch.take<float>(tokens * slots);
  std::int32_t* ids = ctx.scratch.take<std::int32_t>(tokens * slots);
  float* p = ctx.scratch.take<float>(tokens * width);
  float* h = spec_.activation ? ctx.scratch.take<float>(tokens * width) : p;
  ArenaScope scope(ctx.scratch);
  anchor_gemm_all(ctx, x, tokens, encoders_, p);
  if (spec_.activation) activation(ctx, *spec_.activation, p, width, tokens, width, h, width, isa_);
  if (path_ == ErrorPath::direct) {
    errors_from_reconstructions(ctx, x, tokens, h, errors);
  } else if (path_ == ErrorPath::linear) {
    for (std::int64_t i = 0; i < tokens * experts; ++i) errors[i] = -p[i];
  } else {
    errors_from_codes(ctx, x, tokens, p, h, errors);
  }
  ctx.threads.parallel_for(tokens, 16, [&](std::int64_t begin, std::int64_t end, int) {
    select_by_error(spec_, errors + begin * experts, end - begin, ids + begin * slots, weights + begin * slots, isa_);
  });
  return {h, errors, ids, weights};
}

std::int64_t ReconstructionRouter::multiply_adds() const noexcept {
  const std::int64_t experts = spec_.num_experts, r = spec_.bottleneck, d = spec_.hidden_size;
  std::int64_t count = (experts + (encoders_.form() == AnchorForm::split ? 1 : 0)) * r * d;
  if (path_ == ErrorPath::gram) count += experts * r * r;
  if (path_ == ErrorPath::direct) count += experts * (decoders_.form() == AnchorForm::split ? 2 : 1) * r * d;
  return count;
}

std::size_t ReconstructionRouter::num_bytes() const noexcept {
  std::size_t bytes = encoders_.num_bytes() + decoders_.num_bytes();
  for (const PackedWeight& gram : grams_) bytes += gram.num_bytes();
  return bytes;
}

std::string ReconstructionRouter::explain() const {
  std::string text = "errors: " + std::string(error_path_name(path_));
  if (path_ == ErrorPath::direct) {
    text += spec_.always_direct                    ? " (asked for)"
            : spec_.measure == ErrorMeasure::huber ? " (huber has no cheaper form)"
                                                   : " (untied decoders: the Gram form would save nothing)";
  }
  return text + ", encoders: " + anchor_form_name(encoders_.form()) + ", " + std::to_string(multiply_adds()) +
         " multiply-adds per token\n";
}

}  // namespace kedge
