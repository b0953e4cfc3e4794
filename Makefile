# setup, demo and test need only python3 (3.9, 3.10 or 3.11, or uv) and make.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PEER := .venv-pytorch
PEER_STAMP := $(PEER)/.installed

.PHONY: setup demo test bench bench-pytorch real lint lock clean

setup: $(STAMP)

$(STAMP): requirements.lock setup.cfg pyproject.toml scripts/make_venv.sh
	@echo "Installing the locked packages into $(VENV): a minute or two."
	@sh scripts/make_venv.sh $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(PY) train.py --mode reproduce --config configs/embedded.yaml --workdir runs/demo

test: setup
	$(PY) -m pytest

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

# About a quarter of an hour; see docs/results/real.
DATA ?= ../shared/data
WORK ?= runs/real

real: setup
	PYTHON=$(PY) sh scripts/real.sh $(DATA) $(WORK)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# Needs uv. One lock file for all three Python versions; it names no index.
lock:
	uv pip compile --quiet --universal --python-version 3.9 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --extra dev setup.cfg -o requirements.lock

clean:
	rm -rf $(VENV) $(PEER) build *.egg-info
