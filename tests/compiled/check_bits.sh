#!/usr/bin/env bash
# samba::compiled gives the bits of a program compiled for the instruction set.
# Usage: check_bits.sh COMPILED BITS FOLDER       BITS: compiled for one set; COMPILED: with samba::compiled
#        check_bits.sh COMPILED BITS FOLDER CPU   on a processor that has no more than this set, emulated
set -euo pipefail
compiled=$1 bits=$2 folder=$3 cpu=${4:-}
set=$("$bits")
if [ -n "$cpu" ]; then
  export OMP_NUM_THREADS=1
  found=$(qemu-x86_64 -cpu "$cpu" "$compiled" 2>/dev/null)
  [ "$found" = "$set" ] || { echo "on $cpu: expected $set, found $found"; exit 1; }
  # Few tokens: emulated, AVX2 takes a second for what takes a millisecond. Many are compared without emulation.
  expected=$("$bits" "$folder" 4)
  found=$(qemu-x86_64 -cpu "$cpu" "$compiled" "$folder" 4 2>/dev/null)
  diff <(echo "$expected") <(echo "$found")
elif "$compiled" "$folder" 4 "$set" >/dev/null 2>&1; then
  expected=$("$bits" "$folder" 600)
  found=$("$compiled" "$folder" 600 "$set")
  diff <(echo "$expected") <(echo "$found")
else
  # The processor lacks it, and the library says so.
  "$compiled" "$folder" 4 "$set" 2>&1 | grep "expected a set that samba::compiled contains and this processor supports"
fi
