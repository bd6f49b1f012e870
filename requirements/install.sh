#!/usr/bin/env bash
# Makes .venv and installs what the programs need; says which jax was chosen, and why. `install.sh dev` adds what the tests need.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || { echo "medtl needs Python 3.11 or newer; $("$python" --version) was found. Try: make PYTHON=python3.11 …" >&2; exit 1; }
if nvidia-smi -L >/dev/null 2>&1; then
  wanted=requirements.txt; why="nvidia-smi -L lists a GPU"
else
  wanted=requirements-cpu.txt; why="nvidia-smi -L lists no GPU"
fi
files=(-r "$wanted")
[ "${1:-}" = dev ] && files+=(-r requirements/dev.txt)
key=$(cat "$wanted" requirements/base.txt requirements/dev.txt "$0" | sha256sum | cut -c1-16)-${1:-run}
if [ -f .venv/installed ] && grep -qxF "$key" .venv/installed; then exit 0; fi
echo "installing $wanted into .venv ($why)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "${files[@]}"
echo "$key" >> .venv/installed
[ "${1:-}" = dev ] && echo "${key%-dev}-run" >> .venv/installed
exit 0
