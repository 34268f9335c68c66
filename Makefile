# Needs Python 3.10 or newer, make and a package index. `make demo` and `make test` are the two commands of README.md.
# Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Installed by itself, because pip knows local wheels and constraints that uv does not read. Of the versions that
# pyproject.toml allows, the newest that has been tried.
TORCH ?= torch>=2.13,<2.14
EXTRAS := test,export,train,bench,calibrate,serve,jobs,sklearn
# Compiled when they are installed.
KERNELS := $(wildcard cascade/runtime/kernels/*.cpp cascade/runtime/kernels/*.inc)
# What else must be of certain versions.
PINS ?=

.PHONY: demo test test-oldest pytest coverage differential lint bench cluster fuzz soak hostile size clean
.DELETE_ON_ERROR:

demo: $(VENV)/.core
	$(BIN)/cascade demo

# Two processes by default: more do not help on two cores. One: make test PROCESSES=0
PROCESSES ?= 2
test: lint pytest

pytest: $(VENV)/.full
	@echo "Running the tests in $(PROCESSES) processes"
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

# The same, and which lines they do not run; a fifth slower.
coverage: $(VENV)/.full
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal --cov --cov-report=term

# The same tests with the oldest transformers that pyproject.toml allows (`make test` installs the newest).
test-oldest:
	$(MAKE) pytest VENV=.venv-oldest PINS=transformers~=4.48.0

# Labels, entities and offsets against transformers' own pipelines, on so many texts per family and task (`make test`: 100).
# With the oldest: make differential VENV=.venv-oldest PINS=transformers~=4.48.0
TEXTS ?= 3000
differential: $(VENV)/.full
	CASCADE_TEXTS=$(TEXTS) $(BIN)/python -m pytest tests/pipelines/test_as_transformers.py -n $(PROCESSES) --dist worksteal -rP --durations=0

lint: $(VENV)/.full
	@echo "Checking style and types"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# These files in turns with another revision, on the demo's sentences; status 1 where something takes a tenth longer:
# make bench MODEL=models/intents BASE=main. Of a tagger: make bench MODEL=models/pos DATA=cascade/cli/demo/tags.jsonl
# As on another kind of CPU: CASCADE_KERNELS=avx2 make bench (or avx512, avx_vnni, onnxruntime).
MODEL ?= models/sentiment
DATA ?= cascade/cli/demo/$(notdir $(MODEL)).jsonl
BASE ?= HEAD
bench: $(VENV)/.full
	rm -rf build/before && mkdir -p build/before
	git archive $(BASE) cascade pyproject.toml README.md LICENSE | tar -x -C build/before
	cd build/before && $(abspath $(BIN))/python -W ignore -c "from setuptools import setup; setup()" --quiet build_ext --inplace
	$(BIN)/cascade-bench compare build/before . --model $(MODEL) --data $(DATA) --at-least 0.9

# The targets of tests/fuzz for hours, from another seed each time; `make test` runs them for seconds.
SEED ?= $(shell date +%s)
fuzz: $(VENV)/.full
	@echo "Fuzzing from seed $(SEED)"
	$(BIN)/python -m pytest tests/fuzz --hypothesis-profile=fuzz --hypothesis-seed=$(SEED) -n $(PROCESSES) --dist worksteal

# Tests on a Ray cluster of this machine alone, which `make test` leaves out where Ray is not installed.
cluster: $(VENV)/.full
	$(PIP) install --quiet --editable '.[ray]'
	$(BIN)/python -m pytest tests/jobs/test_ray.py tests/jobs/test_ray_nodes.py tests/serving/test_on_ray.py

# Sixteen threads that ask one bundle: equal answers, flat memory.
MINUTES ?= 10
soak: $(VENV)/.full
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(MODEL)

# Hostile texts, files and bundles, and commands that are killed; counts, and status 1 if anything goes wrong.
COUNTS ?= --texts 1000000 --files 100000 --bundles 20000 --kills 200
hostile: $(VENV)/.full
	$(BIN)/python -m tests.hostile --processes $(PROCESSES) $(COUNTS)

# Lines of source and tests, the median file and the longest (tests/test_sizes.py holds them).
size:
	@$(PYTHON) tests/test_sizes.py

clean:
	rm -rf .venv .venv-oldest build dist demo-output .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks *.egg-info

$(BIN)/python:
	@echo "Making $(VENV)"
	$(PYTHON) -m venv $(VENV)

# Editable, so that a changed source file needs no new installation; only pyproject.toml and the kernels do.
$(VENV)/.core: pyproject.toml $(KERNELS) | $(BIN)/python
	@echo "Installing the light core"
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/.full: pyproject.toml $(KERNELS) | $(BIN)/python
	@echo "Installing everything: torch first (pip), then the rest (uv, whose resolver takes seconds); two minutes or so"
	$(PIP) install --quiet uv '$(TORCH)'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$(EXTRAS)]' $(PINS) || $(PIP) install --quiet --editable '.[$(EXTRAS)]' $(PINS)
	touch $(VENV)/.core $@
