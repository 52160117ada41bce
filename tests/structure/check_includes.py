#!/usr/bin/env python3
"""Checks what the library's headers include and mention.

A header may include its own folder and the folders before it in ORDER. Other libraries stand behind one
header or folder each, and a few costly standard headers stand nowhere. Usage: check_includes.py [include folder]
"""
import pathlib
import re
import sys

ORDER = ["core", "kernels", "layers", "stack", "model", "io", "runtime", "train", "interop"]

# Within kernels, in this order: operations, reference, simd and its stand-in, launchers of the processor.
KERNELS = [r"(?!cpu\.hpp|compiled\.hpp)[^/]+$", "reference/", r"simd/|compiled", r"cpu/|cpu\.hpp$"]

# Who may include what is not part of the C++ standard library.
OTHERS = {
    r"xsimd/|immintrin\.h": "kernels/simd/",
    r"Eigen/|unsupported/Eigen/": "interop/eigen.hpp",
    r"omp\.h|sched\.h": "core/parallel.hpp",
    r"nlohmann/": "io/",
    r"sentencepiece_processor\.h": "io/sentencepiece.hpp",
    r"sys/mman\.h": ("core/arena.hpp", "io/"),
    r"sys/sysinfo\.h": "core/arena.hpp",
    r"unistd\.h": ("core/parallel.hpp", "io/"),
    r"dirent\.h|fcntl\.h|locale\.h|sys/(file|stat)\.h": "io/",
}

# Each costs every program that includes samba a quarter of a second or more, or static constructors.
COSTLY = {"iostream", "regex", "filesystem", "sstream", "fstream", "format", "random", "functional"}

# Words that only some files may hold.
WORDS = [
    (r"\b_OPENMP\b|\bomp_\w+|#\s*pragma\s+omp\b", r"core/(parallel|config)\.hpp",
     "only core/parallel.hpp knows OpenMP"),
    (r"(?i)\bxsimd\b|\bopenmp\b|\bomp\b|\bcuda\b", r"(?!layers/)", "a layer never mentions xsimd, OpenMP or CUDA"),
]


def problems_in(path, text):
    """The broken rules of one header; path is relative to include/samba."""
    folder = path.split("/")[0] if "/" in path else None
    if folder is None and path != "samba.hpp":
        yield "stands outside the folders " + " ".join(ORDER)
    elif folder is not None and folder not in ORDER:
        yield f"stands in {folder}, which is not one of " + " ".join(ORDER)
    if not re.search(r"^#pragma once$", text, re.M):
        yield "has no #pragma once"
    if re.search(r"^namespace samba\b", text, re.M) and not re.search(r"inline (namespace )?SAMBA_TARGET\b", text):
        yield "does not put its content in the inline namespace SAMBA_TARGET"
    for number, line in enumerate(text.splitlines(), 1):
        include = re.match(r"\s*#\s*include\s*([<\"])([^>\"]+)", line)
        if include:
            for problem in problems_of_include(path, folder, *include.groups()):
                yield f"line {number}: {problem}"
        for words, allowed, rule in WORDS:
            if re.search(words, line) and not re.match(allowed, path):
                yield f"line {number}: {rule}: {line.strip()}"


def rank_in_kernels(path):
    return next(rank for rank, pattern in enumerate(KERNELS) if re.match(pattern, path))


def problems_of_include(path, folder, mark, included):
    if mark != "<":
        yield f'"{included}": write <samba/...>'
    elif included.startswith("samba/"):
        target = included.split("/")[1]
        if folder in ORDER and (target not in ORDER or ORDER.index(target) > ORDER.index(folder)):
            yield f"{folder} must not include <{included}>: the order is " + " < ".join(ORDER)
        elif target == "kernels":
            rank = rank_in_kernels(included.removeprefix("samba/kernels/"))
            if folder == "kernels" and rank > rank_in_kernels(path.removeprefix("kernels/")):
                yield f"kernels: operations < reference < simd < cpu: must not include <{included}>"
            elif folder in ("layers", "stack", "model") and rank > 0:
                yield f"{folder} includes operations only, which run on any device: must not include <{included}>"
        elif path == "samba.hpp" and target == "interop":
            yield f"samba.hpp must not include <{included}>, which needs another library"
    elif included in COSTLY:
        yield f"<{included}> is too costly for a library header"
    elif "/" in included or "." in included:
        owner = next((owner for pattern, owner in OTHERS.items() if re.match(pattern, included)), None)
        if owner is None:
            yield f"<{included}> is neither of samba nor of the standard library"
        elif not path.startswith(owner):
            owners = owner if isinstance(owner, str) else " and ".join(owner)
            yield f"only {owners} may include <{included}>"


def check(include):
    """All broken rules below an include folder, and the number of headers read."""
    headers = sorted((include / "samba").rglob("*.hpp"))
    found = []
    for header in headers:
        path = header.relative_to(include / "samba").as_posix()
        found += [f"samba/{path}: {problem}" for problem in problems_in(path, header.read_text())]
    return found, len(headers)


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2] / "include"
    broken, count = check(root)
    print("\n".join(broken + [f"{count} headers, {len(broken)} broken rules"]))
    sys.exit(1 if broken or count == 0 else 0)
