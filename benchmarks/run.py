#!/usr/bin/env python3
"""Runs the benchmarks and holds every row against the machine's ceilings, measured just before and after.

floor = max(bytes / bandwidth, flops / dot rate), at the row's number of threads and in the type of its factors. The dot
rate, and for what comes from memory the bandwidth, are measured before and after the row itself, because those of a
shared machine change from minute to minute; the bandwidth of a cache is that of the largest array read by `ceilings`
that is not larger than the row's footprint. In a cache a row can come out below 1: reads and writes pass each other, the
ceiling only reads. Prints a table; writes bench.csv and, with matplotlib, bench.svg. With --roofline: the layers of
Samba-421M only, as a table by layer, roofline.csv and roofline.svg.
scripts/bench builds the programs and calls this."""
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
from dataclasses import dataclass

import plots

SOURCES = pathlib.Path(__file__).resolve().parent
QUICK = "/demo/|([^d]|1d)/simd/"  # of the backward kernels, whose names end in rd, the demo's size only


class Timed:
    """What has been measured some times: `times`, in seconds."""

    @property
    def time(self):
        return statistics.median(self.times)

    @property
    def spread(self):
        """Largest less smallest time, as a part of the median."""
        return (max(self.times) - min(self.times)) / self.time


@dataclass
class Row(Timed):
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
    source: str = ""        # what the bytes come from
    dot_rate: float = 0.0   # medians of the ceilings
    read_rate: float = 0.0  # from memory
    source_rate: float = 0.0
    loss: float = 0.0       # of training

    @property
    def name(self):
        return f"{self.kernel}/{self.variant}/{self.size}".rstrip("/")

    @property
    def layer(self):
        """Of a layer's row the layer, of a model's what the model does."""
        return self.variant.split("_")[0]

    @property
    def type(self):
        """Of a layer's or a model's row the type of its matrices."""
        return next((part for part in self.variant.split("_") if part in plots.TYPES), "f32")

    @property
    def intensity(self):
        return self.flops / self.bytes

    @property
    def rate(self):
        return self.flops / self.time


def programs_for(pattern, names):
    """The programs whose rows a pattern can mean: one, where it begins with that program's name, else all."""
    word = re.match(r"\^?([a-z0-9_]+?)(_backward)?(/|$)", pattern)
    alternatives = "|" in re.sub(r"\([^()]*\)", "", pattern)
    return [word[1]] if word and word[1] in names and not alternatives else names


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
                            b["footprint"], [], [], loss=b.get("loss", 0.0))
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
        from_memory = row.footprint >= MEMORY
        row.source = "memory" if from_memory else "read " + binary(array)
        rates = row.read if from_memory else [sizes[array]] * len(row.read)
        floors = [max((row.bytes / rate, row.source), (row.flops / dot, "dot")) for dot, rate in zip(row.dot, rates)]
        ratios = sorted(zip((time / floor for time, (floor, _) in zip(row.times, floors)), floors))
        row.over_floor, (row.floor, row.bound) = ratios[len(ratios) // 2]
        row.dot_rate, row.read_rate = statistics.median(row.dot), statistics.median(row.read)
        row.source_rate = statistics.median(rates)


def binary(n):
    return f"{n / 2**20:g} MiB" if n >= 2**20 else f"{n / 2**10:g} KiB"


def duration(seconds):
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 999.5 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def print_table(rows, ceilings):
    for threads in sorted(ceilings.dot):
        reads = ", ".join(f"{binary(s)} {v / 1e9:.0f}" for s, v in sorted(ceilings.read[threads].items()))
        dots = ", ".join(f"{name} {v / 1e9:.0f}" for name, v in ceilings.dot[threads].items())
        print(f"{threads} thread{'s' if threads > 1 else ''}: {dots} GFLOP/s; reading an array of {reads} GB/s")
    width = max(len(r.name) for r in rows)
    print(f"\n{'row':{width}} threads       time  spread      floor  x floor     GB/s  GFLOP/s  of GB/s  GFLOP/s  bound")
    for r in rows:
        print(f"{r.name:{width}} {r.threads:7} {duration(r.time):>10} {r.spread:6.0%} {duration(r.floor):>11} "
              f"{plots.number(r.over_floor):>8} {r.bytes / r.time / 1e9:8.2f} {r.flops / r.time / 1e9:8.1f} {r.read_rate / 1e9:8.1f} "
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


def roofline_order(rows):
    """By layer, in the order of the program; of a layer by size, then threads, then type."""
    def place(row, *fields):
        """Number of the first row that agrees in these fields."""
        return next(i for i, r in enumerate(rows) if all(getattr(r, f) == getattr(row, f) for f in fields))

    return sorted(rows, key=lambda r: (place(r, "kernel", "layer"), place(r, "kernel", "layer", "size"), r.threads,
                                       list(plots.TYPES).index(r.type)))


def print_roofline(rows):
    width = max(len(r.size) for r in rows) + 2
    print(f"{'':{width}} type  threads       MB     GFLOP  FLOP/byte       time  spread  GFLOP/s  bound    "
          "  of ceiling")
    heading = None
    for r in rows:
        if heading != (r.kernel, r.layer):
            heading = (r.kernel, r.layer)
            print(r.layer if r.kernel == "layer" else f"{r.kernel}: {r.layer}")
        print(f"  {r.size:{width - 2}} {r.type:5} {r.threads:7} {r.bytes / 1e6:8.4g} {r.flops / 1e9:9.4g} "
              f"{r.intensity:10.3g} {duration(r.time):>10} {r.spread:6.0%} {r.rate / 1e9:8.1f}  {r.bound:13} "
              f"{1 / r.over_floor:7.0%}")


def write_roofline_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["row", "layer", "type", "size", "threads", "bytes", "flops", "flops_per_byte", "seconds",
                      "spread", "gflop_per_s", "bound", "floor_seconds", "of_ceiling", "source", "ceiling_gb_per_s",
                      "ceiling_gflop_per_s"])
        for r in rows:
            out.writerow([r.name, r.layer, r.type, r.size, r.threads, f"{r.bytes:.0f}", f"{r.flops:.0f}",
                          f"{r.intensity:.6g}", f"{r.time:.6g}", f"{r.spread:.4f}", f"{r.rate / 1e9:.6g}", r.bound,
                          f"{r.floor:.6g}", f"{1 / r.over_floor:.4f}", r.source,
                          f"{r.source_rate / 1e9:.6g}", f"{r.dot_rate / 1e9:.6g}"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--programs", type=pathlib.Path, help="folder of bench_*")
    parser.add_argument("--output", type=pathlib.Path, help="folder for what is written")
    parser.add_argument("--targets", action="store_true", help="print the programs that the other options need")
    parser.add_argument("--quick", action="store_true", help="the demo's sizes and the fast kernels only")
    parser.add_argument("--large", action="store_true", help="Samba-421M as a whole too: 1.7 GB of weights")
    parser.add_argument("--roofline", action="store_true", help="the layers only, as a table by layer and a roofline")
    parser.add_argument("--filter", default=None, metavar="REGEX", help="rows whose name matches")
    options = parser.parse_args()
    if not options.targets and not (options.programs and options.output):
        parser.error("expected --programs and --output, or --targets")
    every = "." if not options.roofline else "/samba421m/"
    pattern = options.filter or (QUICK if options.quick else every)
    min_time, repetitions = (0.02, 3) if options.quick else (0.2, 5)

    names = sorted(p.stem for p in SOURCES.glob("*.cpp"))
    if options.roofline:
        names = ["ceilings", "layer"] + ["model"] * options.large
    elif options.filter:
        names = sorted({"ceilings", *programs_for(options.filter, names)})
    if options.targets:
        print(*(f"bench_{name}" for name in names))
        return
    options.output.mkdir(parents=True, exist_ok=True)

    environment = {k: v for k, v in os.environ.items() if k != "SAMBA_BENCH_LARGE"}
    if options.large:
        environment["SAMBA_BENCH_LARGE"] = "1"
    load = os.getloadavg()[0]
    if load > 0.5 * os.cpu_count():
        print(f"The machine is busy (load {load:.1f} on {os.cpu_count()} processors): these times are not its best.",
              file=sys.stderr)
        # Threads that wait for each other must not take the processor from those that they wait for.
        environment.setdefault("OMP_WAIT_POLICY", "passive")
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

    machine = f"{context['num_cpus']} processors, {context['samba_target']}, {datetime.date.today()}"
    print(machine)
    file = options.output / ("roofline" if options.roofline else "bench")
    if options.roofline:
        rows = roofline_order(rows)
        print_roofline(rows)
        write_roofline_csv(file.with_suffix(".csv"), rows)
    else:
        print_table(rows, ceilings)
        write_csv(file.with_suffix(".csv"), rows, ceilings)
    print(f"\nWrote {file}.csv")
    plots.draw(file.with_suffix(".csv"), file.with_suffix(".svg"), machine)


if __name__ == "__main__":
    main()
