# Each target does all of its set-up: it needs Python 3.11 or newer, and make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test fuzz lint docs benchmarks clean

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

fuzz: $(VENV)/stamp-test  ## Read damaged files for an hour (SCGRAFT_FUZZ_SECONDS, SCGRAFT_FUZZ_SEED), and print the table.
	SCGRAFT_FUZZ_SECONDS=$${SCGRAFT_FUZZ_SECONDS:-3600} $(BIN)/python -m pytest -q -s tests/fuzz

lint: $(VENV)/stamp-dev  ## Lint, format and type check.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/stamp-docs  ## Build the site into build/site, warnings as errors, and execute the tutorials.
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	for source in tutorials/*.py; do $(BIN)/jupytext --to ipynb $$source; done
	$(BIN)/python -m pytest -q --nbmake tutorials

benchmarks: $(VENV)/stamp-bench build/scvi/stamp  ## Measure the speed beside scvi-tools.
	$(BIN)/python benchmarks/limit.py
	$(BIN)/python benchmarks/run.py --scvi build/scvi/bin/python

clean:
	rm -rf $(VENV) build demo-out
