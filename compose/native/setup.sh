#!/usr/bin/env bash
# Creates the virtual environment from a hash-pinned requirements file and adds the members.
# Usage: PYTHON=python3.11 setup.sh VENV REQUIREMENTS MEMBER...
set -euo pipefail
venv=$1 requirements=$2
shift 2

say() { echo "setup: $*" >&2; }

version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)
if [[ $version != 3.11 ]]; then
  say "Python 3.11 is needed, ${PYTHON:-python3} is $version: install python3.11, or make PYTHON=/path/to/it"
  exit 1
fi

if ! "$venv/bin/python" -c '' 2>/dev/null; then
  say "creating $venv"
  if ! "$PYTHON" -m venv "$venv"; then
    say "that needs Python's venv module (Debian: apt-get install python3-venv)"
    exit 1
  fi
fi
# vLLM's CPU kernels link against it, and no Python package carries it.
if ! ldconfig -p 2>/dev/null | grep -q 'libnuma\.so\.1'; then
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "installing libnuma1, which vLLM links against"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends libnuma1 >/dev/null
  else
    say "vLLM needs libnuma (Debian: sudo apt-get install libnuma1); its tests and the demo fail without"
  fi
fi

if uv --version >/dev/null 2>&1; then
  uv=uv
else
  # Kept outside of site-packages: the sync below removes what is not in the requirements.
  uv=$venv/uv
  if [[ ! -x $uv ]]; then
    say "fetching uv, the installer"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'
    cp "$venv/bin/uv" "$uv"
  fi
fi

say "installing the locked packages (about 6 GB; minutes the first time, seconds once cached)"
"$uv" pip sync --quiet --python "$venv/bin/python" --require-hashes "$requirements"
say "adding the workspace's members"
editable=()
for member in "$@"; do editable+=(-e "./$member"); done
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps "${editable[@]}"
say "done"
