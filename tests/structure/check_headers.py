#!/usr/bin/env python3
"""Compiles every header of the library alone, included twice, with warnings as errors.

Usage: check_headers.py COMPILER [include folder]. A header whose optional library is missing is named and left out.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
from compilation import BASE_FLAGS, INCLUDE, WARNINGS, in_parallel, report, run

OPTIONAL = {"samba/interop/eigen.hpp": "Eigen/Core",
            "samba/io/sentencepiece.hpp": "sentencepiece_processor.h",
            "samba/io/config.hpp": "nlohmann/json.hpp",
            "samba/io/tokenizer_json.hpp": "nlohmann/json.hpp",
            "samba/io/load_tokenizer.hpp": "nlohmann/json.hpp"}


def compile_text(compiler, flags, text):
    code, output = run(["sh", "-c", 'printf %s "$0" | "$@"', text, compiler, *flags, *BASE_FLAGS,
                        "-fsyntax-only", "-x", "c++", "-"])
    return output or "failed" if code else None


def main(compiler, include=INCLUDE):
    def available(header):
        library = OPTIONAL.get(header)
        return library is None or compile_text(compiler, [], f"#include <{library}>\n") is None

    def check(header):
        text = f"#include <{header}>\n#include <{header}>\n"
        return header, compile_text(compiler, [*WARNINGS, f"-I{include}"], text)

    include = pathlib.Path(include)
    headers = sorted(path.relative_to(include).as_posix() for path in (include / "samba").rglob("*.hpp"))
    for header in [header for header in headers if not available(header)]:
        print(f"left out {header}: <{OPTIONAL[header]}> is not installed")
        headers.remove(header)
    return report("headers", in_parallel(check, headers))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
