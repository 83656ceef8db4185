"""What the end-to-end tests share: the command line, called as a user calls it, and small models in directories.

The models answer at random in the right form (`Answer:7`), so that rewards differ within a group from the first step,
as they do for a real base.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from burnish import cli
from tests.tiny_models import MODELS, word_tokenizer

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"

TINY_STEPS = (
    "train.threads=1",
    "train.steps=2",
    "train.updates_per_step=2",
    "sampling.prompts_per_step=4",
    "sampling.group_size=8",
    "sampling.max_new_tokens=8",
    "optimizer.learning_rate=1e-3",
)
"""Two steps of two updates: seconds."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def burnish(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs one command in this process, since importing torch takes longer than a step."""

    def run(*words: object) -> Ended:
        capfd.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as ended:  # argparse refuses words by leaving
            code = ended.code if isinstance(ended.code, int) else 1
        written = capfd.readouterr()
        return Ended(code, written.out, written.err)

    return run


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family -> a directory as `save_pretrained` leaves it, made once."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            tokenizer = word_tokenizer()
            model = MODELS[family](len(tokenizer))
            _teach_the_form(model, tokenizer)
            made[family] = tmp_path_factory.mktemp("models") / family
            model.save_pretrained(made[family])
            tokenizer.save_pretrained(made[family])
        return made[family]

    return make


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """45 sums of two digits whose answer is one digit, as JSONL."""
    return write_rows(
        tmp_path / "sums.jsonl",
        [{"prompt": f"{a}+{b}", "answer": str(a + b)} for a in range(9) for b in range(9 - a)],
    )


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _teach_the_form(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Train on `Answer:` and a random digit for a second or so."""
    rng = torch.Generator().manual_seed(1)
    digits = torch.tensor([tokenizer.get_vocab()[digit] for digit in "0123456789"])
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in ("<|assistant|>Answer:", "<eos>"))
    user = tokenizer.encode("<|user|>0+0<|end|>", add_special_tokens=False)
    rows_BT = torch.tensor([[*user, *before, 0, *after]]).repeat(32, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        for column in (1, 3, len(user) + len(before)):
            rows_BT[:, column] = digits[torch.randint(10, (32,), generator=rng)]
        logits_BTV = model(input_ids=rows_BT[:, :-1]).logits[:, len(user) :]
        torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), rows_BT[:, len(user) + 1 :].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
