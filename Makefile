# `make run` and `make test` need Python 3.11 or newer and make, and nothing else.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test check lint docs sbom e2e bench clean

$(VENV)/.cpu: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.cpu
	$(PIP) --editable '.[backfill,dicom,ray,tracing,training,dev]'
	touch $@

# Install, start the service, classify the bundled radiographs through it, keep serving.
# ONCE=1 stops after the answers.
run: $(VENV)/.cpu
	$(BIN)/python deploy/smoke.py --port $(PORT) $(if $(ONCE),--once) tests/data/*.jpg tests/data/*.dcm

# Tests of what a machine lacks are skipped, and it says at the end which; so coverage is for .ci/run
test: $(VENV)/.dev
	$(BIN)/pytest $(PYTEST_ARGS)

# Lint, types and the fast tests, before every commit
check: lint
	$(BIN)/pytest -q -m "not slow" --numprocesses auto --dist loadfile

# The documentation as a site in build/site
docs: $(VENV)/.dev
	$(BIN)/python docs/reference.py
	$(BIN)/mkdocs build --quiet

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What the image for a CPU holds of Python, as CycloneDX in build/sbom.cdx.json; it fails where a
# licence is not one that a hospital can take
sbom: $(VENV)/.dev
	rm -rf .venv-sbom
	$(PYTHON) -m venv --without-pip .venv-sbom
	$(BIN)/python -m pip --python .venv-sbom/bin/python install --quiet --disable-pip-version-check \
		--constraint constraints.txt '.[tracing]'
	$(BIN)/python deploy/sbom.py .venv-sbom/bin/python build/sbom.cdx.json

# The whole of it without a cluster, in about ten minutes: the image twice behind a balancer, once on an archive
# and once beside an Orthanc, Prometheus, load, faults, a rolling update. Needs root, buildah, haproxy, and
# Prometheus and Orthanc where .ci/tools puts them. E2E_ARGS=--pictures draws the dashboards
E2E ?= build/e2e
.venv-e2e/.done: deploy/e2e/requirements.txt
	$(PYTHON) -m venv .venv-e2e
	.venv-e2e/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

e2e: $(VENV)/.dev .venv-e2e/.done
	.ci/tools $(or $(CXRVIEW_TOOLS),$(E2E)/tools)
	CXRVIEW_TOOLS=$(or $(CXRVIEW_TOOLS),$(E2E)/tools) deploy/image.sh $(or $(LAYERS),$(E2E)/image) backfill \
		$(BIN)/python -m deploy.e2e --out $(E2E)/report --tools .venv-e2e/bin $(E2E_ARGS)

# What others would run instead, each in its usual form; one of its decoders is GPL-3, so it has an
# environment of its own, which nothing else uses
.venv-rivals/.done: benchmarks/rivals/requirements.txt
	$(PYTHON) -m venv .venv-rivals
	.venv-rivals/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Start-up, memory, latency, the speed of training, and throughput beside others', as ratios in one
# run; docs/throughput.md is written from what it leaves in benchmarks/results. BENCH_ARGS=--quick
bench: $(VENV)/.dev .venv-rivals/.done
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/throughput.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/plot.py

clean:
	rm -rf $(VENV) .venv-rivals .venv-sbom .venv-e2e build .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
