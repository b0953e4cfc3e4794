#!/bin/sh
# Makes the virtual environment $1 with Python 3.11, 3.10 or 3.9: the default python3 if it is one of
# them, else the first that is found by name, else one that uv finds or fetches.
set -eu
venv=$1

usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null
}

if [ -x "$venv/bin/python" ] && usable "$venv/bin/python"; then
    exit 0
fi
for python in python3 python3.11 python3.10 python3.9; do
    if command -v "$python" >/dev/null 2>&1 && usable "$python"; then
        exec "$python" -m venv --clear "$venv"
    fi
done
if command -v uv >/dev/null 2>&1; then
    exec uv venv --quiet --clear --seed --python '>=3.9,<3.12' "$venv"
fi
echo "error: no Python 3.9, 3.10 or 3.11 with venv found; install one of them (for instance" \
    "'apt-get install python3.11-venv'), or uv, then run make again." >&2
exit 2
