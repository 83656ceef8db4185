#!/usr/bin/env bash
# The guide's system, from a YAML file and from Python. Further words go to both: ./run.sh train.steps=2
set -euo pipefail
cd "$(dirname "$0")"
PATH="$PWD/../../.venv/bin:$PATH"
OUT="${OUT:-runs}"

echo "from YAML"
burnish train guide.yaml out="$OUT/yaml" "$@"

echo "from Python"
python guide.py "$OUT/python" train.steps=6 "$@"

echo "what the store knows"
python - "$OUT/yaml/run.sqlite" <<'SQL'
import sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute("SELECT step, status, count(*) FROM rollouts_v GROUP BY 1, 2 LIMIT 6")
print(*rows, sep="\n")
SQL
