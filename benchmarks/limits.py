"""What this machine could do at best: the model's matrix products alone, and the rate at which memory is read.

    python -m benchmarks.limits JOB

The products of one token through all layers and through the head are timed on the model's own shapes, with as many rows
as the step decodes at once, and for training with rows enough to keep the machine busy. No decoder can be faster than
the first, and no update faster than three times the second (output, gradient of the input, gradient of the weight) for
every completion token and for every prompt once. Each time is the shortest of several, which other load disturbs least.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig

from benchmarks.measure import Job

TRAINING_ROWS = 2048
REPEATS = 5
READ_BYTES = 2**29


def shortest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs, after one that warms up."""
    work()
    seconds: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def layer_weights(config: AutoConfig) -> list[tuple[int, int]]:
    """(outputs, inputs) of the matrices of one layer; those that read the same input in one, as a decoder may."""
    head = config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    return [
        (queries + 2 * keys, config.hidden_size),
        (config.hidden_size, queries),
        (2 * config.intermediate_size, config.hidden_size),
        (config.hidden_size, config.intermediate_size),
    ]


def forward(outputs: int, inputs: int, rows: int) -> float:
    """Seconds of one product for one row."""
    x, w, y = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.empty(rows, outputs)
    return shortest(lambda: torch.mm(x, w.T, out=y)) / rows


def training(outputs: int, inputs: int, rows: int) -> float:
    """Seconds of a product and of both of its gradients for one row."""
    x, w, y = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.empty(rows, outputs)
    dx, dw = torch.empty_like(x), torch.empty_like(w)

    def all_three() -> None:
        torch.mm(x, w.T, out=y)
        torch.mm(y, w, out=dx)
        torch.mm(y.T, x, out=dw)

    return shortest(all_three) / rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    job = Job.read(parser.parse_args().job)
    torch.set_num_threads(job.threads)
    config = AutoConfig.from_pretrained(job.model)
    rows, training_rows = job.prompts_per_step * job.group_size, TRAINING_ROWS
    head = (config.vocab_size, config.hidden_size)
    square, read = torch.randn(2048, 2048), torch.ones(READ_BYTES // 4)
    found = {
        "decode_layers": config.num_hidden_layers * sum(forward(*w, rows) for w in layer_weights(config)),
        "decode_head": forward(*head, rows),
        "train_layers": config.num_hidden_layers * sum(training(*w, training_rows) for w in layer_weights(config)),
        "train_head": training(*head, training_rows // 4),
        "gemm_gflops": 2 * 2048**3 / shortest(lambda: square @ square) / 1e9,
        "read_gb_s": READ_BYTES / shortest(read.sum) / 1e9,
    }
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
