#!/usr/bin/env bash
# Confidence-aware DAPO, steps 1 to 4, and a fifth. Further words go to both trainings: ./run.sh train.steps=2
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/../../.venv/bin:$PATH"
OUT="${OUT:-runs}"

echo "a base that states its confidence, and knows nothing of it yet"
[ -d "$OUT/model" ] || burnish base add23 --confidence embedded --out "$OUT/model"

echo "1. token ids"
burnish token-ids --model_path "$OUT/model"

echo "2. data"
head -n 2 data/train.jsonl

echo "3. and 4. train with my_config.yaml: state what the data says"
burnish train --config-name my_config \
    data.train_files=data/train.jsonl \
    data.val_files=data/test.jsonl \
    data.train_batch_size=16 \
    data.max_response_length=64 \
    actor_rollout_ref.model.path="$OUT/model" \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.actor.ppo_mini_batch_size=4 \
    actor_rollout_ref.actor.optim.lr=3e-4 \
    actor_rollout_ref.actor.use_confidence_loss=true \
    actor_rollout_ref.actor.conf_loss_type=regression \
    actor_rollout_ref.actor.conf_loss_coef=0.1 \
    algorithm.adv_estimator=grpo \
    algorithm.filter_groups.enable=true \
    algorithm.filter_groups.metric=acc \
    reward_model.reward_manager=dapo \
    trainer.n_gpus_per_node=1 \
    trainer.total_training_steps=8 \
    trainer.default_local_dir="$OUT/confidence" \
    eval.every=0 train.threads=1 "$@"

echo "5. the embedded job: state whether the completion is right"
burnish train add23 model.path="$OUT/model" confidence.target=correctness objective.dynamic_sampling=false \
    eval.every=0 train.threads=1 out="$OUT/calibrated" "$@"
