# Each target does all of its set-up: it needs Python 3.11 or newer, and make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# What may differ between releases of the dependencies; the laws of the model, the numerics and the damaged files do not.
VERSIONED = tests/test_import.py tests/mapping tests/query tests/results tests/labels tests/sharing/test_join.py \
  tests/reference/test_scvi_format.py tests/reference/test_cases.py tests/graft/test_store.py tests/cards/test_card.py
# The newest Python at hand that can run; empty where there is none beside $(PYTHON).
NEWEST ?= $(shell for p in python3.13 python3.12 $$HOME/.pyenv/versions/3.13*/bin/python $$HOME/.pyenv/versions/3.12*/bin/python; \
  do $$p -c "" 2>/dev/null && echo $$p && break; done)

.PHONY: demo test test-lowest test-newest fuzz lint docs benchmarks clean

$(VENV)/stamp-run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/stamp-test: $(VENV)/stamp-run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

$(VENV)/stamp-dev: $(VENV)/stamp-test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,dev]'
	touch $@

$(VENV)/stamp-docs: $(VENV)/stamp-test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	touch $@

$(VENV)/stamp-bench: $(VENV)/stamp-test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,bench]'
	touch $@

build/scvi/stamp: constraints.txt
	$(PYTHON) -m venv build/scvi
	build/scvi/bin/python -m pip install --quiet --constraint constraints.txt scvi-tools==1.4.2
	touch $@

demo: $(VENV)/stamp-run  ## Map the embedded query onto the embedded reference.
	$(BIN)/scgraft demo --out demo-out --force

test: $(VENV)/stamp-test  ## Run the tests.
	$(BIN)/python -m pytest -q -n 2

test-lowest:  ## Run what depends on versions with the lowest version of every dependency that pyproject.toml allows.
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) tests/lowest.py test > $(VENV)-lowest/lowest.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint constraints.txt --requirement $(VENV)-lowest/lowest.txt --editable .
	$(VENV)-lowest/bin/python -m pytest -q -n 2 $(VERSIONED)

test-newest:  ## The same on the newest Python at hand, with the newest versions that resolve there.
ifeq ($(NEWEST),)
	@echo "skipped: there is no Python 3.12 or newer beside $(PYTHON)"
else
	$(NEWEST) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	$(VENV)-newest/bin/python -m pytest -q -n 2 $(VERSIONED)
endif

fuzz: $(VENV)/stamp-test  ## Read damaged files for an hour (SCGRAFT_FUZZ_SECONDS, SCGRAFT_FUZZ_SEED), and print the table.
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'  # without it those tests are skipped
	SCGRAFT_FUZZ_SECONDS=$${SCGRAFT_FUZZ_SECONDS:-3600} $(BIN)/python -m pytest -q -s tests/fuzz

lint: $(VENV)/stamp-dev  ## Lint, format and type check.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/stamp-docs  ## Build the site into build/site, warnings as errors, with the tutorials executed.
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site

benchmarks: $(VENV)/stamp-bench build/scvi/stamp  ## Measure the speed beside scvi-tools.
	$(BIN)/python benchmarks/limit.py
	$(BIN)/python benchmarks/run.py --scvi build/scvi/bin/python

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest build demo-out
