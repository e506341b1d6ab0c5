# Two commands for a fresh machine: `make demo` and `make test`. `make check` adds the linters.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# LOCKED=1: the very libraries of locks/, by their hashes, as CI and the image have them; else what
# the ranges of pyproject.toml allow today
LOCKED ?=

# each test worker, and each broker that a test starts, would compile everything again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test soak swarm browser faults check lock clean

demo: $(VENV)/.installed
	$(BIN)/agent-broker demo $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/pytest

# what `make test` leaves out: many thousand faults from a seed, with a table of what became of them
# (docs/reliability.md), and more seeds, versions, rounds and examples of the same
soak: faults
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest -m 'soak or hypothesis'

# a swarm of five engines in network namespaces that loses them; for root, needs dockerd
swarm: $(VENV)/.installed-dev
	REQUIRE_DOCKER=1 $(BIN)/pytest -n 0 -m '' -s -p no:randomly tests/docker/test_swarm_nodes.py tests/docker/test_swarm_runtimes.py tests/e2e/test_swarm.py

# the page in a real browser; PICTURES=DIR keeps what was seen
browser: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[browser]'
	$(BIN)/pytest -n 2 -m '' tests/browser

faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.soak $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, this is " + sys.version.split()[0] + "; hint: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml $(if $(LOCKED),locks/dev.txt)
ifeq ($(LOCKED),)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	touch $@ $(VENV)/.installed

# Renew the locks: the newest libraries that the ranges allow, for Python 3.11 and every later one.
lock: $(VENV)/.created
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) --extra kubernetes -o locks/run.txt
	$(LOCK) --extra dev --constraint locks/run.txt -o locks/dev.txt

LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' pyproject.toml locks/build.in

clean:
	rm -rf $(VENV) build dist *.egg-info
