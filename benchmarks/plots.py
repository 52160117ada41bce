"""Plots of benchmark rows, by matplotlib. Where it is missing, `available()` says so and what to do."""
import statistics


def available():
    """None, or one sentence on why there are no plots."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "No plot: matplotlib is missing (apt-get install python3-matplotlib, or pip install matplotlib)."
    return None


def figure(width, height):
    """(pyplot, figure, axes) of a size in inches. Files depend on nothing but the rows."""
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "samba", "font.family": "monospace",
                                "font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    import matplotlib.pyplot as plot
    fig, axes = plot.subplots(figsize=(width, height), layout="constrained")
    return plot, fig, axes


def save(plot, fig, path):
    fig.savefig(path, metadata={"Date": None})
    plot.close(fig)


def number(x):
    return f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


def bars(path, rows, title, color, legend):
    """Horizontal bars of time over floor on a logarithmic axis, in groups by kernel and size. rows have kernel, variant,
    size, threads and over_floor; color(row) gives a bar's, legend the pairs of label and colour."""
    labels, places, values, colors, headings = [], [], [], [], []
    at, kernel, size = 0.0, None, None
    for row in rows:
        if row.kernel != kernel:
            kernel, size, at = row.kernel, None, at + 1.6
            headings.append((at - 0.9, kernel))
        if row.size != size:
            size, at = row.size, at + 0.35
            name = row.size + "  "
        else:
            name = ""
        variant = row.variant + (f" x{row.threads}" if row.threads > 1 else "")
        labels.append(name + variant)
        places.append(at)
        values.append(row.over_floor)
        colors.append(color(row))
        at += 1
    plot, fig, axes = figure(9, 1.4 + 0.145 * (at + 1))
    low = min(1.0, *values) / 1.15
    axes.barh(places, [v - low for v in values], left=low, color=colors, height=0.8)
    for place, value in zip(places, values):
        axes.text(value * 1.02, place, number(value), va="center")
    for place, heading in headings:
        axes.text(0, place, heading, weight="bold", va="center", transform=axes.get_yaxis_transform())
    axes.set_xscale("log")
    axes.set_xlim(low, max(2.0, *values) * 1.25)
    axes.set_ylim(at, -0.6)
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(plot.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_minor_locator(plot.NullLocator())
    axes.grid(axis="x", color="#dddddd")
    axes.axvline(1, color="#c03030")
    axes.set_axisbelow(True)
    axes.set_xlabel("time over floor")
    handles = [plot.Rectangle((0, 0), 1, 1, color=fill) for _, fill in legend]
    fig.legend(handles, [label for label, _ in legend], loc="outside upper left", ncols=len(legend), frameon=False)
    axes.set_title(title, loc="left")
    save(plot, fig, path)


MARKERS = "os^Dv*XPhp<>"  # one for each layer


def roofline(path, rows, title, types):
    """FLOP/s over FLOPs per byte, both logarithmic, at the largest number of threads. Roofs are the medians of the rows'
    ceilings, so that a row whose own were higher may lie above them; such rows are marked. Points are numbered, and
    listed beside the plot. types: colours by type of operands."""
    threads = max(row.threads for row in rows)
    rows = sorted((row for row in rows if row.threads == threads), key=lambda row: -row.rate)
    roofs = {t: statistics.median(row.dot_rate for row in rows if row.type == t)
             for t in types if any(row.type == t for row in rows)}
    slopes = {s: statistics.median(row.source_rate for row in rows if row.source == s)
              for s in sorted({row.source for row in rows})}
    layers = sorted({row.layer for row in rows}, key=[row.layer for row in rows].index)
    if len(layers) > len(MARKERS):
        raise SystemExit(f"the roofline has {len(MARKERS)} markers, one a layer, and found {len(layers)} layers: add some")
    plot, fig, axes = figure(12, max(7, 1.5 + 0.16 * len(rows)))
    left, right = min(row.intensity for row in rows) / 2, max(row.intensity for row in rows) * 3
    bottom = min(row.rate for row in rows) / 2.5 / 1e9
    top = max(roofs.values())
    for i, (source, slope) in enumerate(slopes.items()):
        axes.plot([left, top / slope], [left * slope / 1e9, top / 1e9], color="#555555", linewidth=1)
        along = left * (top / slope / left) ** ((i + 1) / (len(slopes) + 1))
        axes.annotate(f"{source}, {slope / 1e9:.3g} GB/s", (along, along * slope / 1e9), xytext=(-4, 6),
                      textcoords="offset points", ha="right", color="#555555")
    for name, roof in roofs.items():
        axes.plot([roof / max(slopes.values()), right], [roof / 1e9] * 2, color=types[name], linewidth=1)
        axes.annotate(f"{name}, {roof / 1e9:.4g} GFLOP/s", (right, roof / 1e9), xytext=(0, 3), textcoords="offset points",
                      ha="right", color=types[name])
    lines, any_above = [], False
    for i, row in enumerate(rows, 1):
        above = row.rate > 1.01 * min(roofs[row.type], row.intensity * slopes[row.source])
        any_above = any_above or above
        axes.plot(row.intensity, row.rate / 1e9, MARKERS[layers.index(row.layer)], color=types[row.type], markersize=6,
                  markeredgecolor="white", markeredgewidth=0.5)
        axes.annotate(str(i), (row.intensity, row.rate / 1e9), xytext=(5, -2), textcoords="offset points",
                      color=types[row.type], fontsize=7)
        lines.append(f"{i:3} {row.layer:10} {row.type:5} {row.size.split('/')[-1]:14} {1 / row.over_floor:4.0%}"
                     + "*" * above)
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top / 1e9 * 1.8), xlabel="FLOPs per byte",
             ylabel="GFLOP/s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.grid(which="major", color="#e4e4e4")
    axes.set_axisbelow(True)
    note = "\n\n* above its roof: roofs are medians,\n  or it runs in a cache, where writes\n  pass reads." if any_above else ""
    listed = ("percent of the ceiling\n" + "\n".join(lines) + note).replace(" ", "\N{NO-BREAK SPACE}")
    axes.text(1.02, 1, listed, transform=axes.transAxes, va="top", fontsize=7)
    handles = [axes.plot([], [], MARKERS[i], color="#555555", markersize=6)[0] for i in range(len(layers))]
    axes.legend(handles, layers, loc="lower right", frameon=False)
    axes.set_title(f"Roofline, {threads} thread{'s' if threads > 1 else ''}. {title}", loc="left")
    save(plot, fig, path)
