#!/usr/bin/env bash
# Writes constraints.txt: the versions in .venv, with which the tests passed. Run it after changing a dependency.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
{
  echo "# The complete working set, for Python 3.11 to 3.13 (written by scripts/constraints.sh)."
  .venv/bin/python -m pip --disable-pip-version-check list --exclude-editable --format=freeze \
    | grep -vE '^(pip|setuptools|wheel)==' | sort -f
} >constraints.txt.new
mv constraints.txt.new constraints.txt
