#!/usr/bin/env bash
# ADPO under verl's overrides, three times. Further words go to every command: ./run.sh train.steps=2
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/../../.venv/bin:$PATH"
OUT="${OUT:-runs}"
SIZES=(actor_rollout_ref.model.path=embedded data.train_files=add23 data.train_batch_size=32 data.max_response_length=64
    actor_rollout_ref.actor.ppo_mini_batch_size=8 actor_rollout_ref.actor.optim.lr=3e-4 trainer.total_training_steps=6
    eval.prompts=50 train.threads=1)

echo "1. basic training"
burnish train "${SIZES[@]}" trainer.default_local_dir="$OUT/basic" \
    algorithm.adv_estimator=adpo \
    algorithm.tau=0.8 \
    algorithm.num_generations=8 "$@"

echo "2. adaptive temperature"
burnish train "${SIZES[@]}" trainer.default_local_dir="$OUT/adaptive" \
    algorithm.adv_estimator=adpo \
    algorithm.use_adaptive_tau=true \
    algorithm.adaptive_tau_alpha=0.5 \
    algorithm.adaptive_tau_min=0.05 "$@"

echo "3. the complete configuration, with good_accuracy as the reward"
burnish train --config-name my_adpo_config "${SIZES[@]}" trainer.default_local_dir="$OUT/complete" "$@"
