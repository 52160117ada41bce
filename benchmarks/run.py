#!/usr/bin/env python3
"""Runs the benchmarks and holds every row against the machine's ceilings, measured just before and after.

floor = max(bytes / bandwidth, flops / dot rate), at the row's number of threads and in the type of its factors. The dot
rate, and for what comes from memory the bandwidth, are measured before and after the row itself, because those of a
shared machine change from minute to minute; the bandwidth of a cache is that of the largest array read by `ceilings`
that is not larger than the row's footprint. In a cache a row can come out below 1: reads and writes pass each other, the
ceiling only reads. Prints a table; writes bench.csv and bench.svg.
scripts/bench builds the programs and calls this."""
import argparse
import csv
import datetime
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from xml.sax.saxutils import escape

SOURCES = pathlib.Path(__file__).resolve().parent
QUICK = "/demo/|/simd/"


@dataclass
class Row:
    kernel: str
    variant: str
    size: str
    threads: int
    times: list  # seconds, one per repetition
    bytes: float
    flops: float
    footprint: float
    dot: list   # FLOP/s that the machine could do at that time, one per repetition
    read: list  # bytes/s from memory
    floor: float = 0.0
    over_floor: float = 0.0
    bound: str = ""

    @property
    def name(self):
        return f"{self.kernel}/{self.variant}/{self.size}".rstrip("/")

    @property
    def time(self):
        return statistics.median(self.times)

    @property
    def spread(self):
        """Largest less smallest time, as a part of the median."""
        return (max(self.times) - min(self.times)) / self.time


def run(program, pattern, min_time, repetitions, environment):
    """(rows, context) of one program; no rows if its names do not match the pattern."""
    command = [str(program), "--benchmark_format=json", f"--benchmark_min_time={min_time}",
               f"--benchmark_repetitions={repetitions}", f"--benchmark_filter={pattern}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{program} failed with status {done.returncode}:\n{done.stderr}")
    if not done.stdout.strip():
        if "Failed to match any benchmarks" in done.stderr:
            return [], {}
        sys.exit(f"{program} wrote nothing:\n{done.stderr}")
    report = json.loads(done.stdout)
    rows = {}
    for b in report["benchmarks"]:
        if b.get("error_occurred"):
            sys.exit(f"{b['name']}: {b['error_message']}")
        if b["run_type"] != "iteration":
            continue
        name, threads = re.fullmatch(r"(.*)/threads:(\d+)(?:/real_time)?", b["run_name"]).groups()
        kernel, variant, *size = name.split("/", 2)
        key = (name, int(threads))
        if key not in rows:
            rows[key] = Row(kernel, variant, size[0] if size else "", int(threads), [], b["bytes"], b["flops"],
                            b["footprint"], [], [])
        rows[key].dot.append(b["dot"])
        rows[key].read.append(b["read"])
        rows[key].times.append(b["real_time"] * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}[b["time_unit"]])
    return list(rows.values()), report["context"]


MEMORY = 2 ** 26  # bytes that no cache holds


class Ceilings:
    """The best rates seen, by number of threads."""

    def __init__(self):
        self.dot = {}   # threads -> {name: FLOP/s}
        self.read = {}  # threads -> {bytes of the array: bytes/s}

    def add(self, rows):
        for r in rows:
            best = min(r.times)
            if r.variant == "read":
                sizes = self.read.setdefault(r.threads, {})
                sizes[r.footprint] = max(sizes.get(r.footprint, 0.0), r.bytes / best)
            else:
                names = self.dot.setdefault(r.threads, {})
                names[r.variant] = max(names.get(r.variant, 0.0), r.flops / best)

    def apply(self, row):
        """The row's time over its floor, each repetition with the ceilings of its own time; the median counts."""
        if row.threads not in self.read:
            sys.exit(f"{row.name}: no ceilings were measured for {row.threads} threads")
        sizes = self.read[row.threads]
        array = max((s for s in sizes if s <= row.footprint), default=min(sizes))
        floors = []
        for dot, read in zip(row.dot, row.read):
            memory = row.bytes / (read if row.footprint >= MEMORY else sizes[array])
            floors.append(max((memory, "memory" if row.footprint >= MEMORY else "read " + binary(array)),
                              (row.flops / dot, "dot")))
        ratios = sorted(zip((time / floor for time, (floor, _) in zip(row.times, floors)), floors))
        row.over_floor, (row.floor, row.bound) = ratios[len(ratios) // 2]
        row.dot_rate, row.read_rate = statistics.median(row.dot), statistics.median(row.read)


def binary(n):
    return f"{n / 2**20:g} MiB" if n >= 2**20 else f"{n / 2**10:g} KiB"


def duration(seconds):
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 999.5 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def ratio(x):
    return f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


def print_table(rows, ceilings):
    for threads in sorted(ceilings.dot):
        reads = ", ".join(f"{binary(s)} {v / 1e9:.0f}" for s, v in sorted(ceilings.read[threads].items()))
        dots = ", ".join(f"{name} {v / 1e9:.0f}" for name, v in ceilings.dot[threads].items())
        print(f"{threads} thread{'s' if threads > 1 else ''}: {dots} GFLOP/s; reading an array of {reads} GB/s")
    width = max(len(r.name) for r in rows)
    print(f"\n{'row':{width}} threads       time  spread      floor  x floor     GB/s  GFLOP/s  of GB/s  GFLOP/s  bound")
    for r in rows:
        print(f"{r.name:{width}} {r.threads:7} {duration(r.time):>10} {r.spread:6.0%} {duration(r.floor):>11} "
              f"{ratio(r.over_floor):>8} {r.bytes / r.time / 1e9:8.2f} {r.flops / r.time / 1e9:8.1f} {r.read_rate / 1e9:8.1f} "
              f"{r.dot_rate / 1e9:8.0f}  {r.bound}")


def write_csv(path, rows, ceilings):
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["row", "threads", "seconds", "spread", "floor_seconds", "time_over_floor", "bound", "bytes",
                      "flops", "footprint", "gb_per_s", "gflop_per_s", "ceiling_gb_per_s", "ceiling_gflop_per_s"])
        for threads in sorted(ceilings.dot):
            for name, rate in ceilings.dot[threads].items():
                out.writerow([f"ceilings/{name}", threads] + [""] * 9 + [f"{rate / 1e9:.6g}", "", ""])
            for size, rate in sorted(ceilings.read[threads].items()):
                out.writerow(["ceilings/read", threads] + [""] * 7 + [f"{size:.0f}", f"{rate / 1e9:.6g}", "", "", ""])
        for r in rows:
            out.writerow([r.name, r.threads, f"{r.time:.6g}", f"{r.spread:.4f}", f"{r.floor:.6g}",
                          f"{r.over_floor:.4f}", r.bound, f"{r.bytes:.0f}", f"{r.flops:.0f}", f"{r.footprint:.0f}",
                          f"{r.bytes / r.time / 1e9:.6g}", f"{r.flops / r.time / 1e9:.6g}",
                          f"{r.read_rate / 1e9:.6g}", f"{r.dot_rate / 1e9:.6g}"])


def steps_125(low, high):
    """The numbers 1, 2 and 5 times powers of ten from the last not above low to the first not below high."""
    first = math.floor(math.log10(low))
    all_steps = [m * 10.0 ** e for e in range(first, math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
    return [s for i, s in enumerate(all_steps)
            if (i + 1 == len(all_steps) or all_steps[i + 1] > low) and (i == 0 or all_steps[i - 1] < high)]


def color(row):
    if row.variant in ("raw_loop", "reference"):
        return {"raw_loop": "#b5b5b5", "reference": "#8fb3d9"}[row.variant]
    return "#1f5fa8" if row.threads == 1 else "#e08a2b"


def write_svg(path, rows, machine):
    """Horizontal bars of time over floor on a logarithmic axis, in groups by kernel and by size."""
    character, line = 6.7, 15  # px of the 11 px monospace font
    size_width = character * max(len(r.size) for r in rows) + 14
    labels = {id(r): r.variant + (f" x{r.threads}" if r.threads > 1 else "") for r in rows}
    label_width = character * max(map(len, labels.values())) + 10
    margin, plot, value_width = 16, 460, 60
    left = margin + size_width + label_width
    ratios = [r.over_floor for r in rows]
    steps = steps_125(min(1.0, min(ratios)), max(2.0, max(ratios)))
    low, high = steps[0], steps[-1]
    wide = math.log10(high / low) > 2.5  # then only powers of ten have a number

    def x(value):
        return left + plot * math.log(value / low) / math.log(high / low)

    body, y = [], 112

    def text(at, height, content, extra=""):
        body.append(f'<text x="{at:.1f}" y="{height:.1f}"{extra}>{escape(content)}</text>')

    top, kernel, size = y - 10, None, None
    for r in rows:
        if r.kernel != kernel:
            kernel, size = r.kernel, None
            y += 22
            text(margin, y, kernel, ' class="kernel"')
            y += 4
        if r.size != size:
            size = r.size
            y += 5
            text(margin, y + 11, size)
        text(margin + size_width, y + 11, labels[id(r)])
        begin, end = x(low), x(r.over_floor)
        body.append(f'<rect x="{begin:.1f}" y="{y + 2:.1f}" width="{max(end - begin, 1):.1f}" height="{line - 4}" '
                    f'fill="{color(r)}"/>')
        value = ratio(r.over_floor)
        body.append(f'<rect x="{end + 3:.1f}" y="{y + 1}" width="{character * len(value) + 4:.1f}" '
                    f'height="{line - 2}" fill="#ffffff"/>')  # over the lines of the axis
        text(end + 5, y + 11, value)
        y += line
    bottom = y + 8

    axis = []
    for s in steps:
        floor = abs(s - 1) < 1e-9
        axis.append(f'<line x1="{x(s):.1f}" y1="{top}" x2="{x(s):.1f}" y2="{bottom}" '
                    f'stroke="{"#c03030" if floor else "#dddddd"}"/>')
        if not wide or abs(math.log10(s) - round(math.log10(s))) < 1e-9:
            for height in (top - 5, bottom + 14):
                axis.append(f'<text x="{x(s):.1f}" y="{height}" text-anchor="middle">{s:g}</text>')

    head = [f'<text x="{margin}" y="28" class="title">Time over floor</text>',
            f'<text x="{margin}" y="48">{escape(machine)}</text>']
    at = margin
    for label, fill in (("raw loop", "#b5b5b5"), ("reference", "#8fb3d9"), ("simd, 1 thread", "#1f5fa8"),
                        ("simd, all threads", "#e08a2b")):
        head.append(f'<rect x="{at:.1f}" y="62" width="11" height="11" fill="{fill}"/>')
        head.append(f'<text x="{at + 16:.1f}" y="72">{label}</text>')
        at += 16 + character * len(label) + 22

    width = max(left + plot + value_width, at, margin * 2 + character * len(machine))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{bottom + 28:.0f}" '
        'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="11" fill="#222222">\n'
        '<style>.kernel { font-weight: bold; font-size: 13px } .title { font-weight: bold; font-size: 18px }</style>\n'
        f'<rect width="{width:.0f}" height="{bottom + 28:.0f}" fill="#ffffff"/>\n'
        + "\n".join(head + axis + body) + "\n</svg>\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="folder of bench_*")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for bench.csv and bench.svg")
    parser.add_argument("--quick", action="store_true", help="the demo's sizes and the fast kernels only")
    parser.add_argument("--large", action="store_true", help="Samba-421M as a whole too: 1.7 GB of weights")
    parser.add_argument("--filter", default=None, metavar="REGEX", help="rows whose name matches")
    options = parser.parse_args()
    pattern = options.filter or (QUICK if options.quick else ".")
    min_time, repetitions = (0.02, 3) if options.quick else (0.2, 5)

    environment = {k: v for k, v in os.environ.items() if k != "SAMBA_BENCH_LARGE"}
    if options.large:
        environment["SAMBA_BENCH_LARGE"] = "1"
    load = os.getloadavg()[0]
    if load > 0.5 * os.cpu_count():
        print(f"The machine is busy (load {load:.1f} on {os.cpu_count()} processors): these times are not its best.",
              file=sys.stderr)
        # Threads that wait for each other must not take the processor from those that they wait for.
        environment.setdefault("OMP_WAIT_POLICY", "passive")
    names = sorted(p.stem for p in SOURCES.glob("*.cpp"))
    missing = [n for n in names if not (options.programs / f"bench_{n}").exists()]
    if missing:
        sys.exit(f"{options.programs} lacks " + ", ".join(f"bench_{n}" for n in missing) + ": build it first")

    def measure(name, wanted):
        print(f"bench_{name} ...", file=sys.stderr, flush=True)
        return run(options.programs / f"bench_{name}", wanted, min_time, repetitions, environment)

    ceilings, rows = Ceilings(), []
    before, context = measure("ceilings", ".")
    ceilings.add(before)
    for name in names:
        if name != "ceilings":
            rows += measure(name, pattern)[0]
    if not rows:
        sys.exit(f"no row matches {pattern}")
    ceilings.add(measure("ceilings", ".")[0])
    for row in rows:
        ceilings.apply(row)

    print_table(rows, ceilings)
    machine = f"{context['num_cpus']} processors, {context['samba_target']}, {datetime.date.today()}"
    options.output.mkdir(parents=True, exist_ok=True)
    write_csv(options.output / "bench.csv", rows, ceilings)
    write_svg(options.output / "bench.svg", rows, machine)
    print(f"\nWrote {options.output / 'bench.csv'} and {options.output / 'bench.svg'}")


main()
