# `make run` and `make test` need Python 3.11 or newer and make, and nothing else.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test lint bench clean

$(VENV)/.cpu: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[cpu]'
	touch $@

$(VENV)/.dev: $(VENV)/.cpu
	$(PIP) --editable '.[cpu,training,dev]'
	touch $@

# Install, start the service, classify the bundled radiographs through it, keep serving.
# ONCE=1 stops after the answers.
run: $(VENV)/.cpu
	$(BIN)/python deploy/smoke.py --port $(PORT) $(if $(ONCE),--once) tests/data/*.jpg tests/data/*.dcm

test: $(VENV)/.dev
	$(BIN)/pytest --cov --cov-report=term $(PYTEST_ARGS)
	$(BIN)/coverage report --include='service/*,model_store/*' --fail-under=95 --format=total

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Start-up, memory and latency of the service, and the speed of training, as ratios to their parts
# measured in the same run
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/train_step.py

clean:
	rm -rf $(VENV) .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
