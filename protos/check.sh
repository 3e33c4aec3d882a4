#!/usr/bin/env bash
# Lints the contracts, compares them with the committed main's, and the generated code with them.
# Usage: protos/check.sh BIN_DIR
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$(cd "$1" && pwd)
cd "$root"

"$bin/buf" lint protos

if git cat-file -e main:protos/buf.yaml 2>/dev/null; then
  "$bin/buf" breaking protos --against '.git#branch=main,subdir=protos'
else
  echo "protos: no earlier contracts on main, compatibility not compared"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
protos/generate.sh "$bin/python" "$scratch"
if ! diff -r -x __init__.py -x __pycache__ "$scratch/penstock/v1" penstock/src/penstock/v1; then
  echo "protos: the generated code is not what protos/ says: run 'make protos'" >&2
  exit 1
fi
