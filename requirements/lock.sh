#!/usr/bin/env bash
# Resolves the workspace (uv.lock, not committed: it records where packages came from) and exports
# hash-pinned requirements: dev.txt for the whole of it, one file per service for its image, and one for
# MLflow's server.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=uv
uv --version >/dev/null 2>&1 || uv=.venv/uv

"$uv" lock

# Writes requirements/NAME.txt from what a command prints.
written() {
  local target=requirements/$1.txt
  shift
  {
    echo "# Written by 'make lock'. Do not edit."
    "$@"
  } > "$target.new"
  # Neither an address nor a path belongs in a committed file: hashes say what is meant.
  if grep -nE '://|^-|^/|^file:' "$target.new"; then
    echo "lock: $target would hold an address or a path; not written" >&2
    rm "$target.new"
    exit 1
  fi
  mv "$target.new" "$target"
}

export_to() {
  local name=$1
  shift
  written "$name" "$uv" export --quiet --frozen --format requirements-txt --no-emit-workspace \
    --no-header --no-annotate "$@"
}

export_to dev --group dev
for service in ingest drift cost; do
  export_to "$service" --no-dev --package "penstock-$service"
done
export_to retrain --no-dev --package penstock-retrain --extra training --extra mlflow --extra postgresql
export_to inference --no-dev --package penstock-inference --extra cpu
export_to inference-cuda --no-dev --package penstock-inference --extra cuda
# Its pins exclude ours: an environment of its own (docs/decisions/0011).
written mlflow "$uv" pip compile --quiet --generate-hashes --python-version 3.11 \
  --no-emit-index-url --no-annotate --no-header requirements/mlflow.in
wc -l requirements/*.txt
