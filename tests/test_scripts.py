#!/usr/bin/env python3
"""The scripts have help of their own, scripts/bench builds no more than its filter needs, and tables are right."""
import contextlib
import csv
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.append(str(ROOT / "benchmarks" / "peers"))
import plots  # noqa: E402
import published  # noqa: E402
import run as bench  # noqa: E402

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK))


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Scripts(unittest.TestCase):
    def output(self, *command):
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def test_help(self):
        self.assertIn(ROOT / "scripts" / "train", SCRIPTS)
        for script in SCRIPTS:
            with self.subTest(script.name):
                done = self.output(script, "--help")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertIn("Example: scripts/" + script.name, done.stdout)

    def test_what_a_script_does_not_know(self):
        for script in SCRIPTS:
            with self.subTest(script.name):
                done = self.output(script, "--no-such-option")
                self.assertNotEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual(done.stdout, "")

    def test_train_names_a_missing_text(self):
        done = self.output(ROOT / "scripts" / "train", "no-such-text.txt")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no file no-such-text.txt", done.stderr)

    def test_peers_names_what_it_expects(self):
        for options, message in [(["--published", "llama"], "--published: expected smollm2 or gemma3, found 'llama'"),
                                 (["--published"], "--published: expected smollm2 or gemma3, found ''"),
                                 (["--published", "gemma3", "--threads"], "--threads: expected a value")]:
            done = self.output(ROOT / "scripts" / "peers", *options)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (2, "", f"scripts/peers: {message}\n"))


class Bench(unittest.TestCase):
    def test_programs_of_a_filter(self):
        names = ["attention", "ceilings", "layer", "matmul", "training"]
        for pattern, expected in [("matmul/simd", ["matmul"]), ("^matmul_backward/(simd|raw_loop)/demo", ["matmul"]),
                                  ("training", ["training"]), ("demo", names), ("matmul/simd|layer/", names),
                                  ("mat", names)]:
            self.assertEqual(bench.programs_for(pattern, names), expected, pattern)

    def test_without_matplotlib_there_is_a_sentence(self):
        with unittest.mock.patch.dict(sys.modules, {"matplotlib": None}), tempfile.TemporaryDirectory() as folder:
            for prefix, advice in ("/usr", "apt-get install python3-matplotlib"), ("/opt", "-m pip install matplotlib"):
                with unittest.mock.patch.object(sys, "prefix", prefix):
                    self.assertIn(advice, plots.available())
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                plots.draw("bench.csv", pathlib.Path(folder) / "bench.svg", "a machine")
            self.assertEqual(output.getvalue(), plots.available() + "\n")
            self.assertEqual(os.listdir(folder), [])

    def test_tables(self):
        row = bench.Row("layer", "mamba_bf16", "demo/64", 2, [1e-3], 1e6, 1e8, 1e6, [1e11], [4e10])
        row.source, row.dot_rate, row.source_rate, row.over_floor = "memory", 1e11, 4e10, 1.25
        ceilings = bench.Ceilings()
        ceilings.dot, ceilings.read = {2: {"f32": 1e11}}, {2: {32768.0: 4e10}}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "bench.csv"
            bench.write_csv(path, [row], ceilings)
            self.assertEqual([[line[name] for name in ("row", "threads", "time_over_floor")] for line in read(path)],
                             [["ceilings/f32", "2", ""], ["ceilings/read", "2", ""],
                              ["layer/mamba_bf16/demo/64", "2", "1.2500"]])
            bench.write_roofline_csv(path, [row])
            self.assertEqual([[line[name] for name in ("layer", "type", "flops_per_byte", "gflop_per_s", "of_ceiling",
                                                       "source", "ceiling_gb_per_s", "ceiling_gflop_per_s")]
                              for line in read(path)],
                             [["mamba", "bf16", "100", "100", "0.8000", "memory", "40", "100"]])


class Published(unittest.TestCase):
    def test_tables(self):
        decode = published.Row("q4", "decode, tokens/s", True, [50., 60., 40.], [20., 40., 25.], [4e10] * 3,
                               [[0.5, 0.2], [0.6, 0.4], [0.4, 0.25]])
        load = published.Row("q4", "load, s", False, [1., 2., 4.], [0.5, 1.5, 1.], [4e10] * 3)
        lines = published.table([decode, load])
        self.assertEqual([line.split() for line in lines[1:]],
                         ["q4 decode, tokens/s 50 25 1.60 50 %, 25 % 2.50 1.50 1.60".split(),
                          "load, s 2 1 0.50 0.50 0.75 0.25".split()])
        self.assertLess(max(map(len, lines)), 111)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "published.csv"
            published.write_csv(path, [decode, load])
            self.assertEqual([[line[name] for name in ("file", "what", "turn", "ratio", "samba_of_bandwidth")]
                              for line in read(path)][2:4],
                             [["Q4_0", "decode, tokens/s", "3", "1.6000", "0.4000"],
                              ["Q4_0", "load, s", "1", "0.5000", ""]])


if __name__ == "__main__":
    unittest.main()
