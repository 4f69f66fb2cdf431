# Two commands: `make demo` and `make test`. Any Python 3.10-3.13: make demo PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
VENV310 ?= .venv-py310
BIN := $(VENV)/bin
SOURCES := spikeport toolchain hw_models exports tests notebooks benchmarks docs

# Tests start hundreds of interpreters, each of which would compile all sources.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types docs unit test-py310 clean

demo: $(VENV)/.installed
	$(BIN)/spikeport demo

test: lint types docs unit

lint: $(VENV)/.installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/vulture
	$(BIN)/codespell $(SOURCES) *.md mkdocs.yml

types: $(VENV)/.installed
	$(BIN)/mypy

# The site, into site/; a warning is an error.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# One thread per process; tests that watch the machine's processes and memory run by themselves.
unit: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder \
	  -m "not alone"
	$(BIN)/python -m pytest -m alone

$(VENV)/.installed: requirements/lock.txt requirements/torch.txt requirements/lava.txt \
    requirements/peers.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "spikeport needs Python 3.10 to 3.13; try: make PYTHON=python3.11"; exit 2; }
	@echo "installing pinned requirements into $(VENV). Where pip finds torch with CUDA, 5.6 GB are"
	@echo "downloaded; with torch's CPU build 1.2 GB: README.md says how to have it."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_OPTIONS) -r requirements/torch.txt -r requirements/lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python -r requirements/lava.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/peers.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# The conformance pack on the stack upstream supports: Python 3.10, numpy 1.26, no torch.
test-py310: $(VENV310)/.installed
	$(VENV310)/bin/python -m pytest -c tests/conformance/pytest.ini tests/conformance

$(VENV310)/.installed: requirements/conformance.txt requirements/lock.txt requirements/lava.txt
	@python310=$$(./.ci/find-python310) || \
	  { echo "test-py310 needs a Python 3.10 (PATH, pyenv or uv); none was found"; exit 2; }; \
	$$python310 -m venv $(VENV310)
	$(VENV310)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/conformance.txt
	@$(VENV310)/bin/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is not None)' || \
	  { echo "torch must not be installed in $(VENV310)"; exit 2; }
	@touch $@

clean:
	rm -rf $(VENV) $(VENV310) build dist site *.egg-info
