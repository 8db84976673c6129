# Recollect: `make up` and `make test` are all a fresh machine needs.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
READY := $(VENV)/.ready
DEEP := $(VENV)/.deep
CLUSTER := $(VENV)/.cluster
NODE := $(VENV)/node
# pip needs the network only here; everything later runs offline. Errors only: warnings are about the user's pip settings.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq

DATA ?=
REPLICAS ?=
PORT ?=

BASE ?=
EXTRAS ?=
TAG ?=
BUILDER ?=
TRAINING_EXTRAS ?=

UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
  --no-header --only-binary :all: --upgrade

.PHONY: setup deep cluster node image image-check up check suite test coverage long bench peers compare lock clean help

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(READY) ## Make .venv with everything locked by hash

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Recollect needs Python 3.11 or newer as '$(PYTHON)'; name another with: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "Recollect needs Python's venv module; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@echo "making $(VENV) with what requirements.lock names; this may take a minute"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@# The lock is complete. An older pip that resolves it again stops when a dependency has a newer release.
	@$(PIP) install --no-deps --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@# With -qq a failing check would say nothing.
	@$(PIP:-qq=) check >$(VENV)/.check 2>&1 || { cat $(VENV)/.check >&2; exit 1; }
	@echo "compiling the kernels of training; this may take another half minute"
	@$(BIN)/python -m ops.kernels
	@touch $@

deep: $(DEEP) ## Add PyTorch to .venv, for networks (200 MB, or some GB with the libraries of a GPU)

$(DEEP): $(READY) requirements-deep.lock
	@echo "adding PyTorch to $(VENV); this may take a few minutes"
	@$(PIP) install --no-deps --require-hashes --requirement requirements-deep.lock
	@# Which build of PyTorch it is, for processors or with the libraries of a GPU, is the choice of the local pip.
	@$(PIP) install --no-build-isolation --editable '.[deep,ann]'
	@$(PIP:-qq=) check >$(VENV)/.check 2>&1 || { cat $(VENV)/.check >&2; exit 1; }
	@touch $@

cluster: $(CLUSTER) ## Add Ray to .venv, for training and bulk generation on many machines (300 MB)

$(CLUSTER): $(READY) requirements-cluster.lock
	@echo "adding Ray to $(VENV); this may take a minute"
	@$(PIP) install --no-deps --require-hashes --requirement requirements-cluster.lock
	@$(PIP:-qq=) check >$(VENV)/.check 2>&1 || { cat $(VENV)/.check >&2; exit 1; }
	@touch $@

node: $(NODE)/.ready ## Add ONNX Runtime for Node.js to .venv, for the test that runs exported networks there

# No script of the package runs: it would download the libraries of a GPU.
$(NODE)/.ready: $(READY) tests/node/package.json tests/node/package-lock.json
	@mkdir -p $(NODE)
	@cp tests/node/package.json tests/node/package-lock.json $(NODE)
	@cd $(NODE) && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

image: ## Build the container images with docker, podman or buildah (BASE=NAME EXTRAS="embedded ann" TAG=recollect)
	@$(PYTHON) -m ops.containers.build_image $(if $(TAG),--tag '$(TAG)') $(if $(BASE),--base '$(BASE)') \
	  $(if $(EXTRAS),--extras '$(EXTRAS)') $(if $(TRAINING_EXTRAS),--training-extras '$(TRAINING_EXTRAS)') $(if $(BUILDER),--builder '$(BUILDER)')

image-check: setup ## Build the container images and run them; needs root, buildah and debootstrap, and takes some minutes
	RECOLLECT_TEST_LONG=1 $(BIN)/pytest --quiet --timeout 900 tests/integration/test_image.py

up: setup ## Start everything on this machine (DATA=PATH REPLICAS=3 PORT=8080)
	@exec $(BIN)/recollect up $(if $(DATA),--data '$(DATA)') $(if $(REPLICAS),--replicas $(REPLICAS)) $(if $(PORT),--port $(PORT))

check: setup ## Lint, types, layout and documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy service telemetry loadbalancer ops tests
	$(BIN)/pytest --quiet tests/test_layout.py tests/test_docs.py

# One worker more than cores: many tests wait for processes. An environment that forbids compiled files would make every
# worker compile all tests, and every process that a test starts its own sources.
SUITE := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses $$(($$(nproc) + 1)) --maxprocesses 5

# Without the files that `check` runs.
suite: setup
	$(SUITE) --ignore tests/test_layout.py --ignore tests/test_docs.py

# Side by side: the type checker uses one core, and tests wait for processes. Both are finished, whichever fails.
test: setup ## Everything in check, and the whole test suite
	@$(MAKE) --no-print-directory --jobs 2 --keep-going check suite

# Apart from the others, because tracing takes a third of the time, most of it in the start of processes.
coverage: check ## The whole test suite, and which lines it did not run
	$(SUITE) --cov --cov-report=term

long: setup ## The long forms of the property tests, then the whole failure drill
	RECOLLECT_TEST_LONG=1 $(BIN)/pytest --quiet --timeout 3600 tests/telemetry/wal/test_spool_properties.py \
	  tests/telemetry/wal/test_spool_corruption.py tests/telemetry/wal/test_rewind_properties.py tests/telemetry/test_producer.py \
	  tests/integration/test_cluster.py
	$(BIN)/recollect chaos --faults R1 --duration 300 --every 2
	$(BIN)/recollect chaos --faults all

bench: setup ## Recommend route against bare aiohttp (DATA=PATH), telemetry against bare redis-py, and an API key
	$(BIN)/python -m ops.benchmarks recommend --min-ratio 0.25 $(if $(DATA),--data '$(DATA)')
	$(BIN)/python -m ops.benchmarks telemetry --rounds 3 --max-offer-us 10 --max-total-us 15 --min-archived 20000
	$(BIN)/python -m ops.benchmarks keys --max-us 3

peers: $(PEERS)/.ready ## Make .venv-peers with the public libraries that compare runs (6 GB, most of it for LensKit)

$(PEERS)/.ready: ops/benchmarks/peers/peers.txt
	rm -rf $(PEERS)
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --requirement ops/benchmarks/peers/peers.txt
	@touch $@

compare: setup peers ## Our models beside those of scikit-surprise, implicit and LensKit (DATA=PATH)
	$(BIN)/python -m ops.benchmarks models --check $(if $(DATA),--data '$(DATA)',--data demo)

lock: ## Resolve requirements.lock, requirements-deep.lock and requirements-cluster.lock anew (needs uv)
	$(UV_COMPILE) --extra embedded --extra train --extra dev pyproject.toml -o requirements.lock
	@# What the extras add to requirements.lock, without PyTorch and what only its GPU build needs.
	$(UV_COMPILE) --extra deep --extra ann --constraint requirements.lock pyproject.toml | awk ' \
	  NR == FNR { if (/^[a-z]/) locked[$$1]; next } \
	  /^[a-z]/ { kept = !($$1 in locked) && $$1 !~ /^(torch|triton|cuda-.*|nvidia-.*)==/ } kept' \
	  requirements.lock - >requirements-deep.lock
	@# What Ray adds to requirements.lock.
	$(UV_COMPILE) --extra cluster --constraint requirements.lock pyproject.toml | awk ' \
	  NR == FNR { if (/^[a-z]/) locked[$$1]; next } \
	  /^[a-z]/ { kept = !($$1 in locked) } kept' \
	  requirements.lock - >requirements-cluster.lock

clean: ## Remove what setup and the tools made; state in var/ and logs/ stays
	rm -rf $(VENV) $(PEERS) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
