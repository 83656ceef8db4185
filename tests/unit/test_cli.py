from __future__ import annotations

import subprocess
import sys

import pytest

from burnish import cli


def test_help_and_config_load_neither_torch_nor_transformers():
    code = (
        "import sys\n"
        "from burnish import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "cli.main(['config', 'dapo'])\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy', 'datasets', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_a_wrong_key_exits_2_with_one_line_that_says_what_to_type(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train", "sampling.group_sise=4"]) == cli.EXIT_USAGE
    assert capsys.readouterr().err == (
        "burnish: unknown key 'sampling.group_sise'; did you mean 'sampling.group_size'?\n"
    )


def test_no_command_prints_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    assert cli.main([]) == cli.EXIT_USAGE
    assert "burnish train" in capsys.readouterr().out


def test_config_prints_yaml_that_config_reads(capsys: pytest.CaptureFixture[str], tmp_path):
    assert cli.main(["config", "grpo"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "grpo.yaml").write_text(text)
    assert cli.main(["config", str(tmp_path / "grpo.yaml")]) == 0
    assert capsys.readouterr().out == text


def test_config_lists_every_key_with_its_meaning(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["config", "--keys"]) == 0
    assert "objective.clip_high = " in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--verify", "--allow-change=data"])
def test_what_is_about_a_resume_is_refused_without_one(capsys: pytest.CaptureFixture[str], word: str):
    assert cli.main(["train", word]) == cli.EXIT_USAGE
    assert capsys.readouterr().err.endswith("Type --resume RUN too\n")


def test_a_misspelt_task_is_refused_before_any_hub_is_asked(capsys: pytest.CaptureFixture[str], tmp_path):
    assert cli.main(["train", "data.train=add24", f"out={tmp_path / 'run'}"]) == cli.EXIT_USAGE
    assert "did you mean 'add23'?" in capsys.readouterr().err
