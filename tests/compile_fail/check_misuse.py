#!/usr/bin/env python3
"""Compiles the cases of tests/compile_fail, which must fail with a sentence, or of tests/compile_pass.

Usage: check_misuse.py fail|pass COMPILER FOLDER

A case is one .cpp file. With `fail` it holds a line `// expect: <text>` for each text that the compiler
must print, and its compilation must fail. With `pass` it must compile without a warning.
"""
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
from compilation import BASE_FLAGS, WARNINGS, in_parallel, precompile, report, run, shortened

UMBRELLA = "#include <samba/samba.hpp>"


def plain(text):
    """Text without line breaks, repeated blanks and the quotes in which the two compilers differ."""
    return " ".join(re.sub("[‘’`]", "'", text).split())


def problem_of_failing(compiler, flags, case):
    expected = re.findall(r"^// expect: (.+)$", case.read_text(), re.M)
    if not expected:
        return "has no line `// expect: <text>`"
    code, output = run([compiler, *flags, "-fsyntax-only", case])
    if code == 0:
        return "compiles, and must not"
    missing = [text for text in expected if plain(text) not in plain(output)]
    if missing:
        return "\n".join([f"expected: {text}" for text in missing] + ["found:", shortened(output, 40)])
    return None


def problem_of_passing(compiler, flags, case):
    code, output = run([compiler, *flags, *WARNINGS, "-fsyntax-only", case])
    return output or "does not compile" if code else None


def main(kind, compiler, folder):
    problem_of = {"fail": problem_of_failing, "pass": problem_of_passing}[kind]
    cases = sorted(pathlib.Path(folder).glob("*.cpp"))
    # A case that begins with the whole library is compiled with that header precompiled.
    whole = {case: case.read_text().lstrip().startswith(UMBRELLA) for case in cases}
    with tempfile.TemporaryDirectory() as temporary:
        precompiled = []
        if any(whole.values()):
            precompiled = precompile(compiler, "samba/samba.hpp", pathlib.Path(temporary))

        def check(case):
            flags = [*(precompiled if whole[case] else []), *BASE_FLAGS]
            return case.name, problem_of(compiler, flags, case)

        return report("cases", in_parallel(check, cases))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
