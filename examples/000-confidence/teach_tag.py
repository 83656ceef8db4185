"""Teach the embedded base to say how sure it is, so that there is something to train: seconds of supervised learning.

The word is drawn by lot: after this the model always writes a tag, which says nothing about whether it is right.

    python teach_tag.py OUT
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish.assets import embedded_base_path
from burnish.prompts.tasks import task

UPDATES = 200
ROWS = 32
TRAIN_ROWS, HELD_OUT_ROWS = 400, 60
TARGETS = {"2": 0.95, "3": 0.5}
"""Digits -> how sure one should be."""


def teach(out: Path) -> None:
    """The base with a tag before each answer, as a model directory."""
    base = embedded_base_path()
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng, add23 = Random(1), task("add23")
    problems = add23.problems("train", seed=1)
    for _ in range(UPDATES):
        rows, labels = [], []
        for prompt in islice(problems, ROWS):
            asked = tokenizer.apply_chat_template(list(prompt.messages), add_generation_prompt=True)["input_ids"]
            said = f"<confidence>{rng.choice(('high', 'low'))}</confidence>"
            text = said + add23.worked(prompt, rng.choice(("direct", "steps")), rng) + tokenizer.eos_token
            completion = tokenizer.encode(text, add_special_tokens=False)
            rows.append(torch.tensor([*asked, *completion]))
            labels.append(torch.tensor([*[-100] * len(asked), *completion]))
        ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        labels_BT = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        model(input_ids=ids_BT, labels=labels_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def write_rows(path: Path, split: Any, num_rows: int) -> None:
    """Rows with a target, as regression wants it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for prompt in task("add23").sample(num_rows, split, seed=3):
            row = {
                "prompt": prompt.messages[-1]["content"],
                "answer": prompt.answer,
                "target_confidence": TARGETS[prompt.meta["bucket"]],
            }
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    teach(folder / "model")
    write_rows(folder / "train.jsonl", "train", TRAIN_ROWS)
    write_rows(folder / "test.jsonl", "heldout", HELD_OUT_ROWS)
