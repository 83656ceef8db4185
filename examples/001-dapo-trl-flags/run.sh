#!/usr/bin/env bash
# DAPO under TRL's flags. Further words go to the command: ./run.sh --max_steps 5
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/../../.venv/bin:$PATH"

burnish train \
    --model_name_or_path "${MODEL_PATH:-embedded}" \
    --dataset_name "${DATASET_NAME:-add23}" \
    --output_dir "${OUTPUT_DIR:-runs/dapo}" \
    --num_train_epochs 1 \
    --max_steps "${MAX_STEPS:-30}" \
    --per_device_train_batch_size "${PER_DEVICE_BATCH_SIZE:-1}" \
    --gradient_accumulation_steps "${GRADIENT_ACCUMULATION_STEPS:-128}" \
    --learning_rate "${LEARNING_RATE:-3e-4}" \
    --num_generations "${NUM_GENERATIONS:-16}" \
    --epsilon 0.2 \
    --epsilon_high 0.28 \
    --loss_type dapo \
    --temperature 1.0 \
    --top_p 1.0 \
    --max_prompt_length "${MAX_PROMPT_LENGTH:-32}" \
    --max_completion_length "${MAX_COMPLETION_LENGTH:-64}" \
    --overlong_buffer_len "${OVERLONG_BUFFER_LEN:-12}" \
    --overlong_penalty_factor 1.0 \
    --apply_overlong_penalty \
    --bf16 \
    --report_to "${REPORT_TO:-tensorboard}" \
    "$@"
