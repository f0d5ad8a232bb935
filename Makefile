# Two commands do everything on a machine with Python, pip, make and gcc: `make reproduce` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: reproduce test lint types unit clean

reproduce: $(VENV)/installed
	$(BIN)/disintegrate reproduce --quick --out reproduction-quick

test: $(VENV)/installed lint types unit

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/mypy

unit: $(VENV)/installed
	$(BIN)/pytest

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) reproduction reproduction-quick .mypy_cache .pytest_cache .ruff_cache .hypothesis
