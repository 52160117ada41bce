#!/usr/bin/env python3
"""Checks that no type of the weights multiplies much slower than float. Usage: check_types.py BENCH_MATMUL

Rows of one size are measured in turns; the limit is far above what was measured (bf16 0.5 to 1.1, int8 0.3 to 0.8) and
far below what a kernel that lost its vectors takes (4).
"""
import json
import subprocess
import sys

LIMIT = 1.3
SIZES = {"1x4096x1536": "one token", "512x4096x1536": "512 tokens"}


def seconds(program, variant, size):
    command = [program, "--benchmark_format=json", "--benchmark_min_time=0.2",
               f"--benchmark_filter=^matmul/{variant}/samba421m/{size}/threads:1(/|$)"]
    rows = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["benchmarks"]
    if len(rows) != 1:
        sys.exit(f"expected one row of {variant}, {size}; found {[row['name'] for row in rows]}")
    return rows[0]["real_time"] * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}[rows[0]["time_unit"]]


def main(program):
    with open("/proc/cpuinfo") as cpu:
        if "avx2" not in cpu.read():
            print("not run: this processor has no AVX2")
            return 0
    failed = 0
    for size, words in SIZES.items():
        best = {}
        for _ in range(5):
            for variant in ("simd", "simd_bf16", "simd_int8", "simd_q4"):
                best[variant] = min(best.get(variant, 1e9), seconds(program, variant, size))
        for variant in ("simd_bf16", "simd_int8", "simd_q4"):
            ratio = best[variant] / best["simd"]
            slow = ratio > LIMIT
            failed += slow
            print(f"{words}, {variant}: {ratio:.2f} of float's time"
                  + (f", expected at most {LIMIT}" if slow else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
