# Each target does its own set-up. `make demo` is the place to begin.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2}

.PHONY: setup demo demo-diffusion demo-llm test test-all test-minimal cases bench lint docs wheel embedded clean

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Everything, with the tools of tests and docs.
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[test,docs]'
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mu needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

# What a demo needs, and no more: the extra of its domain.
EXTRA_vision :=
EXTRA_diffusion := [diffusion]
EXTRA_llm := [llm]

$(VENV)/.ready-%: pyproject.toml constraints.txt | $(BIN)/python
	test $(VENV)/.ready -nt pyproject.toml || $(INSTALL) -e '.$(EXTRA_$*)'
	touch $@

CALL := mu is $(BIN)/mu, or just mu after: source $(BIN)/activate

demo: $(VENV)/.ready-vision
	$(RUN) $(BIN)/mu bench -c configs/bench/quickstart.yaml
	@echo "Open runs/quickstart/report.html ($(CALL))"

demo-diffusion: $(VENV)/.ready-diffusion
	$(RUN) $(BIN)/mu bench -c configs/bench/shapes.yaml
	@echo "Open runs/shapes/report.html ($(CALL))"

demo-llm: $(VENV)/.ready-llm
	$(RUN) $(BIN)/mu bench -c configs/bench/authors.yaml
	@echo "Open runs/authors/report.html ($(CALL))"

lint: setup
	$(BIN)/ruff check mu tasks callbacks tests docs
	$(BIN)/ruff format --check mu tasks callbacks tests docs
	$(BIN)/pyright --pythonpath $(BIN)/python

test: setup lint
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not data' -n 2 --dist loadgroup --durations=25

# The oldest versions that pyproject.toml declares: an environment of their own (6 GB), and a part of the tests.
MINIMAL := .venv-minimal

test-minimal:
	test -x $(MINIMAL)/bin/python || $(PYTHON) -m venv $(MINIMAL)
	$(MINIMAL)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(MINIMAL)/bin/uv pip compile --quiet --resolution lowest-direct --extra diffusion --extra llm --extra test pyproject.toml -o $(MINIMAL)/requirements.txt
	VIRTUAL_ENV=$(MINIMAL) $(MINIMAL)/bin/uv pip install --quiet -r $(MINIMAL)/requirements.txt
	VIRTUAL_ENV=$(MINIMAL) $(MINIMAL)/bin/uv pip install --quiet --no-deps -e .
	$(RUN) OMP_NUM_THREADS=1 $(MINIMAL)/bin/python -m pytest -m 'not slow and not data' tests/cli tests/config tests/utils tests/functional tests/contract/test_fit.py tests/contract/test_faults.py tests/contract/test_evaluation.py tests/contract/test_original_and_oracle.py tests/contract/test_edits.py tests/methods

test-all: setup lint
	$(RUN) $(BIN)/python -m pytest

# Small inputs from public reports, where they lie beside the repository: see tests/test_cases.py.
cases: setup
	$(RUN) $(BIN)/python -m pytest tests/test_cases.py -v

bench: setup
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-disable-gc -s -p no:xdist

# Trains the small models that come with mu anew, and writes them to mu/backbones/embedded: about an hour and a half on one core.
FIT := $(RUN) $(BIN)/mu fit -c
ASSET := $(RUN) $(BIN)/python -m mu.cli.embed

embedded: setup
	$(RUN) $(BIN)/python -m tasks.shapes.blank_model runs/embedded/blank
	$(FIT) configs/task/shapes_autoencoder.yaml --model.backbone.model runs/embedded/blank --run runs/embedded/autoencoder
	$(RUN) $(BIN)/python -m tasks.shapes.blank_model runs/embedded/blank --autoencoder runs/embedded/autoencoder
	$(FIT) configs/task/shapes_pretrain.yaml --model.backbone.model runs/embedded/blank --run runs/embedded/shapes
	$(FIT) configs/task/digits_diffusion.yaml --run runs/embedded/digits
	$(FIT) configs/task/digits_judge.yaml --run runs/embedded/judge_digits
	$(FIT) configs/task/shapes_judge.yaml --data.concept circle --run runs/embedded/judge_shape
	$(FIT) configs/task/shapes_judge.yaml --data.concept red --run runs/embedded/judge_colour
	$(FIT) configs/task/shapes_judge.yaml --data.concept dark --model.backbone.num_classes 4 --run runs/embedded/judge_background
	$(ASSET) judge_digits runs/embedded/judge_digits --classes 0,1,2,3,4,5,6,7,8,9
	$(ASSET) judge_shape runs/embedded/judge_shape --classes circle,square,triangle,star,cross,none
	$(ASSET) judge_colour runs/embedded/judge_colour --classes red,green,blue,yellow,purple,none
	$(ASSET) judge_background runs/embedded/judge_background --classes dark,light,striped,none
	$(ASSET) digits runs/embedded/digits
	$(ASSET) shapes runs/embedded/shapes
	$(RUN) $(BIN)/python -m tests.backbones.embedded.quality --grid runs/embedded/grid.png
	$(RUN) $(BIN)/python -m tasks.authors.blank_model runs/embedded/authors_blank
	$(FIT) configs/task/authors_pretrain.yaml --model.backbone.model runs/embedded/authors_blank --run runs/embedded/authors
	$(FIT) configs/task/authors_oracle.yaml --model.backbone.model runs/embedded/authors_blank --run runs/embedded/authors_oracle
	$(ASSET) authors runs/embedded/authors
	$(ASSET) authors_oracle runs/embedded/authors_oracle
	$(RUN) $(BIN)/python -m tests.backbones.embedded.quality_text

# The site in docs/_build/html; a warning is an error. Needs no network. MU_EXECUTE=1 executes the tutorials
# (some ten minutes, once: their output is cached).
docs: setup
	$(RUN) $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

wheel: setup
	$(BIN)/python -m build --wheel

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache docs/_build docs/_generated docs/methods
