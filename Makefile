# Two commands do everything on a fresh machine: `make train` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: train test check reliability bench clean

test check reliability: export OMP_NUM_THREADS = 1  # two test processes on two cores

train: $(STAMP)  ## the main job on the embedded default: base model, full DAPO, held-out proof
	$(BIN)/burnish train $(ARGS)

test: $(STAMP)  ## the whole suite
	$(BIN)/pytest -n 2 --dist worksteal

check: $(STAMP)  ## the inner loop: lint, types, import contracts, quick tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

reliability: $(STAMP)  ## everything that may go wrong, as often as promised: about half an hour
	$(BIN)/pytest -n 2 --dist worksteal -m reliability --long --table runs/reliability.md

bench: $(STAMP)
	$(BIN)/python -m benchmarks.step $(ARGS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv runs
