#!/usr/bin/env bash
# Fuzzes the readers of files, each for a bounded time, from its seed corpus. What it finds stays in the work folder.
# Usage: fuzz.sh CLANGXX WORK_FOLDER SECONDS_PER_READER
set -euo pipefail
clangxx=$1 work=$2 seconds=$3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
rm -rf "$work"
fuzz() {
  local reader=$1 seeds=$root/tests/fuzz/$2
  mkdir -p "$work/corpus_$reader"
  "$clangxx" -std=c++20 -g1 -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I "$root/include" \
    "$root/tests/fuzz/fuzz_$reader.cpp" -o "$work/fuzz_$reader"
  # New inputs go to the first folder, so the seeds stay as they are.
  "$work/fuzz_$reader" "$work/corpus_$reader" "$seeds" -max_total_time="$seconds" -max_len=4096 \
    -artifact_prefix="$work/$reader-" -print_final_stats=1
}
fuzz safetensors corpus
fuzz gguf corpus_gguf
