#!/usr/bin/env python3
"""The check of the misuse cases must itself fail where it should. Usage: test_check_misuse.py COMPILER"""
import contextlib
import io
import pathlib
import sys
import tempfile
import unittest

import check_misuse

COMPILER = sys.argv.pop() if len(sys.argv) > 1 else "g++"


class CheckMisuse(unittest.TestCase):
    def check(self, kind, **cases):
        """Exit code and output of the check on a folder with these cases."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in cases.items():
                (pathlib.Path(folder) / f"{name}.cpp").write_text(text)
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                code = check_misuse.main(kind, COMPILER, folder)
            return code, output.getvalue()

    def test_expected_message(self):
        code, output = self.check("fail", a='// expect: two is not three\nstatic_assert(2 == 3, "two is not three");\n')
        self.assertEqual(code, 0, output)

    def test_case_that_compiles(self):
        code, output = self.check("fail", a="// expect: anything\nstatic_assert(true);\n")
        self.assertEqual(code, 1)
        self.assertIn("compiles, and must not", output)

    def test_other_message(self):
        code, output = self.check("fail", a='// expect: two is not three\nstatic_assert(false, "no");\n')
        self.assertEqual(code, 1)
        self.assertIn("expected: two is not three", output)

    def test_one_of_two_messages(self):
        code, output = self.check("fail", a='// expect: no\n// expect: two is not three\nstatic_assert(false, "no");\n')
        self.assertEqual(code, 1)
        self.assertIn("expected: two is not three", output)

    def test_no_expectation(self):
        code, output = self.check("fail", a='static_assert(false, "no");\n')
        self.assertEqual(code, 1)
        self.assertIn("has no line", output)

    def test_expectation_in_the_quoted_source_only(self):
        # `expect` lines are never part of what the compiler prints.
        code, _ = self.check("fail", a="// expect: wanted sentence\nint x = wanted;\n")
        self.assertEqual(code, 1)

    def test_one_bad_case_among_good(self):
        good = '// expect: no\nstatic_assert(false, "no");\n'
        code, output = self.check("fail", a=good, b="// expect: no\n", c=good)
        self.assertEqual(code, 1)
        self.assertIn("2 of 3 cases pass", output)

    def test_empty_folder(self):
        self.assertEqual(self.check("fail")[0], 1)
        self.assertEqual(self.check("pass")[0], 1)

    def test_passing(self):
        self.assertEqual(self.check("pass", a="static_assert(true);\n")[0], 0)
        self.assertEqual(self.check("pass", a="static_assert(false);\n")[0], 1)
        self.assertEqual(self.check("pass", a="int f(int unused) { return 0; }\n")[0], 1)


if __name__ == "__main__":
    unittest.main()
