# Two commands do everything on a machine with Python, pip, make and gcc: `make reproduce` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: reproduce test lint types unit conformance newcomer peers clean

reproduce: $(VENV)/installed
	$(BIN)/disintegrate reproduce --quick --out reproduction-quick

test: $(VENV)/installed lint types unit

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/mypy

# A process for each core, of one thread each; the examples of a document build on one another and stay together.
unit: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --durations 15

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Real clients and servers of the protocols (see conformance/); needs Java 17 for TorchServe.
conformance: .venv-conformance/installed
	.venv-conformance/bin/python conformance/run.py

.venv-conformance/installed: conformance/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-conformance
	.venv-conformance/bin/pip install --quiet --requirement conformance/requirements.txt
	touch $@

# The attacks of the adversarial-robustness-toolbox beside ours (see peers/).
peers: .venv-peers/installed
	.venv-peers/bin/python peers/toolbox.py

.venv-peers/installed: peers/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --requirement peers/requirements.txt
	touch $@

# docs/audit-your-endpoint.md to the letter, in an environment that holds nothing but what it tells to install.
newcomer: .venv-newcomer/installed
	.venv-newcomer/bin/pip install --quiet --no-deps --force-reinstall .
	.venv-newcomer/bin/python tests/newcomer.py

.venv-newcomer/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-newcomer
	.venv-newcomer/bin/pip install --quiet --constraint constraints.txt '.[serve]'
	touch $@

clean:
	rm -rf $(VENV) .venv-conformance .venv-newcomer .venv-peers reproduction reproduction-quick .mypy_cache .pytest_cache .ruff_cache .hypothesis
