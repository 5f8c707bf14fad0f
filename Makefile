# `make quickstart` and `make test` work in a fresh clone with python3 (3.11 or newer), make and a package index.
# Options: PYTHON=python3.12, VENV=.venv, WORKERS=2 (test processes), ARGS="--full" (passed to the command that is run).

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
ARGS    ?=
DATA    ?=
WHEELS  ?=
NAMES   ?=

BIN     := $(VENV)/bin
CREATED := $(VENV)/.created
CORE    := $(VENV)/.core
TOOLS   := $(VENV)/.tools
PAGES   := $(VENV)/.pages

.DEFAULT_GOAL := help
.NOTPARALLEL:
XLA_CACHE := $(CURDIR)/.cache/xla

.PHONY: bench coverage docs faults gpu gpu-wheels help quickstart sweeps test lint test-slow test-wheel format clean distclean

help:
	@echo "make quickstart   install into $(VENV) and run the main job (ARGS=--full for every method)"
	@echo "make test         lint, types and the tests"
	@echo "make coverage     the tests once more, with the share of the code that they run (at least 90 %)"
	@echo "make test-slow    the tests that take minutes"
	@echo "make test-wheel   the built wheel alone, in two fresh environments, lowest and newest versions: two quickstarts"
	@echo "make sweeps DATA=cifar10.npz   what each property of a chip costs: the figures and tables of docs/"
	@echo "make bench        speed, memory and compile time as ratios to the plain XLA operation (ARGS=\"--series --wait\": all of it)"
	@echo "make faults       faults injected into banks, saved runs and a server: docs/reliability.md, twenty minutes"
	@echo "make gpu          what an accelerator has to show, in four minutes (WHEELS=, DATA=; ARGS=--toy on a CPU): docs/accelerator.md"
	@echo "make gpu-wheels   fetches beforehand what a bare machine lacks, into WHEELS="
	@echo "make docs         the pages as a site: build/docs/html/index.html, opened without a server; every example on them runs"
	@echo "make format       let ruff mend and format the code"
	@echo "make clean        remove caches and builds; make distclean removes $(VENV) too"

quickstart: $(CORE)
	$(BIN)/xbm quickstart $(ARGS)

sweeps: $(CORE)
	@test -n "$(DATA)" || { echo "Name CIFAR-10 images: make sweeps DATA=cifar10.npz" >&2; exit 1; }
	$(BIN)/python -m experiments.chip_sweeps --source-data $(DATA) $(ARGS)

# Tests compile thousands of small programs, many of them alike: workers, and the next run, read them from a cache.
test test-slow coverage faults: export JAX_COMPILATION_CACHE_DIR ?= $(XLA_CACHE)
test test-slow coverage faults: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.1
# Most of their time is the compiler's: what runs every time is compiled with little optimisation, slow tests as users do.
test coverage: export JAX_DISABLE_MOST_OPTIMIZATIONS ?= 1

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

lint: $(TOOLS)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

# Measuring what runs makes every test a quarter slower.
coverage: $(TOOLS)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" --cov --cov-fail-under=90 $(ARGS)

test-slow: $(TOOLS)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow $(ARGS)

# Needs no environment of ours: it makes two. ARGS=lowest or ARGS=newest tries one of them.
test-wheel: $(CREATED)
	$(BIN)/python tools/try_wheel.py $(ARGS)

bench: $(CORE)
	$(BIN)/python -m benchmarks.run $(ARGS)

faults: $(TOOLS)
	$(BIN)/python -m reliability.run $(ARGS)

# On the machine's own Python, which has JAX for its accelerator: nothing is installed but WHEELS, beside the results.
gpu:
	PYTHONPATH=src:. $(PYTHON) -m experiments.gpu $(if $(WHEELS),--wheels $(WHEELS)) $(if $(DATA),--data $(DATA)) $(ARGS)

gpu-wheels: $(CORE)
	@test -n "$(WHEELS)" || { echo "Name a folder for them: make gpu-wheels WHEELS=wheels" >&2; exit 1; }
	$(BIN)/python -m experiments.gpu.packages --wheels $(WHEELS) $(ARGS) $(NAMES)

# Warnings are errors: a link that leads nowhere, a page that no list has. Nothing is fetched, no notebook is run.
docs: $(PAGES)
	$(BIN)/python -m tools.page_examples
	$(BIN)/python -m sphinx -c docs -b html -W --keep-going -q $(ARGS) . build/docs/html
	@echo "build/docs/html/index.html"

format: $(TOOLS)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:
	rm -rf build dist htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis .cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	@if [ -e $(CREATED) ]; then rm -rf $(VENV); fi

# The environment. Every step leaves a stamp when it has finished; `.installing` stands while pip works, and where it is
# found again that work was cut short: the environment is then made anew, since pip takes a half-copied package for a whole one.
define install
@if [ -e $(VENV)/.installing ]; then \
    echo "An earlier install into $(VENV) was cut short: starting it again."; \
    $(PYTHON) -m venv --clear $(VENV) && touch $(CREATED); \
fi
@touch $(VENV)/.installing
@echo "Installing $(1) into $(VENV): the first time about 1 GB on disk and a few minutes."
$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '$(1)'
@rm -f $(VENV)/.installing
endef

$(CREATED):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: xbm_jax needs Python 3.11 or newer." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "xbm_jax needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(CORE): pyproject.toml $(CREATED)
	$(call install,.)
	@touch $@

$(PAGES): pyproject.toml $(CREATED)
	$(call install,.[docs])
	@touch $(CORE) $@

$(TOOLS): pyproject.toml $(CREATED)
	$(call install,.[test])
	@touch $(CORE) $@
