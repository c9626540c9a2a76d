# What people and CI run. The first target that needs it makes .venv, which takes a few minutes.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-all lint bench faults coverage

help:
	@echo "make demo      search a small network on real data that ships with scikit-learn; writes runs/demo"
	@echo "make test      the tests, without those that need minutes"
	@echo "make test-all  every test"
	@echo "make lint      ruff and mypy"
	@echo "make bench     what benchmarks/ measures"
	@echo "make faults    200 runs killed and 10,000 files damaged; most of an hour"
	@echo "make coverage  all networks of timm, proven: docs/coverage.csv and its page; hours"

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

# What takes hours from its first row on, or asks what to measure, is run by itself.
STUDIES := coverage_page faults joint_space latency latency_budget schedules search_study tables transformation_accuracy
bench: $(READY)
	set -e; for script in $(filter-out $(STUDIES:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do $(BIN)/python $$script; done

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py

# An interrupted run goes on with the rows that it has.
coverage: $(READY)
	mkdir -p runs
	OMP_NUM_THREADS=1 $(BIN)/prunas coverage --jobs 2 --memory 8 --out runs/coverage.csv
	cp runs/coverage.csv docs/coverage.csv
	$(BIN)/python benchmarks/coverage_page.py

# torch comes first and torchvision alone: torchvision asks for a torch of its own version, and a
# resolver that sees both at once may trade a CPU build that was offered for the CUDA build.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) torch hatchling
	$(INSTALL) --no-deps torchvision
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	touch $@
