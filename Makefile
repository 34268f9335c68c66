# Needs Python 3.10 or newer, make and a package index. `make demo` and `make test` are the two commands of README.md.
# Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Installed by itself, because pip knows local wheels and constraints that uv does not read. Of the versions that
# pyproject.toml allows, the newest that has been tried.
TORCH ?= torch>=2.13,<2.14
EXTRAS := test,export,train,bench,calibrate
# What else must be of certain versions.
PINS ?=

.PHONY: demo test test-oldest pytest differential lint bench fuzz soak hostile size clean
.DELETE_ON_ERROR:

demo: $(VENV)/.core
	$(BIN)/cascade demo

# Two processes by default: more do not help on two cores. One: make test PROCESSES=0
PROCESSES ?= 2
test: lint pytest

pytest: $(VENV)/.full
	@echo "Running the tests in $(PROCESSES) processes"
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal --benchmark-disable --cov --cov-report=term

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

# Ratios that must not fall (bench/harness/reference_ratios.json): make bench MODEL=models/intents.
# The pieces one by one come first, by pytest-benchmark. What they add up to: cascade-bench table, curve, peers.
MODEL ?= models/sentiment
bench: $(VENV)/.full
	$(BIN)/python -m pytest bench/harness --bundle $(MODEL) --benchmark-columns=min,median,iqr,ops,rounds --benchmark-sort=name
	$(BIN)/python -m cascade_bench.harness.check $(MODEL)

# The targets of tests/fuzz for hours, from another seed each time; `make test` runs them for seconds.
SEED ?= $(shell date +%s)
fuzz: $(VENV)/.full
	@echo "Fuzzing from seed $(SEED)"
	$(BIN)/python -m pytest tests/fuzz --hypothesis-profile=fuzz --hypothesis-seed=$(SEED) -n $(PROCESSES) --dist worksteal

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

# Editable, so that a changed source file needs no new installation; only pyproject.toml does.
$(VENV)/.core: pyproject.toml | $(BIN)/python
	@echo "Installing the light core"
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/.full: pyproject.toml | $(BIN)/python
	@echo "Installing everything: torch first (pip), then the rest (uv, whose resolver takes seconds); two minutes or so"
	$(PIP) install --quiet uv '$(TORCH)'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$(EXTRAS)]' $(PINS) || $(PIP) install --quiet --editable '.[$(EXTRAS)]' $(PINS)
	touch $(VENV)/.core $@
