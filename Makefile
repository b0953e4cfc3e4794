# setup, demo, check and test need only python3 (3.9, 3.10 or 3.11, or uv) and make.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PEER := .venv-pytorch
PEER_STAMP := $(PEER)/.installed
BEAM := .venv-beam
BEAM_STAMP := $(BEAM)/.installed

.PHONY: setup demo check test test-long test-fast coverage test-beam docs bench bench-pytorch bench-build real start lint lock clean

setup: $(STAMP)

$(STAMP): requirements.lock setup.cfg setup.py pyproject.toml scripts/make_venv.sh
	@echo "Installing the locked packages into $(VENV): a minute or two."
	@sh scripts/make_venv.sh $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(PY) train.py --mode reproduce --config embedded --workdir runs/demo

# Everything but the tests: minutes, most of them for mypy.
check: setup lint
	$(PY) -m mypy
	$(PY) -m pytest -q tests/unit/test_imports.py
	$(PY) -m pytest -q --doctest-modules tfmetareg tfrecords_builder
	@$(MAKE) --no-print-directory docs

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# One worker per processor, four at most; each needs about 2.5 GB.
WORKERS := -n auto --maxprocesses 4 --dist loadfile

test: setup
	$(PY) -m pytest $(WORKERS) -m "not long"

# What `make test` leaves out: whole comparisons, kills of builds, the wheel, the notebook.
test-long: setup
	$(PY) -m pytest $(WORKERS) -m long

# The tests that take no training, no large graphs and no other process: a few minutes on two cores.
test-fast: setup
	$(PY) -m pytest $(WORKERS) -q -m "not slow"

# What the fast tests run through; `make coverage MARK=` of the whole suite, which takes half as long again as without.
MARK ?= not slow

coverage: setup
	$(PY) -m pytest $(WORKERS) -q -m "$(MARK)" --cov

# The site in site/; broken links are errors (but not with --quiet).
docs: setup
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# Apache Beam brings some 16 packages (on Python 3.9 about twice as many) and older ones of others: a place of its own.
test-beam: $(BEAM_STAMP)
	$(BEAM)/bin/python -m pytest tests/unit/tfrecords_builder/test_beam.py

$(BEAM_STAMP): requirements.lock setup.cfg setup.py pyproject.toml scripts/make_venv.sh
	@echo "Installing the locked packages and Apache Beam into $(BEAM): a minute or two, once."
	@sh scripts/make_venv.sh $(BEAM)
	$(BEAM)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BEAM)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[beam]'
	touch $@

# Under half an hour; BENCH holds options, see benchmarks/README.md.
BENCH ?=

bench: setup
	@$(MAKE) --no-print-directory bench-pytorch || echo "The PyTorch peer could not be installed: left out."
	$(PY) -m benchmarks $(BENCH)

bench-pytorch: $(PEER_STAMP)

$(PEER_STAMP): benchmarks/requirements-pytorch.txt scripts/make_venv.sh
	@echo "Installing the PyTorch peer into $(PEER): a minute or two, once."
	@sh scripts/make_venv.sh $(PEER)
	$(PEER)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# 10,000 pairs in bounded memory; under ten minutes, and 6.5 GB of disk.
bench-build: setup
	$(PY) -m benchmarks.build_scale --output docs/performance

# About half an hour; see docs/results/real.
DATA ?= ../shared/data
WORK ?= runs/real

real: setup
	PYTHON=$(PY) sh scripts/real.sh $(DATA) $(WORK)

# The weights that come with the package, made again from nothing: half an hour on two quiet cores.
start: setup
	PYTHON=$(PY) sh scripts/start.sh runs/start

# Needs uv. One lock file for all three Python versions; it names no index.
lock:
	uv pip compile --quiet --universal --python-version 3.9 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --extra dev --extra docs setup.cfg -o requirements.lock

clean:
	rm -rf $(VENV) $(PEER) $(BEAM) build dist site *.egg-info
