#!/usr/bin/env python3
"""The scripts have help of their own, and scripts/bench builds no more than its filter needs."""
import os
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
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
        drawn = {bench.marker(0, 0, shape, "black") for shape in range(len(bench.SHAPES))}
        self.assertEqual(len(drawn), len(bench.SHAPES))


if __name__ == "__main__":
    unittest.main()
