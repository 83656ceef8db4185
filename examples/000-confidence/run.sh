#!/usr/bin/env bash
# Confidence-aware DAPO, steps 1 to 4. Further words go to the training: ./run.sh train.steps=2
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/../../.venv/bin:$PATH"
OUT="${OUT:-runs}"

echo "a model that states its confidence by lot, and rows with targets"
python teach_tag.py "$OUT"

echo "1. token ids"
burnish token-ids "$OUT/model"

echo "2. data"
head -n 2 "$OUT/train.jsonl"

echo "3. and 4. train with my_config.yaml"
burnish train --config-name my_config \
    data.train_files="$OUT/train.jsonl" \
    data.val_files="$OUT/test.jsonl" \
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
    trainer.total_training_steps=12 \
    trainer.default_local_dir="$OUT/confidence" \
    train.threads=1 "$@"
