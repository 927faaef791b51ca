#include "base/check.h"
#include "kernels/gemm/layout.h"
#include "kernels/gemm/table.h"

namespace kedge {

Activations effective_activations(const GemmDesc& desc, const LoadOptions& options) noexcept {
  return is_affine(desc.format) && !desc.anchored ? options.activations : Activations::fp32;
}

const char* refusal(const GemmRow& row, const GemmQuery& query) noexcept {
  const GemmDesc& desc = query.desc;
  if (row.activations != effective_activations(desc, query.options)) {
    return "reads other activations";
  }
  if ((row.formats & format_bit(desc.format)) == 0) {
    return "does not read this weight format";
  }
  if (static_cast<int>(row.isa) > static_cast<int>(query.options.isa)) {
    return "needs a wider instruction set";
  }
  if (row.numerics == Numerics::fast && query.options.numerics == Numerics::consistent) {
    return "is not consistent";
  }
  if (query.m < row.min_m) {
    return "is for more rows";
  }
  if (query.m > row.max_m) {
    return "is for fewer rows";
  }
  if (!row.any_group && is_affine(desc.format)) {
    if (desc.group != desc.k && desc.group % 8 != 0) {
      return "needs groups of a multiple of 8";
    }
    if (row.activations == Activations::int8 && desc.group > kMaxInt8Group) {
      return "would overflow int32 within a group";
    }
  }
  return nullptr;
}

const GemmRow& select_gemm(const GemmQuery& query) noexcept {
  for (const GemmRow& row : gemm_table()) {
    if (refusal(row, query) == nullptr) {
      return row;
    }
  }
  KEDGE_CHECK(!"the reference rows refuse nothing");
  return gemm_table().back();
}

std::string explain_gemm(const GemmDesc& desc, const LoadOptions& options, std::int64_t m) {
  const GemmQuery query{desc, options, m};
  std::string text = "gemm " + std::to_string(m) + " x " + std::to_string(desc.n) + " x " + std::to_string(desc.k) +
                     " " + weight_format_name(desc.format);
  if (is_affine(desc.format)) {
    text += " group " + std::to_string(desc.group) + (desc.asymmetric ? " asym" : " sym") +
            (desc.anchored ? " on an anchor" : "");
  }
  text += ", " + std::string(activations_name(effective_activations(desc, options))) + " activations, " +
          numerics_name(options.numerics) + ", " + isa_name(options.isa) + "\n";
  const GemmRow& chosen = select_gemm(query);
  for (const GemmRow& row : gemm_table()) {
    if (&row == &chosen) {
      text += "  " + std::string(row.name) + ": chosen\n";
      break;
    }
    text += "  " + std::string(row.name) + ": " + refusal(row, query) + "\n";
  }
  return text;
}

}  // namespace kedge
