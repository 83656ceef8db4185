"""The composition root: turns a config into live objects. The only module that names concrete classes.

`assemble` makes the parts that training, evaluation and generation share (model, tokenizer, prompts, engine, reward);
`run_of` adds the learner and the objective and returns the `Run` that `train` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from burnish import assets, seeds
from burnish.config import Data, RunConfig
from burnish.errors import TrainingError
from burnish.learner.local import LocalLearner
from burnish.learner.schedule import schedule_of
from burnish.metric_names import METRICS
from burnish.objective import Objective, clipped_objective
from burnish.prompts import tasks
from burnish.prompts.datasets import Loaded, load_prompts
from burnish.prompts.encoding import ChatEncoder, end_of_sequence_ids
from burnish.prompts.filters import AdmitAll, ConstantGroups
from burnish.prompts.sampler import ShuffledSampler
from burnish.protocols import Reward, Sink, Store
from burnish.rewards.compose import AnswerReward
from burnish.rollout.local import LocalEngine
from burnish.train import Plan, Run
from burnish.types import FAULTS, Completion, Prompt, Sampling, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Parts:
    """What training, evaluation and generation share."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encode: ChatEncoder
    engine: LocalEngine
    reward: Reward
