#!/usr/bin/env bash
# run_dapo.sh at the size of the embedded base. Further words go to the command: ./run.sh --max_steps 5
set -euo pipefail
export MODEL_PATH="${MODEL_PATH:-embedded}" DATASET_NAME="${DATASET_NAME:-add23}" OUTPUT_DIR="${OUTPUT_DIR:-runs/dapo}"
export MAX_STEPS="${MAX_STEPS:-30}" GRADIENT_ACCUMULATION_STEPS="${GRADIENT_ACCUMULATION_STEPS:-128}"
export LEARNING_RATE="${LEARNING_RATE:-3e-4}" MAX_PROMPT_LENGTH="${MAX_PROMPT_LENGTH:-32}"
export MAX_COMPLETION_LENGTH="${MAX_COMPLETION_LENGTH:-64}" OVERLONG_BUFFER_LEN="${OVERLONG_BUFFER_LEN:-12}"
exec "$(dirname "$0")/run_dapo.sh" train.threads=1 "$@"
