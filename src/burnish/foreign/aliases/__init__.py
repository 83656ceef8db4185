"""Foreign spellings of the keys of a run: what verl, TRL and their relatives call them. Data only.

| row | the foreign word becomes |
|---|---|
| `Same` | one key of ours, same meaning and unit, the value as it stands |
| `Choice` | for each value it may have, settings of ours (none: it is so here anyway); other values are refused |
| `Listing` | a list whose items are sinks of ours, gathered into one list |
| `Pair` | a list of two numbers, two keys of ours |
| `Rest` | a key of ours with the same last part |
| `Quantity` | part of a conversion, made in `units.py` or `rewards.py` once all words are read |
| `Ignored` | nothing: it cannot change what is learned here, for the reason given |
| `Refused` | an error that says what to type instead, unless its value says that the feature is off |

`names` are the spellings, each with `under` in front; one that ends in `*` stands for all keys that begin so, and the
longest match wins. To add a spelling, add it to its row; to add a row, add an example: the tests run over the table.
`burnish.foreign.words` applies it. Nothing past that module sees a foreign name.
"""

from __future__ import annotations

from collections.abc import Mapping

from burnish.foreign.aliases.documents import ADPO, CONFIDENCE, MAIN_DAPO, TRAIN_DAPO
from burnish.foreign.aliases.rows import (
    ACTOR,
    Defaults,
    Row,
    Settings,
)
from burnish.foreign.aliases.trl import TRL, TRL_SILENT
from burnish.foreign.aliases.trl_ppo import TRL_PPO
from burnish.foreign.aliases.verl import VERL, VERL_SILENT

TABLE: Mapping[str, tuple[Row, ...]] = {
    "verl": VERL + VERL_SILENT,
    "TRL": TRL + TRL_SILENT,
    "TRL PPO": TRL_PPO,
    "train_dapo.py": TRAIN_DAPO,
    "main_dapo.py": MAIN_DAPO,
    "main_adpo": ADPO,
    "confidence": CONFIDENCE,
}
"""System -> its rows. A key that stands in two of them is the same key."""

DEFAULTS: Mapping[str, Defaults] = {
    "verl": Defaults(
        words=(
            *("data.train_batch_size=1024", "data.max_prompt_length=512", "data.max_response_length=512"),
            *(f"{ACTOR}ppo_mini_batch_size=256", f"{ACTOR}clip_ratio=0.2", f"{ACTOR}clip_ratio_c=3.0"),
            *(f"{ACTOR}loss_agg_mode=token-mean", f"{ACTOR}optim.weight_decay=0.01", f"{ACTOR}optim.lr=1e-6"),
            *(f"{ACTOR}optim.betas=[0.9,0.999]", "algorithm.adv_estimator=grpo"),
            *(f"{ACTOR}use_kl_loss=false", f"{ACTOR}kl_loss_coef=0.001", "reward_model.overlong_buffer.enable=false"),
            *("algorithm.filter_groups.enable=false", "algorithm.gamma=1.0", "algorithm.lam=1.0"),
            *("critic.cliprange_value=0.5", "critic.optim.lr=1e-5"),
        ),
        kept={"train.steps": "total_epochs=30", "sampling.group_size": "rollout.n=1, a group without siblings"},
    ),
    "TRL": Defaults(
        words=(
            *("--per_device_train_batch_size 8", "--gradient_accumulation_steps 1", "--num_generations 8"),
            *("--max_completion_length 512", "--learning_rate 1e-6", "--lr_scheduler_type linear"),
            *("--adam_beta2 0.999", "--epsilon 0.2", "--loss_type dapo", "--scale_rewards group"),
        ),
        ours={
            "objective.dual_clip": None,
            "objective.dynamic_sampling": "false",
            "objective.overlong.buffer": "0",
        },
        kept={"train.steps": "num_train_epochs=3"},
    ),
    "TRL PPO": Defaults(
        words=(
            *("--per_device_train_batch_size 8", "--gradient_accumulation_steps 1", "--num_mini_batches 1"),
            *("--num_ppo_epochs 4", "--response_length 53", "--temperature 0.7", "--learning_rate 5e-5"),
            *("--lr_scheduler_type linear", "--adam_beta2 0.999", "--cliprange 0.2", "--cliprange_value 0.2"),
            *("--vf_coef 0.1", "--gamma 1.0", "--lam 0.95"),
        ),
        ours={
            "objective.dual_clip": None,
            "objective.dynamic_sampling": "false",
            "objective.overlong.buffer": "0",
        },
        kept={"train.steps": "num_train_epochs=3", "objective.kl.coef": "kl_coef=0.05, in the reward"},
    ),
    "train_dapo.py": Defaults(
        words=(
            *("--per_device_train_batch_size 1", "--gradient_accumulation_steps 32", "--num_generations 16"),
            *("--max_prompt_length 2048", "--max_completion_length 20480", "--learning_rate 1e-6"),
            *("--adam_beta2 0.999", "--epsilon 0.2", "--epsilon_high 0.28", "--clip_ratio_c 10.0"),
            *("--loss_type dapo", "--scale_rewards group", "--weight_decay 0.1", "--lr_warmup_steps 10"),
            *("--apply_overlong_penalty false", "--overlong_buffer_len 4096"),
        ),
        ours={"objective.dynamic_sampling": "false"},
        kept={"train.steps": "num_train_epochs=1"},
    ),
    "main_dapo.py": Defaults(words=()),
    "main_adpo": Defaults(words=("--gradient_accumulation_steps 1",)),
}

CONFIG_NAMES: Mapping[str, tuple[str, ...]] = {
    "ppo_trainer": (),
    "dapo_trainer": ("algorithm.adv_estimator=grpo", "reward_model.reward_manager=dapo"),
    "dapo_confidence_trainer": (
        *("algorithm.adv_estimator=grpo", "reward_model.reward_manager=dapo"),
        f"{ACTOR}use_confidence_loss=true",
    ),
    "adpo_trainer": ("algorithm.adv_estimator=adpo",),
}
"""`--config-name` of a file that ships with the other system -> the words that stand for it. A file of that name beside
the command comes first."""

IMPLIED: Mapping[str, Settings] = {
    "main_adpo": {"objective.name": "adpo"},
    "main_dapo.py": {"objective.name": "ppo", "sampling.group_size": "1", "sampling.temperature": "0"},
    "TRL PPO": {"objective.name": "ppo", "sampling.group_size": "1"},
    "algorithm.adv_estimator=gae": {"objective.name": "ppo", "sampling.group_size": "1"},
}
"""System, or one `key=value` -> what the use of its own keys, or that word, says by itself, where nothing else does and
no other objective is named."""

ENTRIES: Mapping[str, str] = {
    "verl.trainer.main_adpo": "adpo_trainer",
    "recipe.dapo.main_dapo": "dapo_trainer",
    "recipe.dapo.src.main_dapo": "dapo_trainer",
}
"""Module that is run -> the `--config-name` it has when none is given."""

PLUGINS: Mapping[str, str] = {"main_dapo.py": "my_multiobj_reward_fixed.py"}
"""Script that is run -> the file beside it whose `compute_score` is its reward."""

EXTENDED: Mapping[str, tuple[str, ...]] = {"TRL": ("train_dapo.py", "TRL PPO")}
"""System -> others that add keys to it: where one of those is used, that system's defaults are meant."""
