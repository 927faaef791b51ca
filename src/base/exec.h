// How a computation is to be done (chosen at load) and what a call carries (threads, scratch, probe).
#pragma once

#include <string_view>

#include "base/arena.h"
#include "base/cpu.h"
#include "base/thread_pool.h"

namespace kedge {

/// consistent: every output is a function of its own token, that token's history and the weights alone;
/// the same bits on any ISA, thread count, batch and chunking. fast: may break that for speed.
enum class Numerics { consistent, fast };
/// What the matrix products of quantized weights read: fp32 rows, or rows quantized to int8 per weight group.
enum class Activations { fp32, int8 };

const char* numerics_name(Numerics) noexcept;      ///< "consistent", "fast"
const char* activations_name(Activations) noexcept;  ///< "fp32", "int8"
Numerics parse_numerics(std::string_view);         ///< Error(usage) for an unknown name
Activations parse_activations(std::string_view);

struct LoadOptions {
  Isa isa = Isa::scalar;
  Numerics numerics = Numerics::consistent;
  Activations activations = Activations::fp32;
};

class ForwardProbe;  // nn/probe.h

struct ExecContext {
  ThreadPool& threads;
  Arena& scratch;
  ForwardProbe* probe = nullptr;
};

}  // namespace kedge
