#!/usr/bin/env python3
"""Compiles every C++ block of the README and the documentation, and links those that are programs.

Usage: check_snippets.py COMPILER. Shell blocks are listed, not run.
"""
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
from compilation import BASE_FLAGS, in_parallel, precompile, report, run
from extract_snippets import all_snippets

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused"]  # an excerpt may name what it does not use


def main(compiler):
    snippets = all_snippets()
    for snippet in snippets:
        if snippet.language == "sh":
            print(f"not run: {snippet.name}: {snippet.code.strip()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for snippet in snippets:
            if snippet.header:
                (folder / snippet.header).write_text(snippet.code)
        excerpts = [snippet for snippet in snippets if snippet.language == "cpp" and not snippet.is_program]
        precompiled = precompile(compiler, "samba/samba.hpp", folder) if excerpts else []

        def check(snippet):
            source = folder / (snippet.name.replace("/", "_") + ".cpp")
            source.write_text(snippet.source())
            if snippet.is_program:
                command = [compiler, *BASE_FLAGS, *WARNINGS, source, "-o", source.with_suffix("")]
            else:
                command = [compiler, *precompiled, *BASE_FLAGS, *WARNINGS, "-fsyntax-only", source]
            code, output = run(command)
            return snippet.name, output or "does not compile" if code else None

        return report("snippets", in_parallel(check, [s for s in snippets if s.language == "cpp"]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
