#!/usr/bin/env bash
# Fuzzes the reader of files for a bounded time, from the seed corpus. What it finds stays in the work folder.
# Usage: fuzz.sh CLANGXX WORK_FOLDER SECONDS
set -euo pipefail
clangxx=$1 work=$2 seconds=$3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
rm -rf "$work"
mkdir -p "$work/corpus"
"$clangxx" -std=c++20 -g1 -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I "$root/include" \
  "$root/tests/fuzz/fuzz_safetensors.cpp" -o "$work/fuzz"
# New inputs go to the first folder, so the seeds stay as they are.
"$work/fuzz" "$work/corpus" "$root/tests/fuzz/corpus" -max_total_time="$seconds" -max_len=4096 \
  -artifact_prefix="$work/" -print_final_stats=1
