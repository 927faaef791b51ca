#include "quant/scheme.h"

#include <array>
#include <charconv>

#include "kedge/error.h"

namespace kedge {
namespace {

// Names and meaning: compressed_tensors/quantization/quant_scheme.py, release 0.20 (before 0.13 or so its W8A16 was
// per channel; that one is w8a16-channel here).
constexpr std::array<SchemePreset, 6> kPresets{{
    {"W2A16", "w2a16-g128", "2 bit, groups of 128"},
    {"W3A16", "w3a16-g128", "3 bit, groups of 128"},
    {"W4A16", "w4a16-g128", "4 bit, groups of 128"},
    {"W4A16_ASYM", "w4a16-g128-asym", "4 bit with zero points, groups of 128"},
    {"W8A16", "w8a16-g128", "8 bit, groups of 128"},
    {"W8A8", "w8a8-dynamic", "8 bit, inputs too, each row with its own scale"},
}};

constexpr int kDefaultGroup = 128;
constexpr int kAnchorGroup = 64;

char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string normalized(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = c == '_' ? '-' : to_lower(c);
  return out;
}

/// Takes `part` off the front of `text`.
bool take(std::string_view& text, std::string_view part) {
  if (!text.starts_with(part)) return false;
  text.remove_prefix(part.size());
  return true;
}

bool take_int(std::string_view& text, int& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || text.front() == '-') return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool parse_name(std::string_view text, QuantArgs& args) {
  if (!take(text, "w") || !take_int(text, args.num_bits) || !take(text, "a16")) return false;
  if (args.num_bits != 2 && args.num_bits != 3 && args.num_bits != 4 && args.num_bits != 8) return false;
  int group = kDefaultGroup;
  if (take(text, "-channel")) {
    args.strategy = QuantStrategy::channel;
    args.group_size = -1;
  } else {
    if (take(text, "-g") && !take_int(text, group)) return false;
    if (group != 32 && group != 64 && group != 128) return false;
    args.strategy = QuantStrategy::group;
    args.group_size = group;
  }
  args.symmetric = !take(text, "-asym");
  return text.empty();
}

bool parse_input_activations(std::string_view text, QuantScheme& scheme) {
  if (text != "w8a8" && text != "w8a8-dynamic" && text != "w8a8-static") return false;
  scheme.name = text == "w8a8" ? "w8a8-dynamic" : text;
  scheme.weights = {8, true, QuantStrategy::channel, -1};
  scheme.input_activations = text == "w8a8-static" ? InputActivations::static_tensor : InputActivations::dynamic_token;
  return true;
}

bool parse_anchor(std::string_view text, QuantScheme& scheme) {
  if (!take(text, "anchor-int") || !take_int(text, scheme.weights.num_bits)) return false;
  if (scheme.weights.num_bits != 2 && scheme.weights.num_bits != 4) return false;
  int group = kAnchorGroup;
  if (take(text, "-g") && !take_int(text, group)) return false;
  if (group != 32 && group != 64 && group != 128) return false;
  scheme.weights.group_size = group;
  SharedAnchor anchor;
  if (take(text, "-int8")) {
    anchor.dtype = DType::i8;
  } else if (take(text, "-bf16")) {
    anchor.dtype = DType::bf16;
  } else {
    take(text, "-fp16");
  }
  if (take(text, "-sphere")) anchor.manifold = Manifold::sphere;
  scheme.anchor = anchor;
  return text.empty();
}

}  // namespace

const char* strategy_name(QuantStrategy strategy) noexcept {
  return strategy == QuantStrategy::channel ? "channel" : "group";
}

std::span<const SchemePreset> scheme_presets() noexcept { return kPresets; }

QuantScheme parse_scheme(std::string_view name) {
  QuantScheme scheme;
  if (parse_input_activations(normalized(name), scheme)) return scheme;
  if (parse_anchor(normalized(name), scheme)) {
    scheme.name = scheme_name(scheme.weights, *scheme.anchor);
    return scheme;
  }
  scheme = {};
  if (!parse_name(normalized(name), scheme.weights)) {
    std::string presets;
    for (const SchemePreset& preset : kPresets) presets += (presets.empty() ? "" : ", ") + std::string(preset.name);
    throw Error(
        ErrorCode::usage, "\"" + std::string(name.substr(0, 80)) + "\" is not a quantization scheme",
        "w<2|3|4|8>a16[-g32|-g64|-g128|-channel][-asym], anchor-int<4|2>[-g32|-g64|-g128][-fp16|-bf16|-int8][-sphere], "
        "w8a8-dynamic, w8a8-static or a preset (" +
            presets + ")",
        "try w4a16-g128");
  }
  scheme.name = scheme_name(scheme.weights);
  return scheme;
}

QuantScheme parse_weight_scheme(std::string_view name) {
  QuantScheme scheme = parse_scheme(name);
  if (scheme.input_activations != InputActivations::none) {
    throw Error(ErrorCode::unsupported, "the scheme " + scheme.name + " quantizes inputs too",
                "a scheme for the weights of a language model, as w8a16-channel",
                "run the model with --activations int8, which quantizes its inputs as they come");
  }
  return scheme;
}

QuantScheme parse_matrix_scheme(std::string_view name) {
  QuantScheme scheme = parse_weight_scheme(name);
  if (scheme.anchor) {
    throw Error(ErrorCode::unsupported, "the scheme " + scheme.name + " is for all experts of a layer together",
                "a scheme for one matrix, as w4a16-g64", "give it as the scheme of the whole model");
  }
  return scheme;
}

std::string scheme_name(const QuantArgs& deltas, const SharedAnchor& anchor) {
  std::string name = "anchor-int" + std::to_string(deltas.num_bits) + "-g" + std::to_string(deltas.group_size);
  if (anchor.dtype != DType::f16) name += anchor.dtype == DType::i8 ? "-int8" : "-bf16";
  if (anchor.manifold == Manifold::sphere) name += "-sphere";
  return name;
}

std::string scheme_name(const QuantArgs& args) {
  std::string name = "w" + std::to_string(args.num_bits) + "a16";
  name += args.strategy == QuantStrategy::channel ? "-channel" : "-g" + std::to_string(args.group_size);
  if (!args.symmetric) name += "-asym";
  return name;
}

QuantArgs args_for_cols(const QuantArgs& args, std::int64_t cols) noexcept {
  QuantArgs result = args;
  if (args.strategy == QuantStrategy::group && cols % args.group_size != 0) {
    result.strategy = QuantStrategy::channel;
    result.group_size = -1;
  }
  return result;
}

double bits_per_weight(const QuantArgs& args, std::int64_t rows, std::int64_t cols, int scale_bits) noexcept {
  if (rows <= 0 || cols <= 0) return 0;
  const std::int64_t group = args.group_for(cols);
  const double groups = static_cast<double>((cols + group - 1) / group);
  const double per_group = scale_bits + (args.symmetric ? 0 : args.num_bits);
  return args.num_bits + groups * per_group / static_cast<double>(cols);
}

}  // namespace kedge
