#!/usr/bin/env python3
"""Compares samba with llama.cpp on a published model and this machine's processors, type by type.

Both have the same weights: those of the published file, written in BF16, Q8_0 and Q4_0, which samba reads as bf16, int8
and q4. In turns each is a new process that loads, reads 512 tokens of a text, and decodes 64 of its tokens one by one
after the first 16; a warm-up of each is not counted. Loading goes from opening the file, which is in the page cache, to
the logits of a first token, tokenizer included; memory is the peak of what is resident, less what was so before.
Keys and values have 16 bits. Prints a table of medians, and writes a .csv file with every turn.
scripts/peers --published builds the program and calls this."""
import argparse
import csv
import datetime
import json
import os
import pathlib
import re
import statistics
import sys
from dataclasses import dataclass, field

from common import environment_for, output_of, progress, python_with

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TEXT = ROOT / "examples" / "demo_model" / "heldout.txt"
MODELS = {"smollm2": "SmolLM2-135M-Instruct", "gemma3": "Gemma 3 270M"}
TYPES = {"bf16": "bf16", "int8": "q8_0", "q4": "q4_0"}  # of samba, and of the file
PROMPT, SHORT_PROMPT, DECODED = 512, 16, 64  # tokens, as in benchmarks/published.cpp


def rate(tokens, times):
    return tokens / statistics.median(times)


# What is compared: the name, a side's number from what its program printed, and whether more is better.
QUANTITIES = [
    ("prefill, tokens/s", lambda side: rate(PROMPT, side["prefill_seconds"]), True),
    ("decode, tokens/s", lambda side: rate(DECODED, side["decode_seconds"]), True),
    ("load, s", lambda side: side["load_seconds"], False),
    ("memory, MB", lambda side: side["peak_bytes"] / 1e6, False),
]
DECODE = 1  # the row that bandwidth limits


@dataclass
class Row:
    """One type and quantity; a number of each turn, in lists."""
    type: str
    name: str
    more_is_better: bool
    samba: list = field(default_factory=list)
    other: list = field(default_factory=list)
    bandwidth: list = field(default_factory=list)  # bytes/s
    of_bandwidth: list = field(default_factory=list)  # of decoding: pairs of parts that the weights' bytes need

    @property
    def ratios(self):
        """How many times samba is as good, in each turn."""
        return [samba / other if self.more_is_better else other / samba for samba, other in zip(self.samba, self.other)]


class Runner:
    def __init__(self, options, python, environment):
        self.options, self.python, self.environment = options, python, environment
        self.repetitions = ["--repetitions", "1" if options.quick else "3", "--threads", str(options.threads)]

    def samba(self, type, file):
        return json.loads(output_of([str(self.options.program), str(file), type, str(TEXT), *self.repetitions],
                                    self.environment))

    def llama(self, file, ids):
        prompt = ["--ids", ",".join(map(str, ids)), "--short-prompt", str(SHORT_PROMPT), "--decode", str(DECODED)]
        command = [str(self.python), str(HERE / "llama_rows.py"), str(file), *self.repetitions, *prompt]
        return json.loads(output_of(command, self.environment))


def files_of(model, folder, python):
    """The model's file in every type, by samba's name of it; what is there already is taken."""
    files = {}
    for type, kind in TYPES.items():
        files[type] = folder / f"{model}-{kind}.gguf"
        if not files[type].exists():
            progress(f"Writing {files[type]}")
            source = output_of([str(ROOT / "scripts" / "fetch_model"), model, str(folder)]).strip()
            output_of([str(python), str(HERE / "requantise.py"), source, kind, str(files[type])])
    return files


def compare(runner, type, file, turns):
    """The rows of a type, in how many steps both found the same token most likely, and what both are built for."""
    rows = [Row(type, name, more) for name, _, more in QUANTITIES]
    with open(file, "rb") as whole:  # into the page cache
        while whole.read(1 << 24):
            pass
    for turn in range(turns):
        progress(f"{type}, turn {turn + 1} of {turns}")
        samba = runner.samba(type, file)
        other = runner.llama(file, samba["ids"])
        for row, (_, number, _) in zip(rows, QUANTITIES):
            row.samba.append(number(samba))
            row.other.append(number(other))
            row.bandwidth.append(samba["read_bytes_per_s"])
        rows[DECODE].of_bandwidth.append([rows[DECODE].samba[-1] * samba["weight_bytes"] / samba["read_bytes_per_s"],
                                          rows[DECODE].other[-1] * other["weight_bytes"] / samba["read_bytes_per_s"]])
    equal = sum(a == b for a, b in zip(samba["likely"], other["likely"]))
    if equal < DECODED // 2:
        sys.exit(f"{file.name}: expected the same most likely token in most of {DECODED} steps, found it in {equal}: "
                 "the two do not compute the same.")
    return rows, equal, (samba["target"], " ".join(re.findall(r"(\w+) = 1", other["target"])))


def number(x):
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def table(rows):
    lines = [f"{'type':4}  {'':17} {'samba':>7} {'llama.cpp':>9}  {'ratio':>5}   {'of the bandwidth':16}  "
             "ratio in each turn"]
    for i, row in enumerate(rows):
        of = [f"{100 * statistics.median(parts):.0f} %" for parts in zip(*row.of_bandwidth)]
        type = row.type if i == 0 or rows[i - 1].type != row.type else ""
        samba, other, ratio = (statistics.median(turns) for turns in (row.samba, row.other, row.ratios))
        lines.append(f"{type:4}  {row.name:17} {number(samba):>7} {number(other):>9}  {ratio:5.2f}   "
                     f"{', '.join(of):16}  " + " ".join(f"{ratio:.2f}" for ratio in row.ratios))
    return lines


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["type", "file", "what", "turn", "samba", "llama_cpp", "ratio", "ceiling_gb_per_s",
                      "samba_of_bandwidth", "llama_cpp_of_bandwidth"])
        for row in rows:
            parts = row.of_bandwidth or [["", ""]] * len(row.samba)
            for turn, (samba, other, ratio, read, of) in enumerate(zip(row.samba, row.other, row.ratios, row.bandwidth,
                                                                       parts)):
                out.writerow([row.type, TYPES[row.type].upper(), row.name, turn + 1, f"{samba:.6g}", f"{other:.6g}",
                              f"{ratio:.4f}", f"{read / 1e9:.6g}", *(f"{part:.4f}" if part else "" for part in of)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--published", choices=MODELS, required=True, help="the model")
    parser.add_argument("--program", type=pathlib.Path, required=True, help="benchmarks/published of a build")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for the models")
    parser.add_argument("--table", type=pathlib.Path, required=True, help="the .csv file to write")
    parser.add_argument("--environment", type=pathlib.Path,
                        help="folder of the Python environment with llama.cpp, made if there is none "
                             "(default: llama-env in the output's folder)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all processors")
    parser.add_argument("--quick", action="store_true", help="three turns instead of five, and fewer repetitions")
    parser.add_argument("--filter", default=".", metavar="REGEX", help="types whose name matches")
    options = parser.parse_args()
    if not 1 <= options.threads <= os.cpu_count():
        parser.error(f"--threads: expected 1 to {os.cpu_count()}, found {options.threads}")
    types = [type for type in TYPES if re.search(options.filter, type)]
    if not types:
        parser.error(f"--filter: expected a part of {', '.join(TYPES)}, found {options.filter}")
    if not options.program.exists():
        sys.exit(f"{options.program} does not exist.")

    models = options.output / "models"
    models.mkdir(parents=True, exist_ok=True)
    python = python_with(["xllamacpp", "gguf", "numpy"], options.environment or options.output / "llama-env")
    files = files_of(options.published, models, python)
    runner = Runner(options, python, environment_for(options.threads))
    rows, equal, targets = [], [], ()
    for type in types:
        of_type, same, targets = compare(runner, type, files[type], 3 if options.quick else 5)
        rows += of_type
        equal.append(f"{type} {same}")

    show_version = "from importlib.metadata import version; print(version('xllamacpp'))"
    version = output_of([str(python), "-c", show_version]).strip()
    bandwidth = [read / 1e9 for row in rows for read in row.bandwidth]
    print(f"{MODELS[options.published]}, {options.threads} of {os.cpu_count()} processors, {datetime.date.today()}\n"
          f"samba: {targets[0]}; llama.cpp of xllamacpp {version}: {targets[1]}\n"
          f"files: {', '.join(TYPES[type].upper() for type in types)}; prompt {PROMPT} tokens, {DECODED} decoded after "
          f"{SHORT_PROMPT}; reading from memory {min(bandwidth):.0f} to {max(bandwidth):.0f} GB/s\n")
    print("\n".join(table(rows)))
    print(f"\nThe same token is most likely for both, in {DECODED} steps: {', '.join(equal)}.")
    write_csv(options.table, rows)
    print(f"Wrote {options.table}")


if __name__ == "__main__":
    main()
