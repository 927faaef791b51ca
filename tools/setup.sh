#!/usr/bin/env bash
# Installs what kedge needs to be built (and tested, benched). Quick when nothing is missing.
# usage: tools/setup.sh [build] [test] [bench] [torch] [mpi]      (default: build)
# torch: libtorch (the pip wheel) in .venv of this project.
set -euo pipefail

build_packages=(cmake ninja-build g++ pkg-config nlohmann-json3-dev libcli11-dev libfmt-dev libpcre2-dev libutf8proc-dev
                libssl-dev libtomlplusplus-dev zlib1g-dev liblzma-dev)
test_packages=(libgtest-dev python3)
bench_packages=(libbenchmark-dev)
mpi_packages=(libopenmpi-dev openmpi-bin)
torch_version=2.13.0
venv=$(cd "$(dirname "$0")/.." && pwd)/.venv

# By files: importing torch takes seconds. pip writes RECORD last.
torch_is_there() {
  compgen -G "$venv/lib/python3.*/site-packages/torch-$torch_version*.dist-info/RECORD" >/dev/null &&
    compgen -G "$venv/lib/python3.*/site-packages/torch/lib/libtorch_cpu.so" >/dev/null
}

install_torch() {
  torch_is_there && return
  echo "Installing libtorch $torch_version (the pip wheel torch) into .venv" >&2
  [[ -x $venv/bin/pip ]] || python3 -m venv "$venv" >&2
  if ! "$venv/bin/pip" install --quiet --disable-pip-version-check "torch==$torch_version" >&2 || ! torch_is_there; then
    echo "setup.sh: torch $torch_version could not be installed (see above); by hand:" >&2
    echo "  python3 -m venv .venv && .venv/bin/pip install torch==$torch_version" >&2
    exit 1
  fi
}

packages=() headers=() tools=() torch=0
for set in "${@:-build}"; do
  case "$set" in
    build)
      packages+=("${build_packages[@]}")
      tools+=(cmake ninja c++ pkg-config)
      headers+=(nlohmann/json.hpp CLI/CLI.hpp fmt/format.h pcre2.h utf8proc.h openssl/evp.h toml++/toml.h zlib.h lzma.h)
      ;;
    test)
      packages+=("${test_packages[@]}")
      tools+=(python3)
      headers+=(gtest/gtest.h)
      ;;
    bench)
      packages+=("${bench_packages[@]}")
      headers+=(benchmark/benchmark.h)
      ;;
    mpi)
      packages+=("${mpi_packages[@]}")
      tools+=(mpirun mpicxx)
      ;;
    torch)
      torch=1
      tools+=(python3)
      # Debian's python3 cannot make a virtual environment without it; others come with ensurepip.
      torch_is_there || python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
      ;;
    *)
      echo "setup.sh: unknown set \"$set\": expected build, test, bench, torch or mpi" >&2
      exit 2
      ;;
  esac
done

# Other systems: look for the tools and headers themselves and name what is missing.
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  missing=()
  for tool in "${tools[@]}"; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  if command -v c++ >/dev/null; then
    for header in "${headers[@]}"; do
      # pcre2.h wants the width of its characters.
      printf '#define PCRE2_CODE_UNIT_WIDTH 8\n#include <%s>\n' "$header" |
        c++ -std=c++20 -x c++ -fsyntax-only - 2>/dev/null || missing+=("<$header>")
    done
  fi
  if ((${#missing[@]})); then
    echo "kedge needs these tools and C++ headers, and they are missing: ${missing[*]}" >&2
    echo "Install them with this system's package manager (names on Debian: ${packages[*]})." >&2
    exit 1
  fi
  ((torch)) && install_torch
  exit 0
fi

installed=$(dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
  grep -qE "^installed ${package//+/\\+}(:[a-z0-9]+)?$" <<<"$installed" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  ((torch)) && install_torch
  exit 0
fi

command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
if [[ $EUID -ne 0 ]]; then
  echo "kedge needs packages that are missing here. Someone with root must run this once:" >&2
  echo "  sudo sh -c '$command'" >&2
  exit 1
fi
echo "Installing: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >&2; then
  echo "setup.sh: the installation failed (see above); by hand: $command" >&2
  exit 1
fi
((torch)) && install_torch
exit 0
