#!/usr/bin/env python3
"""Draws the plot of a table that scripts/bench or scripts/peers wrote, by matplotlib 3.6 or newer.

scripts/bench and scripts/peers call this. By hand: benchmarks/plots.py bench.csv bench.svg --title "a machine"."""
import argparse
import csv
import math
import pathlib
import statistics
import sys
from dataclasses import dataclass

TYPES = {"f32": "#1f5fa8", "bf16": "#2f8f5b", "int8": "#d07a1a", "q4": "#a03070"}  # of factors, and their colors in a roofline
PEERS = {"samba": "#1f5fa8", "PyTorch": "#e08a2b", "llama.cpp": "#5a9a4a"}
LEGEND = {"raw loop": "#b5b5b5", "reference": "#8fb3d9", "simd, 1 thread": "#1f5fa8", "simd, all threads": "#e08a2b"}
MARKERS = "os^Dv*XPhp<>"  # one for each layer of a roofline
GREY = "#555555"
MARGIN = 14 / 72  # inches
CHARACTER = 0.602  # width of a character of the monospace font, as a part of its size


def available():
    """None, or one sentence on why there are no plots."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        # Debian's package serves Debian's Python only, which in turn refuses pip.
        how = "apt-get install python3-matplotlib" if sys.prefix == "/usr" else f"{sys.executable} -m pip install matplotlib"
        return f"No plot: this python3 lacks matplotlib ({how})."
    return None


def draw(table, path, title):
    """The plot of a CSV table, whose columns tell its kind. Prints what it did, or why it did nothing."""
    missing = available()
    if missing:
        print(missing)
        return
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = rows[0] if rows else {}
    kinds = {"comparison": draw_peers, "flops_per_byte": draw_roofline, "time_over_floor": draw_bench}
    kind = next((function for column, function in kinds.items() if column in names), None)
    if kind is None:
        sys.exit(f"{table} is no table of scripts/bench or scripts/peers.")
    kind(path, rows, title)
    print(f"Drew {path}")


def figure(title, width, height):
    """(figure, axes) of a size in inches. The file depends on nothing but the table and the version of matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure
    matplotlib.rcdefaults()
    # Text stays text, for small files. Viewers set it up to a twentieth wider than the layout does: hence the margins.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "samba", "font.family": "monospace",
                                "font.monospace": ["DejaVu Sans Mono"], "font.size": 8, "axes.spines.top": False,
                                "axes.spines.right": False})
    fig = Figure(figsize=(width, height), layout="constrained")
    fig.get_layout_engine().set(w_pad=MARGIN)
    fig.suptitle(title, x=MARGIN / width, ha="left", fontsize=10)
    return fig, fig.subplots()


def save(fig, path):
    fig.savefig(path, metadata={"Date": None, "Creator": None} if pathlib.Path(path).suffix == ".svg" else None)


def columns(text):
    """With spaces that SVG does not collapse."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def number(x):
    return f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


@dataclass
class Bar:
    group: str  # a heading
    size: str   # of a group; written at the first of its bars
    label: str
    value: float
    color: str


def draw_bench(path, rows, title):
    bars = []
    for row in rows:
        if not row["time_over_floor"]:
            continue  # a ceiling
        kernel, variant, *size = row["row"].split("/", 2)
        many = row["threads"] != "1"
        key = {"raw_loop": "raw loop", "reference": "reference"}.get(variant, "simd, all threads" if many else
                                                                     "simd, 1 thread")
        bars.append(Bar(kernel, "".join(size), variant + many * f" x{row['threads']}", float(row["time_over_floor"]),
                        LEGEND[key]))
    draw_bars(path, bars, title, LEGEND)


def draw_peers(path, rows, title):
    bars = []
    for row in rows:
        name = row["comparison"]
        group = ("Models: Samba-421M against others of its size, each with its own floor" if name.endswith("*") else
                 "Training steps" if row["samba_tokens_per_s"] else "Kernels")
        for who, side in ("samba", "samba"), (row["with"], "other"):
            bars.append(Bar(group, name.rstrip(" *"), who, float(row[f"{side}_time_over_floor"]), PEERS[who]))
    draw_bars(path, bars, title, {who: PEERS[who] for who in PEERS if any(bar.label == who for bar in bars)})


def draw_bars(path, bars, title, legend):
    """Horizontal bars of time over floor on a logarithmic axis, in groups and by size. legend: color by label."""
    from matplotlib.patches import Patch
    from matplotlib.ticker import LogLocator, NullLocator
    size_width, label_width = max(len(bar.size) for bar in bars), max(len(bar.label) for bar in bars)
    labels, places, headings, at, before = [], [], [], 0.0, Bar("", "", "", 0, "")
    for bar in bars:
        if bar.group != before.group:
            at += 1.6
            headings.append((at - 0.9, bar.group))
        first = (bar.group, bar.size) != (before.group, before.size)
        at += 0.35 * first
        labels.append(columns(f"{bar.size:{size_width}}  {bar.label:>{label_width}}") if first else bar.label)
        places.append(at)
        at, before = at + 1, bar
    values = [bar.value for bar in bars]
    low, high = min(1.0, *values) / 1.15, max(2.0, *values)
    high *= (high / low) ** 0.12  # room for a value
    fig, axes = figure(title, 6.8 + (size_width + label_width) * CHARACTER * 8 / 72, 1.3 + 0.15 * at)
    axes.barh(places, [value - low for value in values], left=low, color=[bar.color for bar in bars], height=0.8)
    axes.axvline(1, color="#c03030", linewidth=1)
    for place, value in zip(places, values):
        axes.annotate(number(value), (value, place), xytext=(3, 0), textcoords="offset points", va="center_baseline",
                      bbox={"color": "white", "pad": 0.5})
    for place, heading in headings:
        axes.annotate(heading, (0, place), xycoords=axes.get_yaxis_transform(), xytext=(3, 0), weight="bold",
                      textcoords="offset points", va="center", bbox={"color": "white", "pad": 1.5})
    axes.set_xscale("log")
    axes.set(xlim=(low, high), ylim=(at, -0.6), xlabel="time over floor")
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", top=True, labeltop=True)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    axes.legend([Patch(color=color) for color in legend.values()], legend, ncol=len(legend), frameon=False,
                loc="lower left", bbox_to_anchor=(0, 1), bbox_transform=axes.transAxes, borderaxespad=2)
    save(fig, path)


class Places:
    """Which boxes of a plot, in points, are taken."""

    def __init__(self):
        self.taken = []

    def hits(self, boxes):
        return sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a in boxes for b in self.taken)

    def take(self, candidates):
        """The first of (what, its boxes) that hits least; its boxes are taken."""
        what, boxes = min(candidates, key=lambda candidate: self.hits(candidate[1]))
        self.taken += boxes
        return what


def box(x, y, width, height):
    """Of the point in its middle."""
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def draw_roofline(path, rows, title):
    """FLOP/s over FLOPs per byte, both logarithmic, at the largest number of threads. Roofs and slopes are the medians of
    the rows' ceilings; a row whose own were higher may lie above them, and is marked. Points are numbered from the top,
    and listed beside the plot."""
    from matplotlib.ticker import NullFormatter
    threads = max(int(row["threads"]) for row in rows)
    rows = [{**row, "x": float(row["flops_per_byte"]), "y": float(row["gflop_per_s"]),
             "roof": float(row["ceiling_gflop_per_s"]), "slope": float(row["ceiling_gb_per_s"])}
            for row in rows if int(row["threads"]) == threads]
    rows.sort(key=lambda row: -row["y"])
    roofs = {t: statistics.median(row["roof"] for row in rows if row["type"] == t)
             for t in TYPES if any(row["type"] == t for row in rows)}
    slopes = {s: statistics.median(row["slope"] for row in rows if row["source"] == s)
              for s in sorted({row["source"] for row in rows})}
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    if len(layers) > len(MARKERS):
        sys.exit(f"The roofline has {len(MARKERS)} markers, one a layer, and found {len(layers)} layers: add some.")

    def above(row):
        return row["y"] > 1.01 * min(roofs[row["type"]], row["x"] * slopes[row["source"]])

    top = max(roofs.values())
    left = min(min(row["x"] for row in rows) / 2, top / max(slopes.values()) / 20)  # beside the slopes is the legend
    right = max(max(row["x"] for row in rows) * 4, top / min(slopes.values()) * 2)
    widths = {column: max(len(row[column]) for row in rows) for column in ("layer", "size")}
    listed = [f"{i:2} {row['layer']:{widths['layer']}} {row['type']:4} {row['size']:{widths['size']}} "
              f"{float(row['of_ceiling']):4.0%}" + "*" * above(row) for i, row in enumerate(rows, 1)]
    if any(map(above, rows)):
        listed += ["", "* above its roof: roofs are medians,", "  or it runs in a cache, where writes", "  pass reads."]
    listed.insert(0, "percent: floor over time")
    fig, axes = figure(f"Roofline, {threads} thread{'s' if threads > 1 else ''}. {title}",
                       9 + max(map(len, listed)) * CHARACTER * 7 / 72, max(6.5, 1 + 0.125 * len(listed)))
    for slope in slopes.values():
        axes.plot([left, top / slope], [left * slope, top], color=GREY, linewidth=1)
    for name, roof in roofs.items():
        axes.plot([roof / max(slopes.values()), right], [roof, roof], color=TYPES[name], linewidth=1)
    for row in rows:
        axes.plot(row["x"], row["y"], MARKERS[layers.index(row["layer"])], color=TYPES[row["type"]], markersize=6,
                  markeredgecolor="white", markeredgewidth=0.5, zorder=3)
    bottom = min(min(row["y"] for row in rows) / 2, left * min(slopes.values()))
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top * 1.6), xlabel="FLOPs per byte",
             ylabel="GFLOP/s")
    for axis in axes.xaxis, axes.yaxis:
        axis.set_major_formatter(lambda x, _: f"{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(which="major", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.annotate(columns("\n".join(listed)), (1, 1), xycoords="axes fraction", xytext=(12, 0), textcoords="offset points",
                  va="top", fontsize=7)
    axes.legend([axes.plot([], [], marker, color=GREY, markersize=6, linestyle="")[0]
                 for marker in MARKERS[:len(layers)]], layers, loc="upper left", frameon=False)
    label_roofline(fig, axes, rows, slopes, roofs)
    save(fig, path)


def label_roofline(fig, axes, rows, slopes, roofs):
    """Slopes, roofs and points get their labels, each where it covers least of what is there already."""
    fig.draw_without_rendering()  # the layout is computed

    def points(x, y):
        return axes.transData.transform((x, y)) * 72 / fig.dpi

    (left, right), top = axes.get_xlim(), max(roofs.values())
    legend = axes.get_legend().get_window_extent().extents * 72 / fig.dpi
    places = Places()
    places.taken = [box(*points(row["x"], row["y"]), 7, 7) for row in rows] + [tuple(legend)]
    for name, roof in roofs.items():
        text = f"{name}, {roof:.4g} GFLOP/s"
        x, y = points(right, roof)
        width = len(text) * CHARACTER * 8 + 12
        shift = places.take(((-back * width, up), [box(x - back * width - width / 2, y + up + 4, width, 8)])
                            for back in (0, 1, 2) for up in (3, -11))
        axes.annotate(text, (right, roof), xytext=shift, textcoords="offset points", ha="right", color=TYPES[name])
    for source, slope in slopes.items():
        text = f"{source}, {slope:.3g} GB/s"
        (x0, y0), (x1, y1) = points(left, left * slope), points(top / slope, top)
        angle, width = math.atan2(y1 - y0, x1 - x0), len(text) * CHARACTER * 8
        candidates = []
        for part in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.02):
            x, y = x0 + part * (x1 - x0) - 3 * math.sin(angle), y0 + part * (y1 - y0) + 3 * math.cos(angle)
            # A turned text covers small boxes along its line.
            steps = [(i + 0.5) * width / len(text) for i in range(len(text))]
            candidates.append(((x, y), [box(x + step * math.cos(angle) - 4 * math.sin(angle),
                                            y + step * math.sin(angle) + 4 * math.cos(angle), 8, 8) for step in steps]))
        x, y = places.take(candidates)
        axes.annotate(text, (x, y), xycoords="figure points", rotation=math.degrees(angle), rotation_mode="anchor",
                      color=GREY)
    # Numbers keep clear of the lines, too.
    for roof in roofs.values():
        (x0, y), (x1, _) = points(roof / max(slopes.values()), roof), points(right, roof)
        places.taken.append((x0, y - 1, x1, y + 1))
    for slope in slopes.values():
        ends = points(left, left * slope), points(top / slope, top)
        places.taken += [box(*(ends[0] + part / 100 * (ends[1] - ends[0])), 2, 2) for part in range(101)]
    for i, row in enumerate(rows, 1):
        x, y = points(row["x"], row["y"])
        width = len(str(i)) * CHARACTER * 7 + 1
        around = [(r * math.cos(a), r * math.sin(a)) for r in (8, 14, 20, 26)
                  for a in (math.radians(turn) for turn in (0, 45, -45, 180, 135, -135, 90, -90))]
        dx, dy = places.take(((dx, dy), [box(x + dx, y + dy, width, 7)]) for dx, dy in around)
        line = {"arrowstyle": "-", "color": TYPES[row["type"]], "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(str(i), (row["x"], row["y"]), xytext=(dx, dy), textcoords="offset points", ha="center",
                      va="center", color=TYPES[row["type"]], fontsize=7, bbox={"alpha": 0, "pad": 0},
                      arrowprops=line if math.hypot(dx, dy) > 12 else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("table", type=pathlib.Path, help="bench.csv, roofline.csv or peers.csv")
    parser.add_argument("plot", type=pathlib.Path, help="the file to draw: .svg or .png")
    parser.add_argument("--title", default="", metavar="TEXT", help="the machine and the date, which no table has")
    options = parser.parse_args()
    missing = available()
    if missing or not options.table.exists():
        sys.exit(missing or f"There is no file {options.table}.")
    draw(options.table, options.plot, options.title)


if __name__ == "__main__":
    main()
