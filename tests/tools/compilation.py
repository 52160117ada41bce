"""Runs compilers for the checks that are scripts."""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = ROOT / "include"
EIGEN = os.environ.get("SAMBA_EIGEN_INCLUDE", "/usr/include/eigen3")  # where the build has found it
BASE_FLAGS = ["-std=c++20", "-fopenmp", f"-I{INCLUDE}", f"-isystem{EIGEN}"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]


def run(command, **options):
    """Runs a command without input; returns its exit code and what it wrote, errors included."""
    result = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            errors="replace", **options)
    return result.returncode, result.stdout


def in_parallel(function, items):
    """[function(item) for item in items], on all processors."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


def shortened(text, lines=20):
    """The errors of a compiler's output and its first lines."""
    text = text.rstrip().splitlines()
    errors = [line for line in text[lines:] if "error:" in line]
    return "\n".join(line[:300] for line in text[:lines] + errors[:lines])


def report(kind, results):
    """Prints one line per checked item and the text of those that failed; returns the exit code.

    results is a list of (name, problem), problem being None where all is well. Nothing to check is a
    failure: it would look like success.
    """
    for name, problem in results:
        print(f"{'ok    ' if problem is None else 'FAILED'} {name}")
    failed = [(name, problem) for name, problem in results if problem is not None]
    for name, problem in failed:
        print(f"\n{name}:\n{shortened(problem)}")
    if not results:
        print(f"no {kind} found")
    print(f"\n{len(results) - len(failed)} of {len(results)} {kind} pass")
    sys.stdout.flush()
    return 0 if results and not failed else 1


def precompile(compiler, header, folder):
    """Precompiles a samba header into folder; returns the flags that make `#include <header>` use it."""
    source = INCLUDE / header
    if "clang" in pathlib.Path(compiler).name:
        output = folder / (header.replace("/", "_") + ".pch")
        flags = ["-include-pch", output]
    else:
        # g++ looks for header.gch in each include folder before the header itself.
        output = folder / (header + ".gch")
        flags = [f"-I{folder}"]
    output.parent.mkdir(parents=True, exist_ok=True)
    if flags[0].startswith("-I"):  # for a second include of it: g++ takes the precompiled one for the first only
        (folder / header).write_text(f'#include "{source}"\n')
    code, text = run([compiler, *BASE_FLAGS, "-x", "c++-header", source, "-o", output])
    if code:
        raise SystemExit(f"{header} does not compile with {compiler}:\n{shortened(text)}")
    return flags
