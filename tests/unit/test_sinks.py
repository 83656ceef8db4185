"""Sinks and the console: everything arrives, nothing is interpreted, and a failure never stops the run."""

from __future__ import annotations

import io
import json
import math
import sys
import types
from pathlib import Path

import pytest

from burnish.sinks.console import Console, summary
from burnish.sinks.jsonl import JsonlSink
from burnish.sinks.quiet import QuietSink
from burnish.sinks.tensorboard import TensorBoardSink
from burnish.sinks.trackio import TrackioSink
from burnish.sinks.wandb import WandbSink
from burnish.terminal import printable
from burnish.types import Metrics

HOSTILE = "[/x] [bold]b[/] \x1b]0;hi\x07 \x9b31m \u202e \u2028 \ud800 :smile:"
SHOWN = "[/x] [bold]b[/] \\x1b]0;hi\\x07 \\x9b31m \\u202e \\u2028 \\ud800 :smile:"
STEP = {
    "reward/mean": -0.25,
    "accuracy": 0.375,
    "length/mean": 41.26,
    "entropy": 0.5,
    "groups/admitted": 32.0,
    "groups/generated": 58.0,
    "rounds": 2.0,
    "clip/fraction": 0.004,
    "time/step": 2.0,
    "tokens/generated": 4000.0,
}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_line_that_a_kill_cut_short_takes_no_other_with_it(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    sink = JsonlSink(path)
    sink.write(2, {"kl/old": 0.25})
    sink.close()
    assert path.read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "lo\n{"step": 2, "kl/old": 0.25}\n'


def test_each_call_is_a_line_of_json_that_is_on_the_disk_at_once(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.write(1, {"loss": 0.5, "grad_norm": math.nan, "kl/old": math.inf, "kl/ref": -math.inf})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "step": 1,
        "loss": 0.5,
        "grad_norm": "NaN",
        "kl/old": "Infinity",
        "kl/ref": "-Infinity",
    }
    sink.close()
    again = JsonlSink(path)
    again.write(2, {"clip/fraction": 0.25})
    again.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    assert json.loads(path.read_text().splitlines()[1]) == {"step": 2, "clip/fraction": 0.25, "clip_fraction": 0.25}


def events_of(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard_reads_what_was_written(tmp_path: Path):
    sink = TensorBoardSink(tmp_path)
    sink.write(1, {"loss": 0.5, "entropy": 1.5})
    sink.write(2, {"loss": 0.25})
    sink.close()
    found = events_of(tmp_path)
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [(event.step, event.value) for event in found.Scalars("entropy")] == [(1, 1.5)]


def test_tensorboard_shows_the_steps_of_the_resumed_run(tmp_path: Path):
    first = TensorBoardSink(tmp_path)
    for number in (1, 2, 3):
        first.write(number, {"loss": 0.5})
    first.close()
    resumed = TensorBoardSink(tmp_path)
    resumed.write(2, {"loss": 0.25})
    resumed.close()
    (tmp_path / "all").mkdir()
    files = sorted(tmp_path.glob("events*"), key=lambda path: int(path.name.split(".")[-1]))
    for index, path in enumerate(files):
        path.rename(tmp_path / "all" / f"events.out.tfevents.{index:010d}")
    assert [(e.step, e.value) for e in events_of(tmp_path / "all").Scalars("loss")] == [(1, 0.5), (2, 0.25)]


# -- trackers ----------------------------------------------------------------------------------------------------------


class FakeRun:
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def define_metric(self, *args: object, **kwargs: object) -> None:
        self.calls.append(("define_metric", args, kwargs))

    def log(self, metrics: Metrics, **kwargs: object) -> None:
        self.calls.append(("log", metrics, kwargs))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    run = FakeRun()
    for name in ("wandb", "trackio"):
        module = types.ModuleType(name)
        module.init = lambda **kwargs: run.calls.append(("init", kwargs)) or run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    return run


def test_wandb_gets_steps_that_may_go_back(tracker: FakeRun):
    sink = WandbSink(project="p", name="run-1", config={"seed": 1})
    sink.write(3, {"loss": 0.5})
    sink.close()
    assert tracker.calls == [
        ("init", {"project": "p", "name": "run-1", "id": "run-1", "resume": "allow", "config": {"seed": 1}}),
        ("define_metric", ("step",), {}),
        ("define_metric", ("*",), {"step_metric": "step"}),
        ("log", {"step": 3, "loss": 0.5}, {}),
        ("finish",),
    ]


def test_trackio_gets_the_step_beside_the_metrics(tracker: FakeRun):
    sink = TrackioSink(project="p", name="run-1", config={})
    sink.write(3, {"loss": 0.5})
    sink.close()
    assert tracker.calls[1:] == [("log", {"loss": 0.5}, {"step": 3}), ("finish",)]


@pytest.mark.parametrize(("name", "sink"), [("wandb", WandbSink), ("trackio", TrackioSink)])
def test_a_tracker_that_is_not_installed_says_what_to_type(name: str, sink, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"{name}, which is not installed.*pip install 'burnish\[wandb\]'"):
        sink(project="p", name="n", config={})


class BrokenSink(QuietSink):
    sent = 0

    def send(self, step: int, metrics: Metrics) -> None:
        self.sent += 1
        raise ConnectionError("the tracker is down")

    def finish(self) -> None:
        raise AssertionError("a sink that failed is not asked to finish")


def test_a_sink_that_fails_warns_once_and_never_stops_the_run():
    sink = BrokenSink()
    with pytest.warns(RuntimeWarning, match="BrokenSink takes no more metrics: ConnectionError: the tracker is down"):
        sink.write(1, {})
    sink.write(2, {})
    sink.close()
    assert sink.sent == 1


# -- the console -------------------------------------------------------------------------------------------------------


@pytest.mark.reliability(38)
def test_what_a_terminal_would_act_on_is_shown_as_an_escape():
    assert printable(HOSTILE) == SHOWN
    assert printable("tab\tline\nreturn\r\x00\x7f") == "tab\\tline\\nreturn\\r\\x00\\x7f"
    assert printable("plain text, \u4e2d\u6587, \U0001f600 \u00e9") == "plain text, \u4e2d\u6587, \U0001f600 \u00e9"


def fill(console: Console) -> None:
    console.header([HOSTILE])
    console.phase(HOSTILE, 1, 2)
    console.phase("generating", 12, 64)
    console.step(1, STEP)
    console.note(f"one\n{HOSTILE}")
    console.evaluation(1, {"avg@2": (0.5, 0.4, 0.6), "length": (41.2, 40.0, 43.0), "faults": (0.0, 0.0, 0.0)})
    console.step(2, {})
    console.close()


@pytest.mark.reliability(38)
def test_without_a_terminal_there_are_plain_lines():
    stream = io.StringIO()
    fill(Console(100, stream))
    assert stream.getvalue().splitlines() == [
        SHOWN,
        "step   1/100  reward -0.250  accuracy 37.5%  len 41.3  entropy 0.500  groups 32/58  rounds 2  clip 0.40%"
        "  2.0 s  2,000 tok/s",
        "one",
        SHOWN,
        "held out after step 1: avg@2 50.0% [40.0%, 60.0%], length 41.2 [40.0, 43.0], faults 0",
        "step   2/100",
    ]


def test_a_stream_that_cannot_say_a_character_gets_an_escape():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    Console(1, stream).note("caf\u00e9 \U0001f600")
    assert raw.getvalue() == b"caf\\xe9 \\U0001f600\n"


@pytest.mark.reliability(38)
def test_on_a_terminal_nothing_hostile_reaches_it_and_every_line_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    fill(Console(100, stream))
    shown = stream.getvalue()
    assert "\x1b]0;" not in shown
    assert not {"\x07", "\x9b", "\u202e", "\u2028", "\ud800"} & set(shown)
    assert shown.count(SHOWN) >= 2
    assert SHOWN + " 1/2" in shown
    assert "2,000 tok/s" in shown
    assert "\x1b[?25h" in shown.rsplit("\x1b[?25l", 1)[-1], "the cursor is shown again"


def test_no_color_leaves_colour_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    fill(Console(100, stream))
    assert "\x1b[3" not in stream.getvalue()
    monkeypatch.delenv("NO_COLOR")
    coloured = Terminal()
    fill(Console(100, coloured))
    assert "\x1b[3" in coloured.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    fill(Console(100, stream))
    assert "\x1b" not in stream.getvalue()


def test_the_time_left_is_told_from_the_steps_so_far(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    clock = iter([100.0 + 90.0 * i for i in range(5)])
    monkeypatch.setattr("burnish.sinks.console.time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    console = Console(44, Terminal())
    assert console._progress is not None
    for number in (1, 2, 3, 4):
        console.step(number, {})
    console.phase("generating", 1, 2)
    assert console._progress.tasks[0].fields["left"] == "1 h 00 min left"
    console.close()


def test_a_console_without_steps_shows_a_phase(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    console = Console(0, stream)
    console.phase("evaluating", 3, 10)
    console.close()
    console.close()
    assert "evaluating 3/10" in stream.getvalue()


def test_the_summary_tells_held_out_accuracy_when_it_is_there():
    assert summary({"eval/add23/avg@2": 0.543, "eval/add23/pass@2": 0.9}) == "eval/add23/avg@2 54.3%"
