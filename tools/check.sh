#!/usr/bin/env bash
# Everything that has to hold before a change goes in: lint, format, types, tests.
# Run it with the environment's python: `PYTHON=.venv/bin/python tools/check.sh`, or plain python.
# Tests compute with one thread, so there is a process for each core, up to four, each for whole files.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
