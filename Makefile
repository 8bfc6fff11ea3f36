# Two commands: `make demo` and `make test`.  Each does all of its own set-up: a virtual environment from the lock, with hashes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-lock
DATA ?= ../shared/data
WORKERS ?= 2

.PHONY: demo test prism lint bench conformance acceptance docs lock wheel clean help

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agenttrail needs Python 3.11 or newer: set PYTHON")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

## make demo         simulate a training day, run the job on it, print what was found
demo: $(STAMP)
	$(BIN)/agenttrail demo --output demo-out

## make test         run every test; what needs a service that cannot be had is skipped loudly
test: $(STAMP) lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

## make prism        build Prism, the runner for streams on one machine, under ~/.cache/agenttrail; needs Go
prism: $(STAMP)
	$(BIN)/python -m agenttrail.prism

## make lint         what CI and pre-commit check
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## make bench        measure against DuckDB and naive Beam, and as a stream; writes tests/benchmarks/RESULTS.md
bench: $(STAMP)
	$(BIN)/python tests/benchmarks/bench.py
	$(BIN)/python tests/benchmarks/stream_bench.py

## make conformance  read real samples and compare with what others made of them: make conformance DATA=DIR
conformance: $(STAMP)
	$(BIN)/python -m pytest tests/conformance --data $(DATA)

## make acceptance   long runs: oracles with 20,000 cases each, 200 long timelines
##                   in a browser, ten days that nothing was tuned on, where detection ends, kills;
##                   streams: kills, ten days from topics on Prism and Flink and from files, twenty minutes at 150 times real time
ORACLES := tests/detect/analytics tests/detect/test_correlate.py tests/detect/test_correlation_needs.py tests/detect/test_nearby.py \
  tests/detect/test_settled_samples.py tests/test_conversations.py tests/test_timeline.py \
  tests/columns/test_asof.py tests/columns/test_overlaps.py tests/test_trajectories.py tests/test_rollups.py tests/test_seams.py \
  tests/report/test_drawing.py tests/report/test_browser.py
acceptance: $(STAMP)
	HYPOTHESIS_PROFILE=acceptance $(BIN)/python -m pytest -n $(WORKERS) $(ORACLES)
	$(BIN)/python tests/acceptance/accept.py
	$(BIN)/python tests/acceptance/kills.py
	$(BIN)/python tests/acceptance/stream_kills.py
	$(BIN)/python tests/acceptance/stream_days.py
	$(BIN)/python tests/acceptance/soak.py

## make docs         write docs/fields.md from the schemas, and kibana/agenttrail.ndjson from its questions
docs: $(STAMP)
	mkdir -p docs
	$(BIN)/python -c 'from agenttrail.schema import field_reference; print(field_reference(), end="")' > docs/fields.md
	$(BIN)/agenttrail elasticsearch kibana > kibana/agenttrail.ndjson

## make lock         resolve the dependencies anew
lock: $(STAMP)
	$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --allow-unsafe \
	  --strip-extras --no-header --extra dev -o requirements.lock pyproject.toml

## make wheel        build dist/*.whl
wheel: $(STAMP)
	$(BIN)/python -m hatchling build -t wheel

## make clean        remove what make made
clean:
	rm -rf $(VENV) demo-out dist build
