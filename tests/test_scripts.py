#!/usr/bin/env python3
"""The scripts have help of their own, and scripts/bench builds no more than its filter needs."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import plots  # noqa: E402
import run as bench  # noqa: E402

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK))


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


class Bench(unittest.TestCase):
    def test_programs_of_a_filter(self):
        names = ["attention", "ceilings", "layer", "matmul", "training"]
        for pattern, expected in [("matmul/simd", ["matmul"]), ("^matmul_backward/(simd|raw_loop)/demo", ["matmul"]),
                                  ("training", ["training"]), ("demo", names), ("matmul/simd|layer/", names),
                                  ("mat", names)]:
            self.assertEqual(bench.programs_for(pattern, names), expected, pattern)

    def test_symbols_of_the_roofline_differ(self):
        self.assertEqual(len(set(plots.MARKERS)), len(plots.MARKERS))

    def test_without_matplotlib_there_is_a_sentence(self):
        with unittest.mock.patch.dict(sys.modules, {"matplotlib": None}), tempfile.TemporaryDirectory() as folder:
            self.assertIn("python3-matplotlib", plots.available())
            bench.draw(pathlib.Path(folder) / "bench.svg", [], "a machine")
            self.assertEqual(os.listdir(folder), [])

    @unittest.skipUnless(plots.available() is None, "there is no matplotlib here")
    def test_plots(self):
        row = bench.Row("layer", "mamba_bf16", "demo/64", 2, [1e-3], 1e6, 1e8, 1e6, [1e11], [4e10])
        row.source, row.dot_rate, row.source_rate, row.over_floor = "memory", 1e11, 4e10, 1.3
        with tempfile.TemporaryDirectory() as folder:
            for roofline in False, True:
                path = pathlib.Path(folder) / f"{roofline}.svg"
                bench.draw(path, [row], "a machine", roofline)
                self.assertIn("mamba", path.read_text())


if __name__ == "__main__":
    unittest.main()
