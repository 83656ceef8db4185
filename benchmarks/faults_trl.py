"""TRL's side of `peer_reliability.py`; see `faults.py`. Runs in TRL's own environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import accuracy_reward

from benchmarks import faults
from benchmarks.faults import GROUP_SIZE, KILLED, LEARNING_RATE, MAX_NEW_TOKENS, PROMPTS_PER_UPDATE, REWARDS, Case


class Kill(TrainerCallback):
    """Dies right after the checkpoint of an update is written."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_save(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if state.global_step == self.after:
            os._exit(KILLED)


def train(case: Case) -> Path:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(case.model)
    rule = REWARDS[case.reward]

    def reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        return [rule(len(ids), index % GROUP_SIZE) for index, ids in enumerate(completion_ids)]

    saving = {"save_strategy": "no"} if case.save_every is None else {"save_steps": case.save_every}
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(case.model, dtype=torch.float32),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=case.out, use_cpu=True, bf16=False, seed=1, max_steps=case.updates,
            per_device_train_batch_size=PROMPTS_PER_UPDATE * GROUP_SIZE, gradient_accumulation_steps=1,
            steps_per_generation=case.updates_per_generation, num_iterations=case.uses, num_generations=GROUP_SIZE,
            max_completion_length=MAX_NEW_TOKENS, loss_type="dapo", epsilon=0.2, epsilon_high=0.28, beta=0.0,
            scale_rewards="group" if case.standardized else "none", learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant", report_to="none", disable_tqdm=True, **saving,
        ),
        train_dataset=load_dataset("json", data_files=case.data, split="train", cache_dir=f"{case.out}-data"),
        processing_class=tokenizer,
    )  # fmt: skip
    if case.kill_after is not None:
        trainer.add_callback(Kill(case.kill_after))
    trainer.train(resume_from_checkpoint=case.resume or None)
    final = Path(case.out) / "final"
    trainer.save_model(str(final))
    return final


def grader() -> Callable[[str, str], float | None]:
    def grade(text: str, answer: str) -> float | None:
        return accuracy_reward([[{"role": "assistant", "content": text}]], [answer])[0]

    return grade


if __name__ == "__main__":
    faults.main(train, grader)
