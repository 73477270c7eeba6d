# Two commands for a person, each with its own set-up:
#   make demo   runs the main job (Res-Tuning on a frozen ViT, no download, CPU)
#   make test   passes the tests
# PYTHON picks the interpreter (3.11 to 3.13), VENV the environment's folder, ARGS go to the command.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

PEERS := tests/tuning/test_peft_folder.py tests/weights tests/data/test_vtab_tfds.py tests/backbones tests/planning

.PHONY: demo test lint types peers clean

demo: $(VENV)/.installed
	$(BIN)/python -m experiments.vtab --method=res_tuning $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

# The tests against the official libraries and the TPU compiler; `make test` skips them, because torch is a large download.
peers: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet "torch==2.13.*"
	$(BIN)/python -m pip install --quiet -e ".[test,hub,tfds,peers,plan]"
	$(BIN)/python -m pytest -n 2 -rs $(PEERS) $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
