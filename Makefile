# Two commands: `make bench` runs the main job, `make test` the tests; both set up what they need.
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: bench test test-long lint docs docs-site published clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "making $(VENV) and installing Levelfield with its tools (about a minute)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# A framework whose environment cannot be built costs its own cells, not the run: hence the dash.
bench: $(VENV)/.installed
	-$(BIN)/levelfield env build --suite quick
	$(BIN)/levelfield run quick

# Tests that measure have the machine to themselves; all others share its cores.
test: $(VENV)/.installed
	$(BIN)/levelfield env build --suite tiny
	$(BIN)/python -m pytest -n logical -m 'not alone and not long'
	$(BIN)/python -m pytest -m 'alone and not long'

# Arms that a machine may lack, and every model where `test` takes one net of each kind.
test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py tests/test_words.py -q

docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py

# The site of the documentation in build/site; a dead link ends the build.
docs-site: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What the runs in the repository say, in full digits: only where one was made again, or results are
# meant to change.
published: $(VENV)/.installed
	$(BIN)/python docs/published.py

clean:
	rm -rf $(VENV) build *.egg-info
