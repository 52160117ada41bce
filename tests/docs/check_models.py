#!/usr/bin/env python3
"""The table in docs/models.md is what examples/14_models prints, and docs/plots/models.svg what it draws.

Usage: check_models.py PROGRAM. To write both anew: 14_models docs/plots/models.svg, and its table into the page.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def lines_missing(table, page):
    """The lines of a printed table that the page does not have, or a sentence if they are not together."""
    missing = [line for line in table.splitlines() if line not in page.splitlines()]
    if not missing and table not in page:
        missing = ["the rows are there, but not together in this order"]
    return missing


def same_drawing(one, other):
    """Equal but for the last digits of places, which depend on the compiler."""
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other))
    return NUMBER.sub("", one) == NUMBER.sub("", other) and all(abs(float(a) - float(b)) < 0.01 for a, b in pairs)


def main(program):
    with tempfile.TemporaryDirectory() as folder:
        svg = pathlib.Path(folder) / "models.svg"
        table = subprocess.run([program, svg], check=True, capture_output=True, text=True).stdout
        problems = [f"docs/models.md lacks: {line}"
                    for line in lines_missing(table, (ROOT / "docs/models.md").read_text())]
        if not same_drawing(svg.read_text(), (ROOT / "docs/plots/models.svg").read_text()):
            problems.append("docs/plots/models.svg is not what the program draws")
    print("\n".join(problems + [f"{len(table.splitlines())} lines and a plot, {len(problems)} differences"]))
    return 1 if problems or not table else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
