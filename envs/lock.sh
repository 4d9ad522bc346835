#!/usr/bin/env bash
# Writes constraints.txt from the virtual environment it is given: exact versions, no host names, no local builds.
set -euo pipefail
python=${1:?usage: envs/lock.sh PYTHON > constraints.txt}
echo "# Tested versions of every package; written by \`make lock\`, used by pip install -r requirements.in -c constraints.txt"
"$python" -m pip freeze --all --exclude-editable |
    grep -E '^[A-Za-z0-9._-]+==' | # drops comments and packages from folders or addresses
    grep -vE '^(pip|wheel|gss)==' |
    sed -E 's/\+[A-Za-z0-9.]+$//' # torch==2.13.0+cpu: the same line serves GPU machines
