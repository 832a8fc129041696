# make demo | test | lint | bench: each sets up what it needs in .venv first; a second run is quick.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TRITON ?= triton==3.7.1; sys_platform == "linux" and platform_machine == "x86_64"
DATA ?=
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
CPP_FILES = $(shell find csrc $(wildcard python) tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo test lint bench native build compile-checks clean
.DEFAULT_GOAL := test

# A CUDA build of torch that the system Python already has is used as it is.
$(VENV)/.torch:
	if $(PYTHON) -c 'import torch; assert torch.version.cuda' 2>/dev/null; \
	then $(PYTHON) -m venv --system-site-packages $(VENV); \
	else $(PYTHON) -m venv $(VENV) && $(PIP) '$(TORCH)' '$(TRITON)'; fi
	$(PIP) 'setuptools>=77' wheel cmake ninja pybind11
	$(PY) -m pip list --format=freeze | grep -E '^(torch|triton)==' > $@

# The stamp of torch is also the constraint that keeps every later install from replacing it.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) --constraint $(VENV)/.torch --no-build-isolation --editable '.[triton,train,export,data,video,viz,dev]'
	touch $@

# Native parts are optional for a user; `make build` alone insists on the CPU one.
native: $(VENV)/.installed
	$(PY) setup.py --quiet build_ext --inplace

build: native
	@test -e skelops/_C.abi3.so

# Large activations are freed and allocated at every step: let malloc keep their pages.
demo bench: export MALLOC_MMAP_THRESHOLD_ = 4000000000
demo bench: export MALLOC_TRIM_THRESHOLD_ = 8000000000

demo: native
	$(PY) -m skelops demo $(if $(DATA),--data $(DATA))

bench: native
	$(PY) -m benchmarks.run --all --device cpu $(ARGS)
	$(PY) -m benchmarks.report

# One process per core, each with one thread: barriers of oversubscribed threads would spin.
test compile-checks: export OMP_NUM_THREADS = 1

test: native
	$(PY) -m pytest -n auto --ignore=tests/compile $(ARGS)

compile-checks: native
	$(if $(wildcard tests/compile),$(PY) -m pytest -n auto tests/compile $(ARGS),@echo no tests/compile yet)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP_FILES)
	$(VENV)/bin/mypy

clean:
	rm -rf build dist *.egg-info
	find skelops -name '*.so' -delete
