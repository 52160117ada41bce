#!/usr/bin/env python3
"""Compiles the library's headers, and programs that use it, as CUDA sources: host and device, without code.

Usage: check_headers_nvcc.py [NVCC [include folder]]; without NVCC nothing is checked: exit status 77

All headers of a folder are one file, each included after those before it; g++ and clang++ compile each alone. The
programs are README's first, one with a published size, and one that trains. A header whose optional library is missing
is named and left out.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
from check_headers import OPTIONAL
from compilation import INCLUDE, ROOT, in_parallel, report, run

FLAGS = ["-std=c++20", "-gencode=arch=compute_90a,code=sm_90a", "-Xcompiler=-fopenmp,-Wno-unknown-pragmas", "-Werror=all-warnings", "-c"]

PRESET = """#include <samba/samba.hpp>
using namespace samba;
float run(const char* path) {
  const auto weights = load<presets::Samba1_7B, bf16>(path);
  Session<presets::Samba1_7B, bf16, bf16> session(weights);
  return session.step(1)[0];
}
"""
TRAINING = """#include <samba/samba.hpp>
#include <samba/train/adapters.hpp>
#include <samba/train/trainer.hpp>
using namespace samba;
struct Model : LanguageModel<Repeat<2, HybridStack<Mamba<64>, Parallel<SWA<32, AttentionOptions{.n_heads = 2}>,
                                                                       SwiGLU<64>>>>,
                             ModelOptions{.vocab_size = 256, .tie_embeddings = true}> {};
double run(const Weights<Model>& weights, std::span<const Example> examples) {
  Gradient<Model> gradient({.tokens = 64, .recompute = true});
  Weights<Model, Master<float>> g;
  return gradient.add(weights, examples, g);
}
"""


def main(nvcc, include=INCLUDE):
    include = pathlib.Path(include)

    def compile_text(text):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "source.cu")
            source.write_text(text)
            code, output = run([nvcc, *FLAGS, f"-I{include}", f"-I{ROOT}/cuda", source, "-o", pathlib.Path(folder, "source.o")])
            return output or "failed" if code else None

    def available(header):
        library = OPTIONAL.get(header)
        return library is None or subprocess.run(["g++", "-std=c++20", "-fsyntax-only", "-x", "c++", "-"],
                                                 input=f"#include <{library}>\n", text=True,
                                                 stderr=subprocess.DEVNULL).returncode == 0

    groups = {}
    for path in sorted((include / "samba").rglob("*.hpp")):
        header = path.relative_to(include).as_posix()
        if header.startswith("samba/kernels/compiled"):
            continue  # of programs that link samba::compiled
        if available(header):
            groups.setdefault(header.split("/")[1] if header.count("/") > 1 else "samba.hpp", []).append(header)
        else:
            print(f"left out {header}: <{OPTIONAL[header]}> is not installed")
    cuda = ROOT / "cuda"
    groups["cuda"] = sorted(path.relative_to(cuda).as_posix() for path in cuda.rglob("*.cuh"))
    texts = [(name, "".join(f"#include <{header}>\n" for header in headers)) for name, headers in groups.items()]
    readme = re.search(r"```cpp\n(.*?int main.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    texts += [("README's program", readme), ("a preset", PRESET), ("training", TRAINING)]
    return report("CUDA sources", in_parallel(lambda item: (item[0], compile_text(item[1])), texts))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].endswith("NOTFOUND"):
        print("not checked: there is no nvcc (CUDA toolkit 13.0 or newer)")
        sys.exit(77)
    sys.exit(main(*sys.argv[1:]))
