#!/usr/bin/env bash
# Runs a program on a published model that scripts/fetch_model downloads.
# Usage: run.sh NAME PROGRAM FOLDER ARGUMENTS...; the program's first argument is the model's file. Exits with 77,
# skipped, if it cannot be downloaded.
set -euo pipefail
name=$1 program=$2 folder=$3
shift 3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if ! file=$("$root/scripts/fetch_model" "$name" "$folder"); then
  echo "skipped: $name could not be downloaded"
  exit 77
fi
exec "$program" "$file" "$@"
