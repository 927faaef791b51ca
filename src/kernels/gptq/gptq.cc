#include "kernels/gptq/gptq.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "kernels/gptq/block.h"
#include "kernels/product/product.h"

namespace kedge {
namespace {

constexpr float kRowSearch[] = {1, 0.95f, 0.9f, 0.85f, 0.8f, 0.75f};

/// Scratch of one thread.
struct Scratch {
  float* w;        ///< [cols][kGptqRows]
  float* scales;   ///< [groups][kGptqRows]
  float* zeros;    ///< [groups][kGptqRows]
  float* codes;    ///< [kGptqBlock][kGptqRows]
  float* errors;   ///< the same
  float* targets;  ///< the same
  float* run;      ///< [group]: one row's weights of a group
  float* sum;      ///< [kGptqRows]
  float* product;  ///< [kProductScratch]

  Scratch(Arena& arena, std::int64_t cols, std::int64_t group) {
    const std::int64_t groups = cols / group;
    w = arena.take<float>(cols * kGptqRows);
    scales = arena.take<float>(groups * kGptqRows);
    zeros = arena.take<float>(groups * kGptqRows);
    codes = arena.take<float>(kGptqBlock * kGptqRows);
    errors = arena.take<float>(kGptqBlock * kGptqRows);
    targets = arena.take<float>(kGptqBlock * kGptqRows);
    run = arena.take<float>(group);
    sum = arena.take<float>(kGptqRows);
    product = arena.take<float>(kProductScratch);
  }
};

/// What all panels share.
struct Job {
  const GptqInput& input;
  GptqKernel columns;
  ProductKernel product;
  const std::int32_t* group_of;  ///< [cols] by position
  const float* weights;          ///< [rows, cols]
  QuantTensor& tensor;
  double* row_errors;
};

/// A panel's rows as one round made them.
struct Rounded {
  std::vector<std::uint8_t> codes, zeros;  ///< [rows, cols]; [rows, groups], empty when symmetric
  std::vector<float> scales;               ///< [rows, groups]
  std::vector<float> errors;               ///< [rows] sum e^2
};

/// Ranges to try, as factors.
std::span<const float> ranges_of(const GptqInput& input) noexcept {
  return {kRowSearch, input.search.method == ScaleMethod::row_search ? std::size(kRowSearch) : 1};
}

/// Rows [first, ...) of the tensor become those of `round` that are better, all of them with `anyway`.
void keep_better(const Job& job, std::int64_t first, const Rounded& round, bool anyway) {
  const std::int64_t cols = job.input.cols, groups = job.tensor.groups();
  const auto copy = [first](const auto& from, auto& to, std::int64_t count, std::int64_t row) {
    if (!from.empty()) std::copy_n(from.begin() + row * count, count, to.begin() + (first + row) * count);
  };
  for (std::int64_t r = 0; r < static_cast<std::int64_t>(round.errors.size()); ++r) {
    const auto error = static_cast<double>(round.errors[static_cast<std::size_t>(r)]);
    double& least = job.row_errors[first + r];
    if (!anyway && !(error < least)) continue;
    least = error;
    copy(round.codes, job.tensor.codes, cols, r);
    copy(round.scales, job.tensor.scales, groups, r);
    copy(round.zeros, job.tensor.zeros, groups, r);
  }
}

/// One round of a panel of rows.
class Panel {
 public:
  Panel(const Job& job, std::int64_t first, std::int64_t rows, const Scratch& scratch)
      : job_(job),
        input_(job.input),
        s_(scratch),
        first_(first),
        rows_(rows),
        group_(input_.args.group_for(input_.cols)),
        search_(input_.search) {
    const std::int64_t groups = input_.cols / group_;
    out_.codes.resize(static_cast<std::size_t>(rows * input_.cols));
    out_.scales.resize(static_cast<std::size_t>(rows * groups));
    if (!input_.args.symmetric) out_.zeros.resize(out_.scales.size());
  }

  /// Ranges `factor` times as wide. The reference lives until the next round.
  const Rounded& round(float factor) {
    search_.factor = factor;
    load_weights();
    const std::int64_t groups = input_.cols / group_;
    if (!input_.order.empty()) {
      for (std::int64_t g = 0; g < groups; ++g) find_scales(g, true);
    }
    for (std::int64_t begin = 0; begin < input_.cols;) {
      const std::int64_t end = block_end(begin);
      round_block(begin, end);
      feed_back(begin, end, s_.errors, input_.factor, true);
      if (input_.asymmetric != nullptr) feed_back(begin, end, s_.targets, input_.asymmetric, false);
      store_codes(begin, end);
      begin = end;
    }
    out_.errors.assign(s_.sum, s_.sum + rows_);
    return out_;
  }

 private:
  std::int64_t column(std::int64_t position) const noexcept {
    return input_.order.empty() ? position : input_.order[static_cast<std::size_t>(position)];
  }

  /// Whole groups where they are small, else a part of one group.
  std::int64_t block_end(std::int64_t begin) const noexcept {
    if (!input_.order.empty()) return std::min(input_.cols, begin + kGptqBlock);
    if (group_ <= kGptqBlock) return std::min(input_.cols, begin + kGptqBlock / group_ * group_);
    return std::min(begin + kGptqBlock, (begin / group_ + 1) * group_);
  }

  void load_weights() noexcept {
    constexpr std::int64_t kRun = 16;  // a cache line of a row
    std::fill_n(s_.w, input_.cols * kGptqRows, 0.0f);
    for (std::int64_t begin = 0; begin < input_.cols; begin += kRun) {
      for (std::int64_t r = 0; r < rows_; ++r) {
        const float* source = job_.weights + (first_ + r) * input_.cols;
        for (std::int64_t p = begin; p < std::min(input_.cols, begin + kRun); ++p) {
          s_.w[p * kGptqRows + r] = source[column(p)];
        }
      }
    }
    std::fill_n(s_.scales, input_.cols / group_ * kGptqRows, 1.0f);  // lanes without a row
    std::fill_n(s_.zeros, input_.cols / group_ * kGptqRows, 0.0f);
    std::fill_n(s_.sum, kGptqRows, 0.0f);
  }

  /// Of group g, from the original weights or from those as they stand.
  void find_scales(std::int64_t g, bool original) noexcept {
    const std::int64_t groups = input_.cols / group_, begin = g * group_;
    const float* importance = input_.search.importance.empty() ? nullptr : input_.search.importance.data() + begin;
    const float* source = input_.scales_of.empty() ? job_.weights : input_.scales_of.data();
    for (std::int64_t r = 0; r < rows_; ++r) {
      const float* w = source + (first_ + r) * input_.cols + begin;
      if (!original) {
        for (std::int64_t k = 0; k < group_; ++k) s_.run[k] = s_.w[(begin + k) * kGptqRows + r];
        w = s_.run;
      }
      const GroupScale found = find_scale(w, group_, input_.args, input_.scale_dtype, search_, importance);
      s_.scales[g * kGptqRows + r] = found.scale;
      s_.zeros[g * kGptqRows + r] = found.zero;
      const auto at = static_cast<std::size_t>(r * groups + g);
      out_.scales[at] = found.scale;
      if (!input_.args.symmetric) {
        out_.zeros[at] = static_cast<std::uint8_t>(static_cast<int>(found.zero) + input_.args.mid_code());
      }
    }
  }

  void round_block(std::int64_t begin, std::int64_t end) noexcept {
    GptqColumns c;
    c.w = s_.w;
    c.block_begin = begin;
    c.block_end = end;
    c.factor = input_.factor;
    c.asymmetric = input_.asymmetric;
    c.ld = input_.cols;
    c.scales = s_.scales;
    c.zeros = s_.zeros;
    c.group = job_.group_of;
    c.low = static_cast<float>(-input_.args.mid_code());
    c.high = static_cast<float>(input_.args.mid_code() - 1);
    c.codes = s_.codes;
    c.errors = s_.errors;
    c.targets = input_.asymmetric != nullptr ? s_.targets : nullptr;
    c.sum = s_.sum;
    for (c.begin = begin; c.begin < end; c.begin = c.end) {
      c.end = end;
      if (input_.order.empty()) {
        if (c.begin % group_ == 0) find_scales(c.begin / group_, false);
        c.end = std::min(end, (c.begin / group_ + 1) * group_);
      }
      job_.columns(c);
    }
  }

  /// Columns from `end` on: -= (or +=) source^T matrix, over the columns of the block.
  void feed_back(std::int64_t begin, std::int64_t end, const float* source, const float* matrix,
                 bool subtract) noexcept {
    for (std::int64_t j = end; j < input_.cols; j += kProductTile) {
      ProductTile t;
      t.a = matrix + begin * input_.cols + j;
      t.a_k = input_.cols;
      t.b = source;
      t.b_k = kGptqRows;
      t.k = end - begin;
      t.m = std::min(kProductTile, input_.cols - j);
      t.n = kGptqRows;
      t.c = s_.w + j * kGptqRows;
      t.ldc = kGptqRows;
      t.subtract = subtract;
      t.scratch = s_.product;
      job_.product(t);
    }
  }

  void store_codes(std::int64_t begin, std::int64_t end) noexcept {
    const int mid = input_.args.mid_code();
    for (std::int64_t r = 0; r < rows_; ++r) {
      std::uint8_t* codes = out_.codes.data() + r * input_.cols;
      for (std::int64_t p = begin; p < end; ++p) {
        codes[column(p)] = static_cast<std::uint8_t>(static_cast<int>(s_.codes[(p - begin) * kGptqRows + r]) + mid);
      }
    }
  }

  const Job& job_;
  const GptqInput& input_;
  const Scratch& s_;
  std::int64_t first_, rows_, group_;
  ScaleSearch search_;
  Rounded out_;
};

void check(const GptqInput& in) {
  KEDGE_CHECK(in.rows > 0 && in.cols > 0 && static_cast<std::int64_t>(in.weights.size()) == in.rows * in.cols);
  const std::int64_t group = in.args.group_for(in.cols);
  KEDGE_CHECK(in.args.num_bits >= 2 && in.args.num_bits <= 8 && group > 0 && in.cols % group == 0);
  KEDGE_CHECK(in.factor != nullptr);
  KEDGE_CHECK(in.order.empty() || static_cast<std::int64_t>(in.order.size()) == in.cols);
  KEDGE_CHECK(in.scales_of.empty() || (in.scales_of.size() == in.weights.size() && !in.order.empty()));
  KEDGE_CHECK(in.search.importance.empty() || static_cast<std::int64_t>(in.search.importance.size()) == in.cols);
  KEDGE_CHECK(in.scale_dtype == DType::f32 || in.scale_dtype == DType::bf16 || in.scale_dtype == DType::f16);
}

/// Rows of one step with an output factor: few where the matrix is small, so that most rows see most others.
std::int64_t step_rows(std::int64_t rows) noexcept { return std::clamp<std::int64_t>(rows / 32, 4, kGptqRows); }

/// Rows from last to first, each step against what the rows after it have done.
class OutputOrder {
 public:
  OutputOrder(const ExecContext& ctx, Isa isa, const Job& job, std::vector<float>& shifted)
      : ctx_(ctx),
        job_(job),
        input_(job.input),
        isa_(isa),
        shifted_(shifted),
        errors_(input_.weights.size()) {}

  /// scratch: one per thread.
  void run(std::span<const Scratch> scratch) {
    const std::int64_t step = step_rows(input_.rows);
    for (std::int64_t end = input_.rows; end > 0;) {
      const std::int64_t begin = std::max<std::int64_t>(0, end - step);
      shift(begin, end);
      round(begin, end, scratch);
      for (std::int64_t r = begin; r < end; ++r) note_error(r);
      end = begin;
    }
  }

 private:
  /// Rows [begin, end) of the weights less L^T E of the rows from `end` on.
  void shift(std::int64_t begin, std::int64_t end) {
    if (end == input_.rows) return;
    ProductTile t;
    t.a = input_.output_factor + end * input_.rows + begin;
    t.a_k = input_.rows;
    t.b = errors_.data() + end * input_.cols;
    t.b_k = input_.cols;
    t.k = input_.rows - end;
    t.m = end - begin;
    t.n = input_.cols;
    t.c = shifted_.data() + begin * input_.cols;
    t.ldc = input_.cols;
    t.subtract = true;
    product(ctx_, isa_, t);
  }

  /// A step has few rows: threads share its ranges.
  void round(std::int64_t begin, std::int64_t end, std::span<const Scratch> scratch) {
    const std::span<const float> ranges = ranges_of(input_);
    std::vector<Rounded> rounds(ranges.size());
    ctx_.threads.parallel_for(
        static_cast<std::int64_t>(ranges.size()), 1, [&](std::int64_t from, std::int64_t to, int thread) {
          Panel panel(job_, begin, end - begin, scratch[static_cast<std::size_t>(thread)]);
          for (std::int64_t i = from; i < to; ++i) {
            rounds[static_cast<std::size_t>(i)] = panel.round(ranges[static_cast<std::size_t>(i)]);
          }
        });
    for (std::size_t i = 0; i < rounds.size(); ++i) keep_better(job_, begin, rounds[i], i == 0);
  }

  void note_error(std::int64_t row) {
    float* out = errors_.data() + row * input_.cols;
    dequantize_row(job_.tensor, row, out);
    for (std::int64_t k = 0; k < input_.cols; ++k) out[k] -= input_.weights[static_cast<std::size_t>(row * input_.cols + k)];
  }

  const ExecContext& ctx_;
  const Job& job_;
  const GptqInput& input_;
  Isa isa_;
  std::vector<float>& shifted_;
  std::vector<float> errors_;  ///< E [rows, cols]
};

}  // namespace

GptqResult gptq(const ExecContext& ctx, Isa isa, const GptqInput& input) {
  check(input);
  GptqResult result;
  QuantTensor& q = result.tensor;
  q.args = input.args;
  q.rows = input.rows;
  q.cols = input.cols;
  q.scale_dtype = input.scale_dtype;
  q.codes.resize(input.weights.size());
  q.scales.resize(static_cast<std::size_t>(input.rows * q.groups()));
  if (!input.args.symmetric) q.zeros.resize(q.scales.size());

  ArenaScope scope(ctx.scratch);
  const std::int64_t group = q.group();
  auto* group_of = ctx.scratch.take<std::int32_t>(input.cols);
  for (std::int64_t p = 0; p < input.cols; ++p) {
    const std::int64_t column = input.order.empty() ? p : input.order[static_cast<std::size_t>(p)];
    group_of[p] = static_cast<std::int32_t>(column / group);
  }
  std::vector<Scratch> scratch;
  for (int i = 0; i < ctx.threads.size(); ++i) scratch.emplace_back(ctx.scratch, input.cols, group);
  std::vector<double> row_errors(static_cast<std::size_t>(input.rows));
  std::vector<float> shifted;
  if (input.output_factor != nullptr) shifted.assign(input.weights.begin(), input.weights.end());
  const Job job{input,  gptq_kernel(isa),
                product_kernel(isa), group_of,
                shifted.empty() ? input.weights.data() : shifted.data(), q, row_errors.data()};
  if (input.output_factor != nullptr) {
    OutputOrder(ctx, isa, job, shifted).run(scratch);
    result.error = std::accumulate(row_errors.begin(), row_errors.end(), 0.0);
    return result;
  }
  const std::int64_t panels = (input.rows + kGptqRows - 1) / kGptqRows;
  ctx.threads.parallel_for(panels, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t first = panel * kGptqRows;
      Panel rows(job, first, std::min(kGptqRows, input.rows - first), scratch[static_cast<std::size_t>(thread)]);
      for (const float factor : ranges_of(input)) keep_better(job, first, rows.round(factor), factor == kRowSearch[0]);
    }
  });
  result.error = std::accumulate(row_errors.begin(), row_errors.end(), 0.0);
  return result;
}

std::vector<std::int32_t> descending_order(std::span<const float> diagonal) {
  std::vector<std::int32_t> order(diagonal.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return diagonal[static_cast<std::size_t>(a)] > diagonal[static_cast<std::size_t>(b)];
  });
  return order;
}

void permute_symmetric(const ExecContext& ctx, std::span<const std::int32_t> order, const float* h, float* out) {
  const auto n = static_cast<std::int64_t>(order.size());
  ctx.threads.parallel_for(n, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t p = begin; p < end; ++p) {
      const float* row = h + order[static_cast<std::size_t>(p)] * n;
      for (std::int64_t q = 0; q < n; ++q) out[p * n + q] = row[order[static_cast<std::size_t>(q)]];
    }
  });
}

void gptaq_asymmetric(const ExecContext& ctx, Isa isa, std::int64_t n, const float* cross, const float* factor,
                      float alpha, float* p) {
  ArenaScope scope(ctx.scratch);
  float* m = ctx.scratch.take<float>(n * n);
  float* transposed = ctx.scratch.take<float>(n * n);
  float* scratch = ctx.scratch.take<float>(ctx.threads.size() * kProductScratch);
  const ProductKernel product = product_kernel(isa);
  ctx.threads.parallel_for(n, 32, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t k = 0; k < n; ++k) {
      for (std::int64_t i = begin; i < end; ++i) transposed[i * n + k] = factor[k * n + i];
    }
  });
  const std::int64_t across = (n + kProductTile - 1) / kProductTile;
  // m = triu(cross U^T, 1): m[i, j] = sum over k >= j of cross[i, k] U[j, k]; then p = m U: k from i + 1 to j.
  const auto each_tile = [&](const float* a, const float* b, float* c, bool first) {
    ctx.threads.parallel_for(across * across, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t i = task / across * kProductTile, j = task % across * kProductTile;
        const std::int64_t from = first ? j : i, to = first ? n : std::min(n, j + kProductTile);
        ProductTile t;
        t.m = std::min(kProductTile, n - i);
        t.n = std::min(kProductTile, n - j);
        for (std::int64_t r = i; r < i + t.m; ++r) std::fill_n(c + r * n + j, t.n, 0.0f);
        if (j < i) continue;
        t.a = a + i * n + from;
        t.a_k = 1;
        t.a_i = n;
        t.b = b + from * n + j;
        t.b_k = n;
        t.k = to - from;
        t.c = c + i * n + j;
        t.ldc = n;
        t.scratch = scratch + thread * kProductScratch;
        product(t);
        const float scale = first ? alpha : 1.0f;
        for (std::int64_t r = i; r < i + t.m; ++r) {
          for (std::int64_t s = j; s < j + t.n; ++s) c[r * n + s] = s <= r ? 0.0f : scale * c[r * n + s];
        }
      }
    });
  };
  each_tile(cross, transposed, m, true);
  each_tile(m, factor, p, false);
}

}  // namespace kedge
