#!/usr/bin/env python3
"""Runs the benchmarks and holds every row against the machine's ceilings, measured just before and after.

floor = max(bytes / bandwidth, flops / dot rate), at the row's number of threads and in the type of its factors. The dot
rate, and for what comes from memory the bandwidth, are measured before and after the row itself, because those of a
shared machine change from minute to minute; the bandwidth of a cache is that of the largest array read by `ceilings`
that is not larger than the row's footprint. In a cache a row can come out below 1: reads and writes pass each other, the
ceiling only reads. Prints a table; writes bench.csv and bench.svg. With --roofline: the layers of Samba-421M only, as
a table by layer, roofline.csv and roofline.svg.
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
QUICK = "/demo/|([^d]|1d)/simd/"  # of the backward kernels, whose names end in rd, the demo's size only
TYPES = {"f32": "#1f5fa8", "bf16": "#2f8f5b", "int8": "#d07a1a"}  # of factors, and their colors in a roofline


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
        return next((part for part in self.variant.split("_") if part in TYPES), "f32")

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


LEGEND = (("raw loop", "#b5b5b5"), ("reference", "#8fb3d9"), ("simd, 1 thread", "#1f5fa8"),
          ("simd, all threads", "#e08a2b"))


def color(row):
    if row.variant in ("raw_loop", "reference"):
        return {"raw_loop": "#b5b5b5", "reference": "#8fb3d9"}[row.variant]
    return "#1f5fa8" if row.threads == 1 else "#e08a2b"


def write_svg(path, rows, machine, color=color, legend=LEGEND):
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
    for label, fill in legend:
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


def roofline_order(rows):
    """By layer, in the order of the program; of a layer by size, then threads, then type."""
    def place(row, *fields):
        """Number of the first row that agrees in these fields."""
        return next(i for i, r in enumerate(rows) if all(getattr(r, f) == getattr(row, f) for f in fields))

    return sorted(rows, key=lambda r: (place(r, "kernel", "layer"), place(r, "kernel", "layer", "size"), r.threads,
                                       list(TYPES).index(r.type)))


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
                      "spread", "gflop_per_s", "bound", "floor_seconds", "of_ceiling", "ceiling_gb_per_s",
                      "ceiling_gflop_per_s"])
        for r in rows:
            out.writerow([r.name, r.layer, r.type, r.size, r.threads, f"{r.bytes:.0f}", f"{r.flops:.0f}",
                          f"{r.intensity:.6g}", f"{r.time:.6g}", f"{r.spread:.4f}", f"{r.rate / 1e9:.6g}", r.bound,
                          f"{r.floor:.6g}", f"{1 / r.over_floor:.4f}", f"{r.source_rate / 1e9:.6g}",
                          f"{r.dot_rate / 1e9:.6g}"])


class Labels:
    """Places the labels of points where they cover neither a point nor each other."""
    character, height = 6.1, 12  # px of the 10 px monospace font

    def __init__(self, points, low, high):
        """Labels stay between the corners low and high."""
        self.taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
        self.low, self.high = low, high

    def keep_clear(self, x1, y1, x2, y2, around):
        """No label comes near the line from (x1, y1) to (x2, y2)."""
        steps = max(1, round(math.hypot(x2 - x1, y2 - y1) / 6))
        for i in range(steps + 1):
            x, y = x1 + (x2 - x1) * i / steps, y1 + (y2 - y1) * i / steps
            self.taken.append((x - around, y - around, x + around, y + around))

    def cost(self, box):
        overlap = sum(max(0, min(box[2], b[2]) - max(box[0], b[0])) * max(0, min(box[3], b[3]) - max(box[1], b[1]))
                      for b in self.taken)
        outside = max(0, self.low[0] - box[0], self.low[1] - box[1], box[2] - self.high[0], box[3] - self.high[1])
        return overlap + 1e3 * outside

    def place(self, x, y, text):
        """Left end and middle of the label of the point at (x, y): the nearest free place."""
        width = self.character * len(text)
        boxes = []
        for distance in range(10, 260, 6):
            for angle in range(0, 360, 15):
                # From the point to the nearest point of the label.
                dx, dy = distance * math.cos(math.radians(angle)), distance * math.sin(math.radians(angle))
                left = x + dx - (0 if dx > 1 else width if dx < -1 else width / 2)
                boxes.append((left, y + dy - self.height / 2, left + width, y + dy + self.height / 2))
        box = next((b for b in boxes if self.cost(b) == 0), None) or min(boxes, key=self.cost)
        self.taken.append(box)
        return box[0], (box[1] + box[3]) / 2


def polygon(corners, turn, inner=1.0):
    """Corners of a regular polygon, the first at `turn` of a circle from the right; or of a star, whose inner corners
    are at that part of the radius."""
    radii = [5.5] if inner == 1 else [6.5, 6.5 * inner]
    n = corners * len(radii)
    return [(radii[i % len(radii)] * math.cos(2 * math.pi * (i / n + turn)),
             radii[i % len(radii)] * math.sin(2 * math.pi * (i / n + turn))) for i in range(n)]


# One for each layer: circle, square, triangle, diamond, triangle down, star, cross, pentagon, square star, triangle right.
SHAPES = (polygon(24, 0), polygon(4, 1 / 8), polygon(3, 3 / 4), polygon(4, 0), polygon(3, 1 / 4),
          polygon(5, 3 / 4, 0.45), polygon(4, 1 / 8, 0.35), polygon(5, 3 / 4), polygon(4, 0, 0.35), polygon(3, 0))


def marker(x, y, shape, fill):
    """One of the shapes, by number."""
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in SHAPES[shape])
    return f'<polygon points="{points}" fill="{fill}" stroke="#ffffff" stroke-width="0.7"/>'


def write_roofline_svg(path, rows, machine):
    """FLOP/s over FLOPs per byte, both logarithmic, at the largest number of threads. Roofs are the medians of the
    rows' ceilings, so a row whose own were higher may stand above them; such points are marked."""
    threads = max(r.threads for r in rows)
    rows = [r for r in rows if r.threads == threads]
    roofs = {t: statistics.median(r.dot_rate for r in rows if r.type == t)
             for t in TYPES if any(r.type == t for r in rows)}
    slopes = {s: statistics.median(r.source_rate for r in rows if r.source == s) for s in {r.source for r in rows}}
    x_low, x_high = min(r.intensity for r in rows) / 2, max(r.intensity for r in rows) * 3
    y_low, y_high = min(r.rate for r in rows) / 2.5, max(max(roofs.values()), max(r.rate for r in rows)) * 1.8
    left, top, width, height, margin = 76, 104, 1000, 640, 16

    def x(value):
        return left + width * math.log(value / x_low) / math.log(x_high / x_low)

    def y(value):
        return top + height - height * math.log(value / y_low) / math.log(y_high / y_low)

    layers = list(dict.fromkeys(r.layer for r in rows))
    if len(layers) > len(SHAPES):
        sys.exit(f"the roofline has {len(SHAPES)} symbols, one a layer, and found {len(layers)} layers: add some")
    above = {id(r) for r in rows if r.rate > 1.01 * min(roofs[r.type], r.intensity * slopes[r.source])}
    body, over = [], []  # over: what lines must not cross

    def text(at, level, content, extra="", to=body):
        to.append(f'<text x="{at:.1f}" y="{level:.1f}"{extra}>{escape(content)}</text>')

    def line(x1, y1, x2, y2, stroke, extra=""):
        body.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{extra}/>')

    for s in steps_125(x_low, x_high):
        if x_low <= s <= x_high:
            line(x(s), top, x(s), top + height, "#e4e4e4")
            text(x(s), top + height + 16, f"{s:g}", ' text-anchor="middle"')
    for s in steps_125(y_low / 1e9, y_high / 1e9):
        if y_low <= s * 1e9 <= y_high:
            line(left, y(s * 1e9), left + width, y(s * 1e9), "#e4e4e4")
            text(left - 6, y(s * 1e9) + 4, f"{s:g}", ' text-anchor="end"')
    text(left + width / 2, top + height + 36, "FLOPs per byte", ' text-anchor="middle"')
    text(left - 60, top - 10, "GFLOP/s")

    labels = Labels([(x(r.intensity), y(r.rate)) for r in rows],
                    (left + 2, top + 2), (left + width - 2, top + height - 2))
    roof_ends = {name: x(roof / max(slopes.values())) for name, roof in roofs.items()}
    top_roof = max(roofs.values())
    # Where several caches are a source, their names stand at different heights.
    for i, (source, slope) in enumerate(sorted(slopes.items())):
        begin, end = max(x_low, y_low / slope), top_roof / slope
        line(x(begin), y(begin * slope), x(end), y(end * slope), "#555555", ' stroke-width="1.5"')
        labels.keep_clear(x(begin), y(begin * slope), x(end), y(end * slope), 4)
        middle = begin * (end / begin) ** ((i + 1) / (len(slopes) + 1))
        at, level, content = x(middle), y(middle * slope), f"{source} {slope / 1e9:.3g} GB/s"
        tilt = math.atan2(y(end * slope) - y(begin * slope), x(end) - x(begin))
        text(at, level - 6, content, ' text-anchor="middle" class="over" fill="#555555"'
             f' transform="rotate({math.degrees(tilt):.1f} {at:.1f} {level:.1f})"', over)
        dx, dy = 3.4 * len(content) * math.cos(tilt), 3.4 * len(content) * math.sin(tilt)
        labels.keep_clear(at - dx - 8, level - dy - 8, at + dx - 8, level + dy - 8, 8)
    lowest = math.inf  # the last text, from the lowest roof up
    for name, roof in sorted(roofs.items(), key=lambda item: item[1]):
        line(roof_ends[name], y(roof), left + width, y(roof), TYPES[name], ' stroke-width="1.5"')
        labels.keep_clear(roof_ends[name], y(roof), left + width, y(roof), 2)
        content, lowest = f"{name} {roof / 1e9:.4g} GFLOP/s", min(y(roof) - 5, lowest - 14)
        text(left + width - 4, lowest, content, f' text-anchor="end" fill="{TYPES[name]}"')
        labels.keep_clear(left + width - 4 - 6.7 * len(content), lowest - 4, left + width, lowest - 4, 7)

    for r in sorted(rows, key=lambda r: -r.rate):
        at, level = x(r.intensity), y(r.rate)
        content = f"{r.layer} {r.size.split('/')[-1]} {1 / r.over_floor:.0%}" + "*" * (id(r) in above)
        label_x, label_y = labels.place(at, level, content)
        near_x = min(max(at, label_x), label_x + labels.character * len(content))
        if math.hypot(near_x - at, label_y - level) > 14:
            edge = 0 if abs(label_y - level) < 6 else math.copysign(5, level - label_y)
            line(at, level, near_x, label_y + edge, TYPES[r.type], ' stroke-width="0.6"')
        text(label_x, label_y + 3.5, content, f' class="over label" fill="{TYPES[r.type]}"', over)
        over.append(marker(at, level, layers.index(r.layer), TYPES[r.type]))

    head = [f'<text x="{margin}" y="28" class="title">Roofline, {threads} thread{"s" if threads > 1 else ""}</text>',
            f'<text x="{margin}" y="48">{escape(machine)}. Percent: floor over time.</text>']
    at = margin
    for name in roofs:
        head += [f'<rect x="{at}" y="62" width="11" height="11" fill="{TYPES[name]}"/>',
                 f'<text x="{at + 16}" y="72">{name}</text>']
        at += 70
    for i, name in enumerate(layers):
        head += [marker(at + 5, 67.5, i, "#555555"), f'<text x="{at + 16}" y="72">{name}</text>']
        at += 76
    full_width, full_height = left + width + margin, top + height + 52
    if above:
        head.append(f'<text x="{margin}" y="{full_height}">* above its roof: roofs are medians, and around this row the '
                    'machine was faster, or it runs in a cache, where writes pass reads.</text>')
        full_height += 16
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{full_width}" height="{full_height}" '
        'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="11" fill="#222222">\n'
        '<style>.over { paint-order: stroke; stroke: #ffffff; stroke-width: 3px } .label { font-size: 10px } '
        '.title { font-weight: bold; font-size: 18px }</style>\n'
        f'<rect width="{full_width}" height="{full_height}" fill="#ffffff"/>\n'
        + "\n".join(head + body + over) + "\n</svg>\n", encoding="utf-8")


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
        write_roofline_svg(file.with_suffix(".svg"), rows, machine)
    else:
        print_table(rows, ceilings)
        write_csv(file.with_suffix(".csv"), rows, ceilings)
        write_svg(file.with_suffix(".svg"), rows, machine)
    print(f"\nWrote {file}.csv and {file}.svg")


if __name__ == "__main__":
    main()
