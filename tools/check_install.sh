#!/usr/bin/env bash
# Installs a built tree into a temporary folder and builds tests/consumer against it.
# usage: tools/check_install.sh BUILD_FOLDER COMPILER COMPILER_FLAGS
set -euo pipefail

build=${1:?usage: tools/check_install.sh BUILD_FOLDER COMPILER COMPILER_FLAGS} compiler=${2:-c++} flags=${3:-}
source=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/prefix" >"$work/install.log" 2>&1 || { cat "$work/install.log"; exit 1; }
cmake -S "$source/tests/consumer" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER="$compiler" \
  -DCMAKE_CXX_FLAGS="$flags" >"$work/configure.log" 2>&1 || { cat "$work/configure.log"; exit 1; }
cmake --build "$work/build" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }

# The program asks for a model that is not there: exit code 3 of docs/exit-codes.md.
said=$("$work/build/consumer")
[[ $said == 3 ]] || { echo "the consumer said: $said"; exit 1; }
"$work/prefix/bin/kedge" --version
for file in bash-completion/completions/kedge zsh/site-functions/_kedge fish/vendor_completions.d/kedge.fish; do
  [[ -s $work/prefix/share/$file ]] || { echo "not installed: share/$file"; exit 1; }
done
echo "installed, found and linked"
