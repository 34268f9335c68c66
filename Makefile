# Needs Python 3.10 or newer, make and a package index. `make demo` and `make test` are the two commands of README.md.
# Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.core
	$(BIN)/cascade demo

test: lint
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(VENV)/.full
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Ratios that must not fall (bench/harness/pinned.json), then the pieces, one by one: make bench MODEL=models/intents.
# What they add up to: cascade-bench table, curve, peers.
MODEL ?= models/sentiment
bench: $(VENV)/.full
	$(BIN)/python -m pytest bench/harness --bundle $(MODEL) --benchmark-columns=min,median,iqr,ops,rounds --benchmark-sort=name

clean:
	rm -rf $(VENV) build dist demo-output .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Editable, so that a changed source file needs no new installation; only pyproject.toml does.
$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/.full: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[test,export,train,bench,calibrate]'
	touch $(VENV)/.core $@
