# Each target does its own set-up. `make demo` is the place to begin.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2}

.PHONY: setup demo test test-all bench lint wheel clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mu needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

demo: setup
	$(RUN) $(BIN)/mu bench -c configs/bench/quickstart.yaml
	@echo "Open runs/quickstart/report.html"

lint: setup
	$(BIN)/ruff check mu tasks callbacks tests
	$(BIN)/pyright --pythonpath $(BIN)/python

test: setup lint
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not data' -n 2 --dist loadgroup

test-all: setup lint
	$(RUN) $(BIN)/python -m pytest

bench: setup
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-disable-gc -s -p no:xdist

wheel: setup
	$(BIN)/python -m build --wheel

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
