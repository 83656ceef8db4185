"""`burnish token-ids`: what it prints can be pasted, and trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from burnish.cli import EXIT_USAGE, main
from burnish.overrides import load_config
from tests.tag_tokenizers import TAG_TOKENIZERS


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A directory with a tokenizer and a config, and no weights: none are needed."""
    TAG_TOKENIZERS[request.param]().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    return tmp_path


@pytest.mark.parametrize("model", ["word"], indirect=True)
def test_single_tokens_are_named_with_the_configuration_to_paste(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert main(["token-ids", str(model)]) == 0
    out = capsys.readouterr().out
    assert "'high' is a single token: 65\n'low' is a single token: 66\n" in out

    pasted = yaml.safe_load(out[out.index("confidence:") : out.index("As overrides")])
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(pasted))
    confidence = load_config([str(file)]).confidence
    assert confidence is not None
    assert (confidence.high_token_id, confidence.low_token_id, confidence.coef) == (65, 66, 0.1)
    assert load_config(out.rpartition("As overrides: ")[2].split()).confidence == confidence


@pytest.mark.parametrize("model", ["bpe"], indirect=True)
def test_the_model_may_be_spelt_as_a_flag(model: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["token-ids", "--model_path", str(model), "confidence.high=H", "confidence.low=L"]) == 0
    by_flag = capsys.readouterr().out
    assert main(["token-ids", str(model), "confidence.high=H", "confidence.low=L"]) == 0
    assert by_flag == capsys.readouterr().out
    assert main(["token-ids"]) == EXIT_USAGE
    assert "Type `burnish token-ids MODEL`" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["bpe"], indirect=True)
def test_several_tokens_are_told_apart_and_remedies_named(model: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["token-ids", str(model)]) == 0
    out = capsys.readouterr().out
    assert "'high' is 4 tokens: 76 ('h'), 77 ('i'), 75 ('g'), 76 ('h'); decided at 76, the first that differs" in out
    assert "confidence.high=yes confidence.low=no" in out
    assert "add the words to the tokenizer's vocabulary" in out


@pytest.mark.parametrize("model", ["merged"], indirect=True)
def test_a_word_that_merges_with_what_is_before_it_is_shown_so(model: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["token-ids", str(model)]) == 0
    assert "'high' is part of a single token: 268 ('>high')" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["bpe"], indirect=True)
def test_words_and_tag_may_be_others(model: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["token-ids", str(model), "confidence.high=H", "confidence.low=L"]) == 0
    out = capsys.readouterr().out
    assert "'H' is a single token: 44\n'L' is a single token: 48\n" in out
    assert "  high: H\n  low: L\n" in out


@pytest.mark.parametrize("model", ["word"], indirect=True)
def test_a_word_that_begins_the_other_is_decided_by_what_follows_it(model: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["token-ids", str(model), "confidence.high=higher", "confidence.low=high"]) == 0
    out = capsys.readouterr().out
    assert "'higher' is 3 tokens: 65 ('high'), 34 ('e'), 47 ('r'); decided at 34, the first that differs" in out
    assert "'high' is how the other word begins: 65 ('high'); decided at 64 ('</confidence>'), which follows it" in out
    assert "high_token_id: 34\n  low_token_id: 64\n" in out


@pytest.mark.parametrize("model", ["bpe"], indirect=True)
def test_words_that_differ_within_a_character_are_an_error(model: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["token-ids", str(model), "confidence.high=s\u00e9r", "confidence.low=s\u00e8r"]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert "tells 's\u00e9r' and 's\u00e8r' apart within a character" in error
    assert "Type other words" in error


def test_a_model_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["token-ids", str(tmp_path / "nothing")]) == EXIT_USAGE
    assert "cannot be loaded" in capsys.readouterr().err
