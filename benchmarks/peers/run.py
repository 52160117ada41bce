#!/usr/bin/env python3
"""Compares samba with PyTorch on this machine's processors.

Each comparison runs samba, the other one, and samba again, close in time, because a shared machine changes from minute
to minute; medians count. Floors are those of benchmarks/run.py, max(bytes / bandwidth, flops / dot rate) with the rates
that samba's own rows measure before and after themselves; each side is held against the floor of its own bytes and
FLOPs. Kernels are compared like for like, and so are training steps: both begin with the same weights, and must have
the same loss after three steps. Whole models of the others are not: samba runs its Samba-421M, PyTorch a Llama-438M, an
architecture of about the same size. Prints a table; writes peers.csv and peers.svg.
scripts/peers builds the programs and calls this."""
import argparse
import csv
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # before this folder, whose run.py this is
import plots  # noqa: E402
import run as bench  # noqa: E402
from common import environment_for, output_of, progress, python_with  # noqa: E402

# What is compared: (name, regular expression of samba's row, row of torch_rows.py, tokens of a call). In the training
# step by oneDNN that is where PyTorch gets its products from, instead of F.linear.
COMPARISONS = [
    ("linear 1536->4096, 512 rows, f32", "matmul/simd/samba421m/512x4096x1536", "linear_512/f32", 0),
    ("linear 1536->4096, 512 rows, bf16", "matmul/simd_bf16/samba421m/512x4096x1536", "linear_512/bf16", 0),
    ("linear 1536->4096, 1 row, f32", "matmul/simd/samba421m/1x4096x1536", "linear_1/f32", 0),
    ("linear 1536->4096, 1 row, bf16", "matmul/simd_bf16/samba421m/1x4096x1536", "linear_1/bf16", 0),
    ("SwiGLU 1536-4096, 512 rows, f32", "layer/mlp_f32/samba421m/512_at_0", "swiglu_512/f32", 0),
    ("SwiGLU 1536-4096, 512 rows, bf16", "layer/mlp_bf16/samba421m/512_at_0", "swiglu_512/bf16", 0),
    ("attention, 4096 tokens, window 2048, f32", "attention/simd/samba421m/4096x12x128_at_0", "attention/f32", 0),
    ("attention, 4096 tokens, window 2048, bf16", "attention/simd_bf16/samba421m/4096x12x128_at_0",
     "attention/bf16", 0),
    ("prefill of 512 tokens, f32 *", "model/prefill_f32/samba421m/512", "prefill/f32", 512),
    ("prefill of 512 tokens, bf16 *", "model/prefill_bf16_kv_bf16/samba421m/512", "prefill/bf16", 512),
    ("decode of single tokens, f32 *", "model/decode_f32/samba421m/1_at_0", "decode/f32", 1),
    ("decode of single tokens, bf16 *", "model/decode_bf16/samba421m/1_at_0", "decode/bf16", 1),
    ("training step, Samba-20M, f32", "training/step_f32/samba20m/4x512", "training/f32", 2048),
    ("training step, Samba-20M, f32, oneDNN", "training/step_f32/samba20m/4x512", "training_onednn/f32", 2048),
    ("training step, Samba-20M, bf16", "training/step_bf16/samba20m/4x512", "training/bf16", 2048),
]
SAME_LOSS = 1e-3  # part of the loss by which two sides may differ: it falls by a tenth in three steps


@dataclass
class Side(bench.Timed):
    """Whose program, what one call of it needs at least, and its times in seconds."""
    who: str
    bytes: float = 0.0
    flops: float = 0.0
    times: list = field(default_factory=list)

    def floor(self, dot, read):
        return max(self.bytes / read, self.flops / dot)


@dataclass
class Comparison:
    name: str
    samba: Side
    peer: Side
    dot: float   # FLOP/s that the machine could do, the median over samba's rows
    read: float  # bytes/s from memory
    tokens: int

    def over_floor(self, side):
        return side.time / side.floor(self.dot, self.read)

    @property
    def faster(self):
        """How many times samba is as fast as the other one."""
        return self.peer.time / self.samba.time


def samba_rows(programs, environment):
    """Row name without its threads -> the program that has it."""
    rows = {}
    for program in sorted(programs.glob("bench_*")):
        for line in output_of([str(program), "--benchmark_list_tests"], environment).splitlines():
            if "/threads:" in line:
                rows[line.split("/threads:")[0]] = program
    return rows


def find_row(rows, pattern):
    return next((name for name in rows if re.fullmatch(pattern, name)), None)


class Runner:
    def __init__(self, options, environment):
        self.threads, self.environment, self.quick = options.threads, environment, options.quick
        self.rows = samba_rows(options.programs, environment)
        self.min_time, self.repetitions = (0.05, 3) if options.quick else (0.3, 5)

    def samba(self, name):
        pattern = f"^{re.escape(name)}/threads:{self.threads}(/|$)"
        rows = bench.run(self.rows[name], pattern, self.min_time, self.repetitions, self.environment)[0]
        if not rows:
            sys.exit(f"{self.rows[name]} has no row {name} of {self.threads} threads.")
        return rows[0]

    def torch(self, python, row):
        command = [str(python), str(HERE / "torch_rows.py"), "--row", row, "--threads", str(self.threads),
                   "--repetitions", "5" if self.quick else "9", "--min-time", str(self.min_time),
                   "--weights", self.environment["SAMBA_BENCH_WEIGHTS"]]
        report = json.loads(output_of(command, self.environment))
        self.torch_version = report["version"]
        return report["rows"][0]


def compare(name, rows, peer, tokens):
    """Of several runs of samba's row and one side of the other one."""
    samba = Side("samba", rows[0].bytes, rows[0].flops, [time for row in rows for time in row.times])
    dot = statistics.median(rate for row in rows for rate in row.dot)
    read = statistics.median(rate for row in rows for rate in row.read)
    return Comparison(name, samba, peer, dot, read, tokens)


def torch_comparisons(runner, python, pattern):
    """The comparisons with PyTorch, and the names of those that samba has no row for."""
    comparisons, skipped = [], []
    for name, ours, theirs, tokens in COMPARISONS:
        if not re.search(pattern, name):
            continue
        row = find_row(runner.rows, ours)
        if row is None:
            skipped.append(name)
            continue
        progress(name)
        before = runner.samba(row)
        result = runner.torch(python, theirs)
        if abs(result["loss"] - before.loss) > SAME_LOSS * before.loss:
            sys.exit(f"{name}: expected the same loss after three steps, found {before.loss:.5f} (samba) and "
                     f"{result['loss']:.5f} (PyTorch): they do not compute the same.")
        peer = Side("PyTorch", result["bytes"], result["flops"], result["times"])
        comparisons.append(compare(name, [before, runner.samba(row)], peer, tokens))
    return comparisons, skipped


def unlike(comparison):
    """Whether the two sides do not compute the same."""
    return comparison.name.endswith("*")


def tokens_per_second(comparison, side):
    return f"{comparison.tokens / side.time:.4g}" if comparison.tokens else ""


def print_table(comparisons):
    width = max(len(c.name) for c in comparisons)
    print(f"{'':{width}}           |             time              |    tokens/s    |    time / floor     "
          "|    machine")
    print(f"{'comparison':{width}} with      |   samba    other  other/samba |  samba   other |   floor samba other "
          "| GFLOP/s   GB/s")
    for c in comparisons:
        floor = c.samba.floor(c.dot, c.read)
        print(f"{c.name:{width}} {c.peer.who:9} |{bench.duration(c.samba.time):>8} {bench.duration(c.peer.time):>8} "
              f"{plots.number(c.faster):>12} | {tokens_per_second(c, c.samba):>6} {tokens_per_second(c, c.peer):>7} "
              f"|{bench.duration(floor):>8} {plots.number(c.over_floor(c.samba)):>5} "
              f"{plots.number(c.over_floor(c.peer)):>5} | {c.dot / 1e9:7.0f} {c.read / 1e9:6.1f}")


def write_csv(path, comparisons):
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["comparison", "with", "samba_seconds", "samba_spread", "samba_floor_seconds",
                      "samba_time_over_floor", "samba_tokens_per_s", "other_seconds", "other_spread",
                      "other_floor_seconds", "other_time_over_floor", "other_tokens_per_s", "other_time_over_samba",
                      "ceiling_gflop_per_s", "ceiling_gb_per_s"])
        for c in comparisons:
            sides = []
            for side in (c.samba, c.peer):
                sides += [f"{side.time:.6g}", f"{side.spread:.4f}", f"{side.floor(c.dot, c.read):.6g}",
                          f"{c.over_floor(side):.4f}", tokens_per_second(c, side)]
            out.writerow([c.name, c.peer.who] + sides
                         + [f"{c.faster:.4f}", f"{c.dot / 1e9:.6g}", f"{c.read / 1e9:.6g}"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="folder of bench_*")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for peers.csv and peers.svg")
    parser.add_argument("--environment", type=pathlib.Path,
                        help="folder of the Python environment with PyTorch, made if there is none "
                             "(default: peers-env in the output's folder)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="1, or all processors (default)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repetitions")
    parser.add_argument("--filter", default=".", metavar="REGEX", help="comparisons with PyTorch whose name matches")
    options = parser.parse_args()
    if not options.programs.exists():
        sys.exit(f"{options.programs} does not exist.")

    options.output.mkdir(parents=True, exist_ok=True)
    environment = dict(environment_for(options.threads), SAMBA_BENCH_LARGE="1",
                       SAMBA_BENCH_WEIGHTS=str(options.output / "training.safetensors"))
    runner = Runner(options, environment)
    if not runner.rows:
        sys.exit(f"{options.programs} has no benchmarks: build them first.")
    python = python_with(["torch", "numpy"], options.environment or options.output / "peers-env",
                         " (several GB where its package brings GPU libraries)")

    comparisons, skipped = torch_comparisons(runner, python, options.filter)
    if not comparisons:
        sys.exit("Nothing was compared"
             + (": samba has no rows for " + "; ".join(skipped) if skipped else f": no name matches {options.filter}")
             + ".")
    machine = (f"{options.threads} of {os.cpu_count()} processors, PyTorch {runner.torch_version}, "
               f"{datetime.date.today()}")
    print(machine + "\n")
    print_table(comparisons)
    if any(unlike(c) for c in comparisons):
        print("\n* Not like for like: Samba-421M against another architecture of its size, PyTorch's Llama-438M.\n"
              "  Each is held against the floor of its own bytes and FLOPs; the floor printed is samba's.")
    if skipped:
        print("Skipped, because samba has no such row: " + "; ".join(skipped) + ".")
    write_csv(options.output / "peers.csv", comparisons)
    print(f"\nWrote {options.output / 'peers.csv'}")
    plots.draw(options.output / "peers.csv", options.output / "peers.svg", machine)


if __name__ == "__main__":
    main()
