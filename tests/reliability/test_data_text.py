"""Hostile text on its whole way: through data, training, record and plots to every command that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnish.store import queries
from burnish.terminal import UNPRINTABLE, printable, printable_lines
from tests.e2e.conftest import TINY_STEPS, Command, Ended, write_rows
from tests.tiny_models import bpe_tokenizer, tiny_llama

pytestmark = pytest.mark.slow

TEXTS = {
    "nul": "before\x00after",
    "terminal": "\x1b[31mred\x1b]0;title\x07\x1b]52;c;eA==\x07\x9b2J\x90x\x9c",
    "right to left": "\u202e\u05d0\u05d1\u2066x\u2069\u200f\u061c",
    "lines": "a\u2028b\u2029c\x85d\x0be\x0cf\rg",
    "markup": "[/x] [bold]b[/] :smile: {curly} %s %(x)s",
    "formula": '=HYPERLINK("x")\t@SUM(A1)\r\n+1',
    "mathematics": "$\\frac{1}{$ \\undefined $$",
    "astral": "\U0001f600\U000e0041\ufeff\ufffe",
    "quotes": "'; DROP TABLE steps; -- \"`\\",
}
LONG = "x\x1b[2J\u202e" * 130_000  # over a million bytes of UTF-8


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Every byte is a token of its own or a part of one, so completions hold anything too."""
    tokenizer = bpe_tokenizer()
    model = tiny_llama(len(tokenizer))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    texts = {**TEXTS, "long": LONG}
    rows = [
        {"id": f"{name} {text}"[:60], "prompt": text, "answer": text[:40], "note": text} for name, text in texts.items()
    ]
    return write_rows(tmp_path / "a$\\frac$\x1b[31m{x}.jsonl", rows)


def is_calm(ended: Ended) -> bool:
    """Whether nothing was printed that a terminal acts on."""
    return all(UNPRINTABLE.sub("", line) == line for line in (ended.out + ended.err).split("\n"))


@pytest.mark.reliability(38)
def test_a_run_on_hostile_text_completes_keeps_it_and_shows_it_escaped(
    burnish: Command, model: Path, data: Path, tmp_path: Path
) -> None:
    words = [
        f"data.train={data}",
        f"eval.data={data}",
        "data.overlong_prompts=truncate_left",
        "data.max_prompt_tokens=200",
    ]
    reward = tmp_path / "own.py"
    reward.write_text("def own(prompt, completion):\n    return float(completion.token_ids[0] % 2)\n")
    words += ["reward.style=none", f"reward.parts.own.function={reward}:own", "eval.samples=1"]
    sizes = [word for word in TINY_STEPS if "max_new" not in word]
    config = [*sizes, *words, f"model.path={model}", "sampling.max_new_tokens=12"]
    examined = burnish("doctor", *config, f"out={tmp_path / 'run'}")
    assert examined.code == 0, examined.out
    ended = burnish("train", *config, f"out={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    assert is_calm(examined)
    assert is_calm(ended)
    assert "a$\\frac$\\x1b[31m{x}" in ended.out

    with queries.open_store(tmp_path / "run/run.sqlite") as db:
        kept = dict(db.execute("SELECT text, answer FROM prompts").fetchall())
        completions = [text for step in (1, 2) for r in queries.rollouts_of_step(db, step) if (text := r.text)]
    for text, answer in kept.items():
        body = text.removeprefix("user: ")
        assert body in {**TEXTS, "long": LONG}.values()
        assert answer == body[:40]
    assert any(UNPRINTABLE.search(text) for text in completions), "the model writes bytes of all kinds"
    assert (tmp_path / "run/curves.png").read_bytes().startswith(b"\x89PNG")
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        json.loads(line)

    small = ["data.max_prompt_tokens=200", "data.overlong_prompts=truncate_left", "sampling.max_new_tokens=12"]
    evaluated = burnish("eval", model, data, *small, "eval.samples=1", "--json", tmp_path / "eval.json")
    assert evaluated.code == 0, evaluated.err
    assert is_calm(evaluated)
    assert (tmp_path / "eval.json").read_text().isascii()
    json.loads((tmp_path / "eval.json").read_text())
    for text in TEXTS.values():
        generated = burnish("generate", model, text, "-n", "2", "sampling.max_new_tokens=12")
        assert generated.code == 0, generated.err
        assert is_calm(generated)


@pytest.mark.reliability(38)
@pytest.mark.parametrize("name", TEXTS)
def test_messages_that_quote_data_quote_it_escaped(burnish: Command, tmp_path: Path, name: str) -> None:
    text = TEXTS[name]
    rows = [
        {"id": text, "prompt": text, "answer": "1", text: 1},
        {"id": text, "prompt": "another", "answer": "1"},
        {"id": "x", "prompt": text, "answer": [text]},
        {"id": "y", "prompt": "z", "answer": "1", "target_confidence": text},
    ]
    data = write_rows(tmp_path / "train.jsonl", rows)
    refused = burnish("train", f"data.train={data}", f"out={tmp_path / 'run'}")
    assert refused.code == 2
    assert is_calm(refused)
    assert "train.jsonl:2: id " in refused.err
    missing = burnish("train", f"data.train={data}", f"data.columns.prompt={text}.x", f"out={tmp_path / 'run'}")
    assert missing.code == 2
    assert is_calm(missing)
    for words in ([f"data.train=./{text}.jsonl"], [f"model.path=./{text}"], [f"{text}=1"], [f"reward.style={text}"]):
        if "\x00" not in words[0]:  # the system hands over no word with it
            ended = burnish("train", *words, f"out={tmp_path / 'run'}")
            assert ended.code == 2
            assert is_calm(ended)


@pytest.mark.reliability(38)
def test_grading_hostile_completions_gives_ascii_json(burnish: Command, tmp_path: Path) -> None:
    texts = [*TEXTS.values(), LONG]
    file = write_rows(
        tmp_path / "rows\x1b[31m.jsonl", [{"completion": f"{t}\n\\boxed{{{t}}}", "answer": t} for t in texts]
    )
    ended = burnish("grade", file)
    assert ended.code == 0, ended.err
    assert is_calm(ended)
    assert ended.out.isascii()
    assert len([json.loads(line) for line in ended.out.splitlines()]) == len(texts)
    (tmp_path / "bad\x1b.jsonl").write_text('{"completion": \x1b')
    refused = burnish("grade", tmp_path / "bad\x1b.jsonl")
    assert refused.code == 2
    assert is_calm(refused)


@pytest.mark.reliability(38)
@pytest.mark.parametrize("text", [*TEXTS.values(), "\ud800"], ids=[*TEXTS, "surrogate"])
def test_what_is_shown_can_be_read_back(text: str) -> None:
    shown = printable(text)
    assert not UNPRINTABLE.search(shown)
    if "\\" not in text:
        unescaped = UNPRINTABLE.sub("", text)
        assert all(c in shown for c in unescaped)
        assert shown.encode("ascii", "backslashreplace").decode("unicode_escape") == text
    assert printable_lines(f"{text}\n{text}").count("\n") == 1 + 2 * text.count("\n")
