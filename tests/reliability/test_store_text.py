"""Text that breaks things comes back from the record as it was, in every place where a run writes text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnish.records import Event
from burnish.store import codes, queries
from burnish.store.writing import MESSAGE_CHARACTERS
from burnish.types import Group, Judged, Prompt
from tests.recorded import rollout, step, store_at

TEXTS = {
    "nul": "before\x00after",
    "million": "x" * 2**20,
    "right to left": "\u202e\u05d0\u05d1 \u2066x\u2069",
    "terminal": "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "markup": "[/x] [bold]b[/] <script>alert(1)</script> &amp;",
    "formula": '=HYPERLINK("x")\t@SUM(A1)\r\n+1',
    "astral": "\U0001f600\U000e0041",
    "not a character": "\ufffe\uffff\ufdd0",
    "quotes": "'; DROP TABLE steps; -- \"`\\",
    "empty": "",
    "surrogates": "a\ud800b\udc00",
}


def stored(text: str) -> str:
    return text.replace("\ud800", "\ufffd").replace("\udc00", "\ufffd")


@pytest.mark.reliability(38)
@pytest.mark.parametrize("name", TEXTS)
def test_text_comes_back_as_it_was_from_every_place(tmp_path: Path, name: str):
    text, path = TEXTS[name], tmp_path / "run.sqlite"
    prompt = Prompt(text or "p", text=text, answer=text, meta={"column": text})
    right = rollout(text=text, answer=text[:80], message=text, raw=1.0)
    group = Judged(Group(0, prompt, (right, rollout(raw=-1.0, status="wrong"))), "admitted", 0)
    run = dict.fromkeys(("name", "objective", "data", "code", "host"), text) | {"config": {}, "packages": {}}
    with store_at(path, run=run | {"run_id": text or "r"}, parts={text or "part": (1.0, True)}) as store:
        found = rollout(text=text, parts={text or "part": 0.5})
        named = Judged(Group(1, prompt, (found,)), "admitted", 0)
        store.record(step(1, group, named, metrics={f"reward/{text}": 0.25}))
        store.record_event(Event("note", text, advice=text, data={"text": text}))
        store.end_attempt(1, text)
    flagged = "surrogates" in name
    with queries.open_store(path) as db:
        first, *_ = queries.rollouts_of_step(db, 1)
        assert (first.text, first.answer) == (stored(text), stored(text[:80]))
        assert (first.message or "") == stored(text)[:MESSAGE_CHARACTERS]
        assert first.prompt == stored(text or "p")
        flags = db.execute("SELECT flags FROM rollouts ORDER BY rollout_id").fetchone()[0]
        assert bool(flags & codes.TEXT_CLEANED) == flagged
        assert bool(flags & codes.MESSAGE_CUT) == (len(text) > MESSAGE_CHARACTERS)
        shown, answer, meta, prompt_flags = db.execute("SELECT text, answer, meta, flags FROM prompts").fetchone()
        assert (shown, answer, json.loads(meta)) == (stored(text), stored(text), {"column": text})
        assert bool(prompt_flags & codes.TEXT_CLEANED) == flagged
        assert queries.metrics_at(db, 1) == {f"reward/{stored(text)}": 0.25}
        assert db.execute("SELECT name FROM part_names").fetchall() == [(stored(text) or "part",)]
        (event,) = queries.events(db)
        assert (event["message"], event["advice"], json.loads(event["data"])) == (
            stored(text),
            stored(text),
            {"text": text},
        )
        assert queries.run_info(db)["name"] == stored(text)
        assert queries.attempts(db)[0]["reason"] == stored(text)
