"""`burnish export verl|trl`: a run's configuration, data and reward as the other system wants them.

    verl   train.sh       the command, with every override               train.parquet, test.parquet   verl's layout
    trl    grpo.yaml      arguments of the GRPO trainer; train.py        train.jsonl, test.jsonl
    both   reward.py      the run's own reward behind the other system's signature
           burnish.json   the configuration that reward.py reads         unexpressed.txt   what has no word there

The reward is not rewritten: reward.py imports burnish, which loads without torch (`pip install --no-deps burnish`, and
what pyproject.toml lists for grading). burnish.json lies beside it, so the folder can be moved as a whole.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from burnish.config import RunConfig, resolved
from burnish.config.reward import LengthPart, NormalizedSum, RepetitionPart, TruncatedPart
from burnish.foreign.export_words import System, Words, trl_words, verl_words
from burnish.overrides import ConfigError, load_config, validate
from burnish.prompts import tasks
from burnish.prompts.datasets import load_prompts
from burnish.run_folder import RunFolder
from burnish.types import Prompt

UNLIMITED = 1 << 62

VERL_REWARD = '''"""The reward of a burnish run, as verl calls it: one completion, keyword arguments."""

import json
from array import array
from pathlib import Path

from burnish.build.reward import make_reward
from burnish.overrides import validate
from burnish.types import Completion, Prompt

REWARD = make_reward(validate(json.loads(Path(__file__).with_name("burnish.json").read_text(encoding="utf-8"))))


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    extra = extra_info or {}
    prompt = Prompt(str(extra.get("id")), answer=ground_truth, meta=json.loads(extra.get("meta") or "{}"))
    completion = Completion(array("i"), array("i"), array("f"), solution_str, "stop", 0)
    (score,) = REWARD(prompt, [completion])
    if score.total is None:
        raise RuntimeError(f"grading a completion of prompt {prompt.id} ended with {score.status}: {score.message}")
    return {"score": score.total, "acc": score.raw}
'''

TRL_REWARD = '''"""The reward of a burnish run, as TRL calls it: a batch of completions, and columns of the data."""

import json
from array import array
from pathlib import Path

from burnish.build.reward import make_reward
from burnish.overrides import validate
from burnish.types import Completion, Prompt

CONFIG = validate(json.loads(Path(__file__).with_name("burnish.json").read_text(encoding="utf-8")))
REWARD = make_reward(CONFIG)


def burnish_reward(completions, completion_ids, answer, id, meta, **_):
    totals = []
    for completion, ids, gold, name, columns in zip(completions, completion_ids, answer, id, meta, strict=True):
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        prompt = Prompt(name, answer=gold, meta=json.loads(columns))
        reason = "length" if len(ids) >= CONFIG.sampling.max_new_tokens else "stop"
        (score,) = REWARD(prompt, [Completion(array("i"), array("i", ids), array("f"), text, reason, 0)])
        totals.append(score.total)
    return totals
'''

TRL_TRAIN = '''"""Train with TRL as a burnish run was configured: python train.py --config grpo.yaml"""

from pathlib import Path

from datasets import load_dataset
from reward import burnish_reward
from trl import GRPOConfig, GRPOTrainer, ModelConfig, TrlParser

HERE = Path(__file__).parent


def main():
    training, model = TrlParser((GRPOConfig, ModelConfig)).parse_args_and_config()
    files = {split: str(HERE / f"{split}.jsonl") for split in ("train", "test") if (HERE / f"{split}.jsonl").exists()}
    data = load_dataset("json", data_files=files)
    trainer = GRPOTrainer(
        model=model.model_name_or_path,
        reward_funcs=burnish_reward,
        args=training,
        train_dataset=data["train"],
        eval_dataset=data.get("test"),
    )
    trainer.train()
    trainer.save_model(training.output_dir)


if __name__ == "__main__":
    main()
'''


def export(config: RunConfig, system: System, folder: Path) -> list[str]:
    """Write the folder; returns what the other system cannot express, by name.

    Raises:
        ConfigError: the objective has no counterpart there, or the folder has content.
        ValueError: the data cannot be read.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; type another --out")
    train, test = _prompts(config)
    words = verl_words(config, len(train)) if system == "verl" else trl_words(config)
    folder.mkdir(parents=True, exist_ok=True)
    write = _write_verl if system == "verl" else _write_trl
    write(folder, words, config, train, test)
    unexpressed = [*words.unexpressed(), *_unrewarded(config, system)]
    if not config.data.template:
        unexpressed.append("data.template = False: the chat template is always applied there")
    (folder / "unexpressed.txt").write_text("".join(f"{line}\n" for line in unexpressed), encoding="utf-8")
    return unexpressed


def read_config(source: str) -> RunConfig:
    """The configuration of a run folder, a config file or a preset."""
    path = Path(source)
    if not path.is_dir():
        return load_config([source])
    with RunFolder.open_existing(path) as run:
        return validate(run.read_config())


def _prompts(config: RunConfig) -> tuple[Sequence[Prompt], Sequence[Prompt]]:
    """Training and held-out prompts. Without a tokenizer their lengths are not checked; the other system does that."""
    held_out = config.eval.data or (config.data.train if config.data.train in tasks.TASKS else None)
    train = _read(config, config.data.train, config.data.split, config.data.limit)
    return train, () if held_out is None else _read(config, held_out, "test", config.eval.prompts)


def _read(config: RunConfig, source: str, split: str, limit: int | None) -> Sequence[Prompt]:
    if source in tasks.TASKS:
        return tasks.task(source).sample(limit or tasks.TRAIN_POOL, "heldout" if split == "test" else "train")
    data = config.data
    return load_prompts(
        source,
        split=split,
        limit=limit,
        prompt_column=data.columns.prompt,
        answer_column=data.columns.answer,
        id_column=data.columns.id,
        system=data.system,
        suffix=data.suffix,
        duplicates=data.duplicates,
        max_prompt_tokens=UNLIMITED,
        overlong_prompts="error",
        encode_whole=lambda prompt: (),
        needs_answer=config.reward.needs_answers,
    ).prompts


def _unrewarded(config: RunConfig, system: System) -> list[str]:
    """What the exported reward cannot see."""
    found: list[str] = []
    if isinstance(config.reward.combine, NormalizedSum):
        found.append("reward.combine.name = normalized_sum: the exported reward sees one completion at a time")
    for name, part in config.reward.parts.items():
        needs_tokens = isinstance(part, LengthPart | TruncatedPart) or (
            isinstance(part, RepetitionPart) and part.unit == "tokens"
        )
        if system == "verl" and needs_tokens:
            found.append(f"reward.parts.{name} = {part.kind}: verl's reward functions get no tokens")
    if any(w.start != w.end for w in config.reward.weights.values()):
        found.append("reward: weights that change over the run stay at their first value")
    if system == "verl" and config.reward.on_fault != "fail":
        found.append(f"reward.on_fault = {config.reward.on_fault}: a grader's fault stops the run there")
    return found


# -- files ------------------------------------------------------------------------------------------------------------


def _write_config(folder: Path, config: RunConfig, *, overlong: bool) -> None:
    tree = resolved(config)
    if not overlong:
        tree["objective"]["overlong"]["buffer"] = 0  # verl adds the punishment itself
    (folder / "burnish.json").write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def _write_verl(folder: Path, words: Words, config: RunConfig, train: Sequence[Prompt], test: Sequence[Prompt]) -> None:
    from pyarrow import Table, parquet

    files = {"train": train} | ({"test": test} if test else {})
    for split, prompts in files.items():
        rows = [_verl_row(prompt, split, index) for index, prompt in enumerate(prompts)]
        parquet.write_table(Table.from_pylist(rows), folder / f"{split}.parquet")
    words.say("data.train_files", "train.parquet")
    words.say("data.val_files", f"{'test' if test else 'train'}.parquet")
    words.say("data.prompt_key", "prompt")
    words.say("reward.custom_reward_function.path", "reward.py")
    words.say("reward.custom_reward_function.name", "compute_score")
    lines = [shlex.quote(f"{key}={_hydra(value)}") for key, value in words.pairs.items()]
    script = ["#!/usr/bin/env bash", 'cd "$(dirname "$0")"', "python3 -m verl.trainer.main_ppo \\"]
    (folder / "train.sh").write_text("\n".join([*script, *(f"    {line} \\" for line in lines), '    "$@"', ""]))
    (folder / "train.sh").chmod(0o755)
    (folder / "reward.py").write_text(VERL_REWARD, encoding="utf-8")
    _write_config(folder, config, overlong=False)


def _verl_row(prompt: Prompt, split: str, index: int) -> dict[str, Any]:
    extra = {"split": split, "index": index, "id": prompt.id, "meta": json.dumps(dict(prompt.meta))}
    return {
        "data_source": "burnish",
        "prompt": _messages(prompt),
        "ability": "burnish",
        "reward_model": {"style": "rule", "ground_truth": prompt.answer},
        "extra_info": extra,
    }


def _hydra(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    return "null" if value is None else str(value)


def _write_trl(folder: Path, words: Words, config: RunConfig, train: Sequence[Prompt], test: Sequence[Prompt]) -> None:
    for split, prompts in (("train", train), ("test", test)):
        if prompts:
            _write_lines(folder / f"{split}.jsonl", map(_trl_row, prompts))
    if not test:
        words.say("eval_strategy", "no")
    text = yaml.safe_dump(words.pairs, sort_keys=False)
    (folder / "grpo.yaml").write_text(text, encoding="utf-8")
    (folder / "train.py").write_text(TRL_TRAIN, encoding="utf-8")
    (folder / "reward.py").write_text(TRL_REWARD, encoding="utf-8")
    _write_config(folder, config, overlong=True)


def _trl_row(prompt: Prompt) -> dict[str, Any]:
    meta = json.dumps(dict(prompt.meta))
    return {"prompt": _messages(prompt), "answer": prompt.answer, "id": prompt.id, "meta": meta}


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return [dict(message) for message in prompt.messages]
