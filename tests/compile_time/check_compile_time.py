#!/usr/bin/env python3
"""Measures what a program pays the compiler for samba, and fails where it exceeds the budget.

Usage: check_compile_time.py COMPILER

Four fixed models, a session of each in one file at -O2, are compared with a file that only includes xsimd and the
standard headers that samba includes: at most BUDGET times its processor time, and MEMORY. Ten times the depth by
Repeat may cost at most DEPTH times the time. Times are user + system, the best of RUNS; a ratio that is within its
limit is not measured again.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
from compilation import BASE_FLAGS, INCLUDE

BUDGET = 6.0  # times the baseline
MEMORY = 600.0  # MB
DEPTH = 1.25  # times the shallow stack
RUNS = 7

SESSION = """#include <samba/samba.hpp>
using namespace samba;
{model}
float run(const char* path, std::span<const std::int32_t> prompt) {{
  const auto weights = load<Model>(path);
  Session session(weights);
  session.prefill(prompt);
  return session.step(1)[0];
}}
"""
TINY = "template <class Stack> using Tiny = LanguageModel<Stack, ModelOptions{.vocab_size = 256}>;\n"
BLOCK = "HybridStack<Mamba<256>, SwiGLU<256, 768>, SWA<512>, SwiGLU<256, 768>>"

MODELS = {
    "Samba421M": "using Model = presets::Samba421M;",
    "MambaSwaMlp400M": "using Model = presets::MambaSwaMlp400M;",
    "Llama438M": "using Model = presets::Llama438M;",
    "two nested stacks": TINY + f"using Model = Tiny<HybridStack<Repeat<3, {BLOCK}>, Mamba<256>, "
                                "Repeat<2, HybridStack<Attention<>, SwiGLU<256>>>>>;",
}


def repeat(n):
    return TINY + f"using Model = Tiny<Repeat<{n}, {BLOCK}>>;"


def pack(n):
    return TINY + f"using Model = Tiny<HybridStack<{', '.join(['Mamba<256>', 'SwiGLU<256, 768>'] * (n // 2))}>>;"


# (shallow, deep, limit of the ratio); a pack has no limit, because every element is a type of its own.
DEPTHS = {
    "Repeat<60> to Repeat<6>": (repeat(6), repeat(60), DEPTH),
    "HybridStack of 384 to one of 38": (pack(38), pack(384), None),
}


def outside_headers():
    """Headers that are not samba's, of all that samba.hpp includes."""
    seen, outside, waiting = set(), set(), ["samba/samba.hpp"]
    while waiting:
        header = waiting.pop()
        if header in seen:
            continue
        seen.add(header)
        for included in re.findall(r"^\s*#\s*include\s*<([^>]+)>", (INCLUDE / header).read_text(), re.M):
            (waiting.append if included.startswith("samba/") else outside.add)(included)
    return sorted(outside)


def compile_once(compiler, folder, text):
    """(seconds of processor time, MB at the peak) of one compilation."""
    source = folder / "program.cpp"
    source.write_text(text)
    command = [compiler, *BASE_FLAGS, "-O2", "-c", source, "-o", folder / "program.o"]
    environment = dict(os.environ, CCACHE_DISABLE="1")
    process = subprocess.Popen([str(part) for part in command], env=environment, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"does not compile:\n{text}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare(compiler, folder, base, text, limit):
    """(seconds, MB, ratio of the seconds to those of base): the best of RUNS of both, in turns, because the speed of
    a shared machine drifts; fewer where the ratio is within its limit before."""
    bases, costs = [], []
    for _ in range(RUNS if limit else 1):
        bases.append(compile_once(compiler, folder, base))
        costs.append(compile_once(compiler, folder, text))
        seconds = min(cost[0] for cost in costs)
        ratio = seconds / min(cost[0] for cost in bases)
        if limit and ratio <= limit:
            break
    return seconds, max(cost[1] for cost in costs), ratio


def main(compiler):
    failures = []

    def row(name, cost, limit=None):
        seconds, megabytes, ratio = cost
        text = f"{name:32} {seconds:7.2f} s {megabytes:7.0f} MB  {ratio:5.2f} times"
        if limit:
            text += f" (at most {limit:g})"
            if ratio > limit or megabytes > MEMORY:
                text += "  FAILED"
                failures.append(name)
        print(text, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        headers = outside_headers()
        print(f"The baseline includes {' '.join(headers)}.")
        baseline = "".join(f"#include <{header}>\n" for header in headers)
        compile_once(compiler, folder, baseline)  # reads the headers from the disk
        row("samba.hpp, nothing used", compare(compiler, folder, baseline, "#include <samba/samba.hpp>\n", None))
        for name, model in MODELS.items():
            row(name, compare(compiler, folder, baseline, SESSION.format(model=model), BUDGET), BUDGET)
        for name, (shallow, deep, limit) in DEPTHS.items():
            cost = compare(compiler, folder, SESSION.format(model=shallow), SESSION.format(model=deep), limit)
            row(name, cost, limit)
    print(f"Peak memory may be at most {MEMORY:g} MB.")
    if failures:
        print("FAILED: " + ", ".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
