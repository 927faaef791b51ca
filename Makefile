# Thin: names for the commands that CMake and ctest run. `make` builds build/release/kedge.
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
KEDGE := build/release/kedge

.PHONY: all setup release torch mpi demo test bench install clean

all: release

setup:
	@tools/setup.sh build

# Configured once; ninja itself sees changed CMake files. Only the binary is built.
release: setup
	@test -f build/release/build.ninja || cmake --preset release -DKEDGE_TESTS=OFF
	@cmake --build build/release -j $(JOBS) --target kedge

# kedge-torch: kedge and what needs gradients; libtorch comes into .venv.
torch:
	@tools/setup.sh build torch
	@grep -qs kedge-torch build/release/build.ninja || cmake --preset release -DKEDGE_TESTS=OFF -DKEDGE_TORCH=ON
	@cmake --build build/release -j $(JOBS) --target kedge kedge-torch

# The plugin with which `mpirun -n N kedge ...` shares work.
mpi:
	@tools/setup.sh build mpi
	@grep -qs kedge-mpi build/release/build.ninja || cmake --preset release -DKEDGE_TESTS=OFF -DKEDGE_MPI=ON
	@cmake --build build/release -j $(JOBS) --target kedge

demo: release
	@tools/demo.sh $(KEDGE)

# TORCH=OFF: without libtorch, and so without the tests of what needs gradients.
test:
	@tools/setup.sh build test $(if $(filter OFF,$(TORCH)),,torch)
	@if test "$(TORCH)" = OFF; then cmake --preset dev -DKEDGE_TORCH=OFF; \
	else grep -qs kedge-torch build/dev/build.ninja || cmake --preset dev -DKEDGE_TORCH=ON; fi
	@cmake --build build/dev -j $(JOBS)
	@ctest --test-dir build/dev -j $(JOBS) --output-on-failure --no-tests=error

bench:
	@tools/setup.sh build bench
	@test -f build/bench/build.ninja || cmake --preset release -B build/bench -DKEDGE_TESTS=OFF -DKEDGE_BENCH=ON -DKEDGE_TORCH=OFF
	@cmake --build build/bench -j $(JOBS)
	@for bench in build/bench/*_bench; do test ! -x "$$bench" || "$$bench" || exit 1; done

# The binary, the library and its headers: find_package(kedge) gives kedge::kedge.
install: setup
	@test -f build/release/build.ninja || cmake --preset release -DKEDGE_TESTS=OFF
	@cmake --build build/release -j $(JOBS)
	@cmake --install build/release --prefix "$(PREFIX)"

clean:
	rm -rf build demo-out
