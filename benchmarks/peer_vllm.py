"""vLLM's side of `peers.py`: rollouts only. Runs in vLLM's own environment.

    .venv-bench-vllm/bin/python -m benchmarks.peer_vllm JOB

Float32, without compilation, one process, log-probabilities of the sampled tokens, which training needs. A step is one
call of `generate`; starting the engine is not counted, nor are new weights brought to it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

import torch
import vllm

from benchmarks.measure import Job, Step, Stopwatch, peak_mb, report


def measure(job: Job) -> None:
    engine = vllm.LLM(
        job.model, dtype="float32", enforce_eager=True, max_num_seqs=512, max_model_len=1024, seed=job.seed
    )
    torch.set_num_threads(job.threads)
    loaded_mb = peak_mb()
    stopwatch = Stopwatch()
    steps: list[Step] = []
    for step in range(job.steps):
        ids = job.prompts[step * job.prompts_per_step : (step + 1) * job.prompts_per_step]
        # No seed: vLLM's generators on a CPU refuse one per request.
        sampling = vllm.SamplingParams(n=job.group_size, temperature=1.0, max_tokens=job.max_new_tokens, logprobs=0)
        stopwatch.lap(tokens=0, sequences=0)
        with stopwatch("generate"):
            found = engine.generate([{"prompt_token_ids": row} for row in ids], sampling, use_tqdm=False)
        completions = [completion for prompt in found for completion in prompt.outputs]
        steps.append(stopwatch.lap(tokens=sum(len(c.token_ids) for c in completions), sequences=len(completions)))
    report(steps, loaded_mb=loaded_mb, versions={"vllm": vllm.__version__, "torch": torch.__version__})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    measure(Job.read(parser.parse_args().job))


if __name__ == "__main__":
    main()
