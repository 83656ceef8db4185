# Two commands do everything on a fresh machine: `make train` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

BENCH := .venv-bench
VLLM := .venv-bench-vllm

.PHONY: train test check lint quick reliability bench bench-all bench-step bench-growth bench-gpu bench-reliability clean

test quick reliability: export OMP_NUM_THREADS = 1  # two test processes on two cores

train: $(STAMP)  ## the main job on the embedded default: base model, full DAPO, held-out proof
	$(BIN)/burnish train $(ARGS)

test: $(STAMP)  ## the whole suite
	$(BIN)/pytest -n 2 --dist worksteal

check: $(STAMP)  ## the inner loop: lint, types, import contracts, and beside them the quick tests
	$(MAKE) --jobs=2 lint quick

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

quick: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

reliability: $(STAMP)  ## everything that may go wrong, as often as promised: about half an hour
	$(BIN)/pytest -n 2 --dist worksteal -m reliability --long --table runs/reliability.md

bench: $(STAMP) $(BENCH)/.installed $(VLLM)/.tried  ## whole steps against TRL, rollouts against vLLM
	$(BIN)/python -m benchmarks.peers $(ARGS)

# Turns of fewer steps where a step is long: about 75 minutes in all.
bench-all: $(STAMP) $(BENCH)/.installed $(VLLM)/.tried  ## every table of docs/performance.md, one after the other
	for threads in 1 2; do \
		$(BIN)/python -m benchmarks.peers --model tiny --threads $$threads --pairs 5 $(ARGS) && \
		$(BIN)/python -m benchmarks.peers --model small --threads $$threads --pairs 3 --steps 1 $(ARGS) || exit 1; \
	done

bench-step: $(STAMP)  ## each part of a step against the plain way, without a peer
	$(BIN)/python -m benchmarks.step $(ARGS)

bench-growth: $(STAMP)  ## what becomes of the cost when groups, lengths, batch, vocabulary, data or record grow
	$(BIN)/python -m benchmarks.growth $(ARGS)

bench-gpu: $(STAMP)  ## a 0.5B model in bfloat16 on a GPU, against the plain way and TRL where it is installed
	$(BIN)/python -m benchmarks.gpu $(ARGS)

bench-reliability: $(STAMP) $(BENCH)/.installed  ## the same faults here and in TRL
	$(BIN)/python -m benchmarks.peer_reliability $(ARGS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

$(BENCH)/.installed: benchmarks/requirements-trl.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements-trl.txt
	touch $@

# vLLM is tried once, for a quarter of an hour at most; without it the benchmark leaves it out. What it needs of
# torchvision is nothing, and what PyPI has of it does not load beside torch for CPUs.
$(VLLM)/.tried: benchmarks/requirements-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	timeout 900 $(VLLM)/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements-vllm.txt \
		&& $(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec \
		&& $(VLLM)/bin/python -c "import vllm" || { echo "vLLM: not installed"; rm -rf $(VLLM)/bin; }
	touch $@

clean:
	rm -rf .venv $(BENCH) $(VLLM) runs
