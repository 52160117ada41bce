#!/usr/bin/env python3
"""Prints the table of benchmarks/headline.cpp as Markdown, and draws it: seconds per token over the length of the text,
and tokens per second over the length of the prompt. scripts/headline calls this.
By hand: benchmarks/headline.py headline.csv headline.svg --title "a machine"."""
import argparse
import csv
import sys

import plots

COLORS = {"Samba": "#1f5fa8", "Mistral": "#e08a2b", "Mamba": "#5a9a4a", "Llama-3": "#a8321f"}


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def series(rows, what):
    """{model: [(tokens, seconds)]}"""
    found = {}
    for row in rows:
        if row["what"] == what:
            found.setdefault(row["model"], []).append((int(row["tokens"]), float(row["seconds"])))
    return found


def table(rows):
    decode, prompt = series(rows, "decode"), series(rows, "prompt")
    contexts = sorted({n for points in decode.values() for n, _ in points})
    prompts = sorted({n for points in prompt.values() for n, _ in points})
    lines = ["| model | parameters | " + " | ".join(f"decode at {n}, ms" for n in contexts) + " | " +
             " | ".join(f"prompt of {n}, tokens/s" for n in prompts) + " | resident at the longest, GB |"]
    lines.append("|" + "---|" * (len(contexts) + len(prompts) + 3))
    for model in decode:
        times, reads = dict(decode[model]), dict(prompt[model])
        of_model = [row for row in rows if row["model"] == model]
        memory = max(float(row["resident_bytes"]) for row in of_model) / 1e9
        lines.append(f"| {model} | {int(of_model[0]['parameters']):,} | " +
                     " | ".join(f"{1000 * times[n]:.1f}" for n in contexts) + " | " +
                     " | ".join(f"{n / reads[n]:.1f}" for n in prompts) + f" | {memory:.1f} |")
    return "\n".join(lines)


def draw(rows, path, title):
    missing = plots.available()
    if missing:
        print(missing)
        return
    import matplotlib
    from matplotlib.figure import Figure
    plots.figure("", 1, 1)  # sets the style
    fig = Figure(figsize=(7, 6), layout="constrained")
    above, below = fig.subplots(2)
    fig.suptitle(title, x=0.02, ha="left", fontsize=10)
    for model, points in series(rows, "decode").items():
        above.plot([n for n, _ in points], [1 / s for _, s in points], "o-", label=model, color=COLORS.get(model))
    for model, points in series(rows, "prompt").items():
        below.plot([n for n, _ in points], [n / s for n, s in points], "o-", label=model, color=COLORS.get(model))
    for axes, label, unit in [(above, "length of the text, tokens", "decoded tokens/s"),
                              (below, "length of the prompt, tokens", "prompt tokens/s")]:
        axes.set_xscale("log", base=2)
        axes.set_xlabel(label)
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axes.legend(frameon=False)
    plots.save(fig, path)
    print(f"Drew {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("plot")
    parser.add_argument("--title", default="Samba and others")
    options = parser.parse_args()
    rows = read(options.table)
    if not rows:
        sys.exit(f"{options.table}: expected rows, found none")
    print(table(rows))
    draw(rows, options.plot, options.title)


if __name__ == "__main__":
    main()
