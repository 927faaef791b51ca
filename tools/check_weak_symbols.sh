#!/usr/bin/env bash
# Object files of one instruction set must define no weak symbols: the linker keeps one copy of an inline or template
# function for the whole program, and if it is the AVX-512 copy, older CPUs crash in code that has nothing to do with it.
# usage: tools/check_weak_symbols.sh BUILD_FOLDER
set -euo pipefail

build=${1:?usage: tools/check_weak_symbols.sh BUILD_FOLDER}
mapfile -t objects < <(find "$build" -path '*kedge_kernels.dir*' \( -name '*_avx2.cc.o' -o -name '*_avx512*.cc.o' \) | sort)
if ((${#objects[@]} == 0)); then
  echo "no object files of AVX kernels under $build" >&2
  exit 1
fi
bad=0
for object in "${objects[@]}"; do
  # W, V: weak and defined (w, v: undefined, harmless); u: unique over the program. DW.ref... are the data references
  # of exception tables; sanitizer runtimes add their own.
  weak=$(nm -C --defined-only "$object" | grep -E ' [WVu] ' | grep -vE 'DW\.ref|__asan|__ubsan|__tsan|__odr' || true)
  if [[ -n $weak ]]; then
    printf '%s defines weak symbols:\n%s\n' "$object" "$weak"
    bad=1
  fi
done
((bad)) || echo "${#objects[@]} object files, no weak symbol"
exit $bad
