#!/usr/bin/env python3
"""Compiles other_flags.cpp as other people's flags and macros do, runs it where that matters, and expects one
sentence of what cannot be.

Usage: other_flags.py GXX CLANGXX
"""
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
from compilation import INCLUDE, in_parallel, report, run

SOURCE = pathlib.Path(__file__).with_name("other_flags.cpp")
WARNINGS = ["-Wall", "-Wextra", "-Werror"]

# Flags, and what they are for. -O0 -c: that code is made of it, not only read.
COMPILE = {
    "macros": "-DTEST_MACROS -fsyntax-only",
    "AVX-512F alone": "-mavx512f -O0 -c",
    "a newer standard": "-std=gnu++2b -fno-rtti -funsigned-char -fno-operator-names -pedantic-errors -fsyntax-only",
}
COMPILE_CLANG = {"libc++": "-stdlib=libc++ -O0 -c"}
RUN = {"checked containers, undefined behaviour": "-D_GLIBCXX_DEBUG -O0 -fsanitize=undefined -fno-sanitize-recover=all"}
FAIL = {
    "-std=c++17": "samba needs C++20: compile with -std=c++20",
    "-fno-exceptions": "samba reports errors by exceptions: compile without -fno-exceptions",
}


def main(gxx, clangxx):
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "program"

        def compiles(compiler, flags):
            return run([compiler, "-std=c++20", *WARNINGS, f"-I{INCLUDE}", *flags.split(), SOURCE], cwd=folder)

        def check(case):
            compiler, name, kind = case
            if kind == "fail":
                code, output = compiles(compiler, f"{name} -fsyntax-only")
                errors = [line for line in output.splitlines() if " error: " in line and "fatal" not in line]
                good = code and len(errors) == 1 and FAIL[name] in errors[0]
            elif kind == "run":
                code, output = compiles(compiler, f"{RUN[name]} -o {program}")
                if code == 0:
                    code, output = run([program])
                good = code == 0
            else:
                code, output = compiles(compiler, kind)
                good = code == 0
            return f"{pathlib.Path(compiler).name}: {name}", None if good else output or "compiles, and must not"

        cases = [(compiler, name, kind) for compiler in (gxx, clangxx)
                 for name, kind in [*COMPILE.items(), *((name, "fail") for name in FAIL)]]
        cases += [(clangxx, *case) for case in COMPILE_CLANG.items()] + [(gxx, name, "run") for name in RUN]
        return report("flags", in_parallel(check, cases))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
