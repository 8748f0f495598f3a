#!/usr/bin/env bash
# Writes constraints.txt: the versions in .venv, with which the tests passed. Run it after changing a dependency.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Needed on a supported Python other than the one in .venv, which therefore lacks them.
readonly ELSEWHERE=(
  async-timeout==5.0.1 # redis, before Python 3.11.3 (Debian 12 has 3.11.2)
)

{
  echo "# The complete working set, for Python 3.11 to 3.13 (written by scripts/constraints.sh)."
  {
    .venv/bin/python -m pip --disable-pip-version-check list --exclude-editable --format=freeze \
      | grep -vE '^(pip|setuptools|wheel)=='
    printf '%s\n' "${ELSEWHERE[@]}"
  } | sort -fu
} >constraints.txt.new
mv constraints.txt.new constraints.txt
