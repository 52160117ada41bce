#!/usr/bin/env bash
# One configuration of the matrix: configures, builds and tests it in a folder of its own.
# Usage: stage.sh BUILD_FOLDER "TARGETS" "CTEST ARGUMENTS" CMAKE_ARGUMENTS...
# shellcheck disable=SC2086  # targets and arguments are words
set -euo pipefail
build=$1 targets=$2 tests=$3
shift 3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
jobs=$(nproc)

cmake -S "$root" -B "$build" "$@"
cmake --build "$build" --parallel "$jobs" --target $targets
ctest --test-dir "$build" --output-on-failure --no-tests=error --parallel "$jobs" $tests
