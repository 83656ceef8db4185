#!/usr/bin/env bash
# Full-size DAPO under TRL's flags, set by variables. Further words go to the command: ./run_dapo.sh --max_steps 5
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/../../.venv/bin:$PATH"

burnish train \
    --model_name_or_path "${MODEL_PATH:-Qwen/Qwen2.5-7B-Instruct}" \
    --dataset_name "${DATASET_NAME:-BytedTsinghua-SIA/DAPO-Math-17k}" \
    --output_dir "${OUTPUT_DIR:-outputs/DAPO-TRL}" \
    --num_train_epochs "${NUM_TRAIN_EPOCHS:-1}" \
    --max_steps "${MAX_STEPS:--1}" \
    --per_device_train_batch_size "${PER_DEVICE_BATCH_SIZE:-1}" \
    --gradient_accumulation_steps "${GRADIENT_ACCUMULATION_STEPS:-32}" \
    --learning_rate "${LEARNING_RATE:-1e-6}" \
    --num_generations "${NUM_GENERATIONS:-16}" \
    --epsilon 0.2 \
    --epsilon_high 0.28 \
    --loss_type dapo \
    --temperature 1.0 \
    --top_p 1.0 \
    --max_prompt_length "${MAX_PROMPT_LENGTH:-2048}" \
    --max_completion_length "${MAX_COMPLETION_LENGTH:-20480}" \
    --overlong_buffer_len "${OVERLONG_BUFFER_LEN:-4096}" \
    --overlong_penalty_factor 1.0 \
    --apply_overlong_penalty \
    --bf16 \
    --report_to "${REPORT_TO:-tensorboard}" \
    "$@"
