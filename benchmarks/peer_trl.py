"""TRL's side of `peers.py`: whole steps through `GRPOTrainer`. Runs in TRL's own environment.

    .venv-bench/bin/python -m benchmarks.peer_trl JOB --variant tuned

The loss is `loss_type="dapo"` with clips 0.2 and 0.28, one optimiser step per rollout, four micro-batches, constant
rate, no KL, no evaluation, no logger, no checkpoint. A variant is what else is set:

    defaults  nothing: bfloat16 autocast and gradient checkpointing, as TRL sets them itself
    fp32      float32 throughout
    tuned     float32, no gradient checkpointing, a static key-value cache: the fastest settings found on a CPU

Generation is what `_generate` takes, from prompts to token ids and text. The update is the step without everything in
`_prepare_inputs`: forward and backward passes, clipping, the optimiser, and the trainer's own loop.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.measure import Job, Step, Stopwatch, peak_mb, report
from benchmarks.models import as_text

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "fp32": {"bf16": False},
    "tuned": {"bf16": False, "gradient_checkpointing": False, "cache_implementation": "static"},
}


class TimedTrainer(GRPOTrainer):
    stopwatch: Stopwatch
    tokens = 0

    def _generate(self, *args: Any, **options: Any) -> Any:
        with self.stopwatch("generate"):
            found = super()._generate(*args, **options)
        self.tokens += sum(map(len, found[1]))
        return found

    def _prepare_inputs(self, *args: Any, **options: Any) -> Any:
        with self.stopwatch("prepare"):
            return super()._prepare_inputs(*args, **options)


class Laps(TrainerCallback):
    """Ends a lap with every step."""

    def __init__(self, trainer: TimedTrainer, rows: int) -> None:
        self.trainer, self.rows, self.steps = trainer, rows, list[Step]()

    def on_train_begin(self, *args: Any, **options: Any) -> None:
        self.trainer.stopwatch.lap(tokens=0, sequences=0)

    def on_step_end(self, *args: Any, **options: Any) -> None:
        step = self.trainer.stopwatch.lap(tokens=self.trainer.tokens, sequences=self.rows)
        for seconds in (step.wall, step.cpu):
            seconds["update"] = seconds["step"] - seconds.pop("prepare")
        self.trainer.tokens = 0
        self.steps.append(step)


def parity(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """1 for an odd number of tokens."""
    return [float(len(ids) % 2) for ids in completion_ids]


def trained(job: Job, variant: str, *, use_cpu: bool = True) -> tuple[float, list[Step]]:
    """Memory held once the model is there, in MB, and all steps."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(job.model)  # AutoTokenizer takes it for Qwen2's own
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    loaded_mb = peak_mb()
    rows = job.prompts_per_step * job.group_size
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder, use_cpu=use_cpu, seed=job.seed, max_steps=job.steps,
            per_device_train_batch_size=job.rows_per_piece, gradient_accumulation_steps=rows // job.rows_per_piece,
            num_generations=job.group_size, max_completion_length=job.max_new_tokens, temperature=1.0,
            loss_type="dapo", epsilon=0.2, epsilon_high=0.28, beta=0.0, learning_rate=1e-6,
            lr_scheduler_type="constant", shuffle_dataset=False, save_strategy="no", report_to="none",
            disable_tqdm=True, **VARIANTS[variant],
        )  # fmt: skip
        trainer = TimedTrainer(
            model=model,
            reward_funcs=parity,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": [as_text(ids) for ids in job.prompts]}),
            processing_class=tokenizer,
        )
        trainer.stopwatch = Stopwatch()
        laps = Laps(trainer, rows)
        trainer.add_callback(laps)
        trainer.train()
    return loaded_mb, laps.steps


def measure(job: Job, variant: str) -> None:
    loaded_mb, steps = trained(job, variant)
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    report(steps, loaded_mb=loaded_mb, versions=versions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--variant", default="defaults", choices=sorted(VARIANTS))
    args = parser.parse_args()
    job = Job.read(args.job)
    torch.set_num_threads(job.threads)
    measure(job, args.variant)


if __name__ == "__main__":
    main()
