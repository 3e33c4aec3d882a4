#!/usr/bin/env bash
# Generates the Python contracts into the kit (penstock.v1.*_pb2) with the locked grpcio-tools.
# Usage: protos/generate.sh [PYTHON] [OUTPUT_DIR]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-$root/.venv/bin/python}
out=${2:-$root/penstock/src}
export PATH="$(dirname "$python"):$PATH"
"$python" -m grpc_tools.protoc -I "$root/protos" \
  --python_out="$out" --mypy_out=quiet:"$out" "$root"/protos/penstock/v1/*.proto
"$python" -m grpc_tools.protoc -I "$root/protos" \
  --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" "$root"/protos/penstock/v1/*_service.proto
