#!/usr/bin/env bash
# A reward of several objectives from a file. Further words go to the command: ./run.sh train.total_steps=5
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/../../.venv/bin:$PATH"

burnish train model.pretrained_model_name_or_path=embedded model.force_float32=true \
    sampling.max_new_tokens=64 sampling.context_max_len=64 ppo.batch_size=16 ppo.mini_batch_size=4 \
    data.train_path=./data/train.jsonl train.total_steps=20 objective.name=dapo \
    reward.style=none reward.parts.multi.function=my_multiobj_reward.py:compute_score \
    reward.parts.multi.entries.correctness=0 reward.parts.multi.entries.clarity=0 \
    reward.parts.multi.entries.detail=0 reward.parts.multi.entries.creativity=0 reward.task=correctness \
    optimizer.learning_rate=3e-4 eval.data=./data/test.jsonl eval.prompts=50 train.threads=1 \
    out="${OUT:-runs/multi-objective}" "$@"
