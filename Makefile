# Two commands are enough: `make serve` and `make test`. The rest is for those who change things.
.DEFAULT_GOAL := help
.PHONY: help serve test test-gpu lint type bench train export verify tools image-test wheel clean

VENV := .venv
BIN := $(VENV)/bin
SETUP := $(BIN)/pip install --quiet --disable-pip-version-check --editable

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

serve: $(VENV)/.server ## set up what serving needs (no torch) and serve the default bundle
	$(BIN)/sensorium serve

test: $(VENV)/.dev ## set up everything and run all tests (arguments: ARGS="-k name")
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-gpu: $(VENV)/.dev ## run the tests that need an NVIDIA GPU
	$(BIN)/pytest -m gpu $(ARGS)

lint: $(VENV)/.dev ## check style and format (fix with: .venv/bin/ruff check --fix && .venv/bin/ruff format)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

type: $(VENV)/.dev ## check types of all Python but the model repository's
	$(BIN)/mypy client/sensorium server_config/sensorium_server export/sensorium_export \
	  training/sensorium_training tests benchmarks examples deploy

bench: $(VENV)/.dev ## measure served against raw ONNX Runtime; writes benchmarks/results
	$(BIN)/python benchmarks/serving_efficiency.py

train: $(VENV)/.dev ## train the default bundle from nothing (about two hours on two cores), then evaluate it
	$(BIN)/python -m sensorium_training.train
	$(BIN)/python -m sensorium_training.card

export: $(VENV)/.dev ## export the default bundle's checkpoint into model_repository
	$(BIN)/sensorium export checkpoints/playroom --repository model_repository

verify: $(VENV)/.dev ## prove served answers equal to PyTorch's, from raw bytes
	$(BIN)/sensorium verify

tools: ## fetch Prometheus and Alertmanager from Debian into .cache/tools, for the tests of monitoring
	@deploy/tools.sh

image-test: ## build the CPU image with podman on a local Debian, run it and ask it a question
	@deploy/docker/image_test.sh

wheel: $(VENV)/.dev ## build the wheel into dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove what the other targets made
	rm -rf $(VENV) .cache .run dist .pytest_cache .mypy_cache .ruff_cache

$(BIN)/pip:
	@for python in $(PYTHON) python3.11 python3.12 python3; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then \
	    echo "setting up $(VENV) with $$python"; exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "Sensorium needs Python 3.11 or 3.12 (Triton's Python stub needs NumPy 1, which ends there)." >&2; \
	echo "Install one, or name it: make serve PYTHON=/path/to/python3.12" >&2; exit 1

$(VENV)/.server: pyproject.toml | $(BIN)/pip
	$(SETUP) '.[server]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/pip
	$(SETUP) '.[dev]'
	@touch $@ $(VENV)/.server
