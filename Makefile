# What people and CI run. The first target that needs it makes .venv, which takes a few minutes.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-all lint bench

help:
	@echo "make demo      search a small network on real data that ships with scikit-learn; writes runs/demo"
	@echo "make test      the tests, without those that need minutes"
	@echo "make test-all  every test"
	@echo "make lint      ruff and mypy"
	@echo "make bench     every script in benchmarks/"

demo: $(READY)
	$(BIN)/prunas demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy prunas tests

bench: $(READY)
	set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

# torch comes first and torchvision alone: torchvision asks for a torch of its own version, and a
# resolver that sees both at once may trade a CPU build that was offered for the CUDA build.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) torch hatchling
	$(INSTALL) --no-deps torchvision
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	touch $@
