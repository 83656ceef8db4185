#!/usr/bin/env bash
# A quick test: 10 samples, 2 generations per prompt, 2 steps. Seconds; `MODEL_PATH=... ./test_dapo.sh` tries your model.
set -euo pipefail
export NUM_GENERATIONS="${NUM_GENERATIONS:-2}" MAX_STEPS="${MAX_STEPS:-2}" OUTPUT_DIR="${OUTPUT_DIR:-runs/test}"
export GRADIENT_ACCUMULATION_STEPS="${GRADIENT_ACCUMULATION_STEPS:-4}"
exec "$(dirname "$0")/run.sh" --max_train_samples 10 eval.prompts=8 eval.every=0 "$@"
